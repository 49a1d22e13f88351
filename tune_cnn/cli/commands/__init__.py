"""The commands, one module each; `tune_cnn.cli.main.parser` says what a module must have."""
