"""What a measurement means: baselines, statistics and the verdict."""
