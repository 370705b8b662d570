"""The gate of a pull request: head against base, measured side by side on one machine, judged by the base's suite."""
