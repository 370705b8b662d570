"""How ranks are started and followed: the run host in its own process, and the judging side's handle on it."""
