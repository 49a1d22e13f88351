"""`tune-cnn board`: watch a sweep, also a running one, in TensorBoard."""

import argparse
import subprocess
import sys

from tune_cnn.sweep.storage import SweepFolder


def run(options: argparse.Namespace) -> int:
    """Run TensorBoard until Ctrl-C."""
    folder = SweepFolder.find(options.sweep, options.storage)
    if options.port:  # else TensorBoard chooses one
        # It smooths curves unless its address says otherwise; over a few epochs that hides what happened.
        address = f"http://127.0.0.1:{options.port}/?smoothing=0#custom_scalars&_smoothingWeight=0"
        print(f"Depth and width compared: {address}", file=sys.stderr)
    with folder.trials.on_disk() as logdir:
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir)]
        command += ["--host", "127.0.0.1", "--port", str(options.port), "--reload_interval", "1"]
        try:
            return subprocess.run(command, check=False).returncode
        except KeyboardInterrupt:
            return 0
