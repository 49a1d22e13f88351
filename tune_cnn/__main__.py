"""`python -m tune_cnn`: the same as the command `tune-cnn`."""

import sys

from tune_cnn.cli import main

sys.exit(main())
