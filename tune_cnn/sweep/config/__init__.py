"""From config files and what `--set` changes in them to named, checked experiments."""
