"""Config files and the changes of `--set`, turned into named and checked experiments."""
