"""What the gates find and how often they err, by simulation: `python -m trainpace.simulate`.

Runs are drawn, never measured; the judging is the real code of perf/trainpace/stats/sequential.py and perf/trainpace/stats/tolerance.py.
"""
