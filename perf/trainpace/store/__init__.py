"""Files that outlive a session: runs, baselines, costs, the history, locks."""
