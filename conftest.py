"""Makes the plugin available to a checkout; nothing else."""

pytest_plugins = ["trainpace.plugin"]
