"""Systems under test: what the suite measures and never trusts with a clock."""
