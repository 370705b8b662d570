"""What users and their tools see of a session: the table, progress, and the export to pytest-benchmark."""
