"""What a run was: its samples, the machine it ran on, and the figures computed from them."""
