"""What a full-size step must do: counted from a trace of the native trainer, not timed. Needs no GPU.

`record.py` the counts, `worker.py` the process that traces, `predict.py` what a device could make of the counts. Only
`trace.py` and `counter.py` import torch.
"""
