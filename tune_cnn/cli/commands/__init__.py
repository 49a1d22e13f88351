"""The commands, one a module: `run` takes the parsed arguments and returns the exit code."""
