"""What runs in the measured interpreter: standard library and torch, nothing else of trainpace."""
