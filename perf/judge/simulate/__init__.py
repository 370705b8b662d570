"""What the gates find and how often they err, by simulation: `python -m perf.judge.simulate`.

Runs are drawn, never measured; the judging is the real code of perf/judge/sequential.py and perf/judge/compare.py.
"""
