"""Run the command `tune-cnn` as `python -m tune_cnn`."""

import sys

if not sys.flags.safe_path:  # sys.path begins with the working folder, where the user may have a random.py
    sys.path.append(sys.path.pop(0))

from tune_cnn.cli import run

run()
