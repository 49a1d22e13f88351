"""The commands, a module each; `tune_cnn.cli.main.parser` tells what a module has."""
