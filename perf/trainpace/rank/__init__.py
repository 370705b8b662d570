"""What runs in the measured interpreter: standard library and torch, nothing else of trainpace.

The judging side imports it as `trainpace.rank`. A run host loads it by path from the judging checkout, as
`trainpace_rank` (__main__.py): there `trainpace` is the measured side's.
"""
