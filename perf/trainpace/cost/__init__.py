"""What a full-size step must do: counted from a trace of the native trainer, not timed. Needs no GPU.

`worker.py` is the process that traces, `predict.py` gathers what a device could make of the counts (runs/cost.py). Only
what that process loads imports torch.
"""
