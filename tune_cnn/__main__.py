"""`python -m tune_cnn`: the same as the command `tune-cnn`."""

from tune_cnn.cli import run

run()
