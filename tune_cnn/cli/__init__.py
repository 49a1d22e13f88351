"""The command line, `tune-cnn`: arguments, errors and exit codes, and one module per command."""

from tune_cnn.cli.main import main, run
