"""What the machine at hand is and how it fares."""
