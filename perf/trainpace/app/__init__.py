"""The shell: options, resources and the commands that put the other rooms together."""
