"""Reports: records in, text out. One file a report; table.py and columns.py hold what they share."""
