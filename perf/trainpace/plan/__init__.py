"""What to measure next, and what is found: one plan a gate. Pure."""
