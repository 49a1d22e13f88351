"""The command line: reads the arguments, runs one command, and turns errors into messages and exit codes."""

import argparse
import contextlib
import importlib
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from tune_cnn.cli.arguments import parser
from tune_cnn.errors import ConfigError, TuneCnnError
from tune_cnn.texts import tell
from tune_cnn.waiting import waiting

_INTERRUPTED = 130


def run() -> NoReturn:
    """The command `tune-cnn`: `main`, then the process's end at once, which PyTorch and Ray would delay by a second.

    Nothing is left to clean up: whatever a command opens or starts, it closes and stops itself.
    """
    os.environ["PYTHONSAFEPATH"] = "1"  # no process of ours imports the random.py of the user's working folder
    exit_code = main()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(exit_code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 success, 1 some trials failed, 2 the user's mistake, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(arguments)
    try:
        if "files" in options:
            _read_files(options)
        with waiting("loading PyTorch"):  # only now, so that help and faults of config files are told at once
            run: Callable[[Any], int] = importlib.import_module(f"tune_cnn.cli.commands.{options.command}").run
        exit_code = run(options)
        sys.stdout.flush()  # while a reader that has gone can still be forgiven
        return exit_code
    except TuneCnnError as error:
        tell(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        again = [argument for argument in arguments if argument != "--fresh"]  # that would start over once more
        remedy = f"; continue with:  {shlex.join(['tune-cnn', *again])}" if options.command == "sweep" else ""
        tell(f"\ninterrupted{remedy}", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone, as in `tune-cnn ... | head`; Python would complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MemoryError, RuntimeError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        if "new thread" in reason:
            tell(f"too many threads ({reason}); ask for fewer with --threads", file=sys.stderr)
        elif isinstance(error, MemoryError) or "memory" in reason:  # so do PyTorch's errors say, on cores and on GPUs
            tell(
                f"out of memory ({reason}); end other programs, or ask for smaller networks or batches, fewer images",
                file=sys.stderr,
            )
        else:
            raise
        return 2
    except OSError as error:
        tell(
            f"{error.filename2 or error.filename or 'a file'}: {error.strerror or error}; mend that and try again",
            file=sys.stderr,
        )
        return 2


def _read_files(options: argparse.Namespace) -> None:
    """Put the experiments of the config files into the options, and the sweep's name if none is given.

    Raises:
        ConfigError: With the faults of all files and options.
    """
    from tune_cnn.rules import name_problems
    from tune_cnn.sweep.search_space import load_experiments

    errors = []
    if "name" in options:
        options.name = options.name or "-".join(dict.fromkeys(path.stem for path in options.files))
        if problems := name_problems(options.name):
            errors.append(ConfigError("--name", problems))
    try:
        found = load_experiments(options.files, overrides=options.overrides, only=options.only, data=options.data)
    except ConfigError as error:
        errors.append(error)
    if errors:
        raise ConfigError.joined(errors)
    options.experiments = found
