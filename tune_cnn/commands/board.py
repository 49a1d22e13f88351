"""`tune-cnn board`: watch a sweep, also a running one, in TensorBoard."""

import argparse
import subprocess
import sys

from tune_cnn.sweep.storage import SweepFolder


def run(options: argparse.Namespace) -> int:
    """Run TensorBoard until Ctrl-C."""
    folder = SweepFolder.find(options.sweep, options.storage)
    with folder.trials.on_disk() as logdir:
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir)]
        command += ["--host", "127.0.0.1", "--port", str(options.port), "--reload_interval", "2"]
        try:
            return subprocess.run(command, check=False).returncode
        except KeyboardInterrupt:
            return 0
