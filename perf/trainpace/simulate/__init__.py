"""What the gates find and how often they err, by simulation: `python -m trainpace.simulate`.

Runs are drawn, never measured; the judging is the real code of stats/sequential.py and stats/tolerance.py.
"""
