"""Reports: records in, text out. One file a report; table.py and columns.py hold what they share."""

FILE = "results.json"
"""In a report's folder: the session's record (record.py). Here, so that who only looks for it need not load that."""
