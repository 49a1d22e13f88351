"""`python -m tune_cnn`: the same as the command `tune-cnn`."""

import sys

if not sys.flags.safe_path:  # Python looks first into the working folder, where the user may have a random.py
    sys.path.append(sys.path.pop(0))

from tune_cnn.cli import run

run()
