"""Watch a sweep, also a running one, in TensorBoard on 127.0.0.1."""

import signal
import socket
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from tune_cnn.cli.options import add_sweep, open_sweep, whole
from tune_cnn.errors import ResourceError
from tune_cnn.texts import tell

EXAMPLE = "tune-cnn board ray_results/exp1_1 --port 6006"
_HOST = "127.0.0.1"
_MOST_COMPARED = 40  # trials; of more, TensorBoard's custom scalars draw none until they are selected by hand


def add_arguments(parser: ArgumentParser) -> None:
    add_sweep(parser)
    parser.add_argument("--port", type=whole, default=6006, help="default: 6006")


def run(options: Namespace) -> int:
    folder = open_sweep(options.sweep, options)
    with socket.socket() as probe:  # TensorBoard would fail only after its start
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, options.port))
        except (OSError, OverflowError) as error:
            fault = f"--port {options.port}: cannot be used ({error})"
            raise ResourceError(f"{fault}; name another, or 0 for any") from error
    if options.port:  # for 0, TensorBoard chooses one
        # TensorBoard smooths curves unless the address says otherwise; over few epochs, that hides what happened.
        is_large = len(folder.trials.names()) > _MOST_COMPARED
        page = "&tagFilter=_by_#timeseries" if is_large else "#custom_scalars&_smoothingWeight=0"
        tell(f"Depth and width compared: http://{_HOST}:{options.port}/?smoothing=0{page}", file=sys.stderr)
    with folder.trials.on_disk() as logdir:
        command = [sys.executable, "-P", "-m", "tensorboard.main", "--logdir", str(logdir)]
        command += ["--host", _HOST, "--port", str(options.port), "--reload_interval", "1"]
        try:
            return _run(command)
        except KeyboardInterrupt:
            return 0


def _run(command: Sequence[str]) -> int:
    """Run a command that ends with this process, and return its exit code; 0 if a signal has ended it."""
    with subprocess.Popen(command) as process:
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            return max(process.wait(), 0)
        finally:
            process.terminate()
