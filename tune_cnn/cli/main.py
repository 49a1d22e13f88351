"""The command line: parses the arguments, runs one command, and turns errors into messages and exit codes."""

import argparse
import contextlib
import difflib
import importlib
import io
import os
import pkgutil
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from tune_cnn import __version__
from tune_cnn.cli import commands
from tune_cnn.errors import TuneCnnError
from tune_cnn.texts import tell

_INTERRUPTED = 130
_FIRST = ("sweep", "trial", "diagnose", "status", "export", "plot", "report")  # in the help; others alphabetically


def run() -> NoReturn:
    """Run the command `tune-cnn`, and end the process at once, which PyTorch and Ray would delay by a second.

    Nothing is left to clean up: each command closes what it opens and stops what it starts.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by `>&-`; the next opened file would take its place
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r+"))
    if isinstance(sys.stdout, io.TextIOWrapper):  # characters the terminal cannot show must not end a command
        sys.stdout.reconfigure(errors="backslashreplace")
    log = io.BufferedWriter(_Log(sys.stderr.fileno(), "w", closefd=False))
    sys.stderr = io.TextIOWrapper(log, sys.stderr.encoding, "backslashreplace", line_buffering=True)
    os.environ["PYTHONSAFEPATH"] = "1"  # our processes import no random.py from the working folder
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "60")  # a progress bar redrawn ten times a second would fill a log
    exit_code = main()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(exit_code)


class _Log(io.FileIO):
    """Stream that drops what cannot be written: a full disk, pipe or a lost terminal must not end a sweep."""

    def write(self, text: Any) -> int:
        with contextlib.suppress(OSError):
            return super().write(text) or len(text)  # None from a full non-blocking pipe
        return len(text)


class _Parser(argparse.ArgumentParser):
    """Parser whose errors suggest the closest match and give an example; the long usage is left to --help."""

    def error(self, message: str) -> NoReturn:
        if (wrong := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)) and "COMMAND" in message:
            near = difflib.get_close_matches(wrong[1], re.findall(r"[\w-]+", wrong[2]), n=1) or ["sweep"]
            message = f"no such command: {wrong[1]}; did you mean {near[0]}?"
        elif (unknown := re.match(r"unrecognized arguments: --([\w.-]+)(?:[= ](\S+))?", message)) is not None:
            change = f"{unknown[1].replace('-', '_')}={unknown[2] or 'VALUE'}"
            message += f"; a setting is changed by --set, such as --set {change}"
        elif re.match(r"unrecognized arguments: .*[\]}]", message):
            message += "; a value with spaces needs quotes, such as --set 'grid.layers_per_block=[1, 2]'"
        example = str(self.epilog).partition("\n")[2]
        self.exit(2, f"{self.prog}: {message}\nExample:\n{example}\nAll options: {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """Build the parser of all commands; each is a module in `commands`.

    The module has a docstring, `EXAMPLE` and `add_arguments` for the help; and `run`, which returns the exit code. Only
    `run` imports heavy packages.
    """
    style: Any = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    style["allow_abbrev"] = False  # `main` must recognise --fresh, to drop it where a sweep is resumed
    root = _Parser(
        prog="tune-cnn",
        description="Train a grid of CNNs on CIFAR-10 with Ray Tune, and answer what the grid was run for.",
        epilog="A first try, on drawn images:\n  tune-cnn sweep quick",
        **style,
    )
    root.add_argument("--version", action="version", version=f"tune-cnn {__version__}")
    subparsers = root.add_subparsers(title="commands", metavar="COMMAND")
    root.set_defaults(command=None)
    names = sorted(module.name for module in pkgutil.iter_modules(commands.__path__))
    for name in sorted(names, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST)):
        command = importlib.import_module(f"{commands.__name__}.{name}")
        description, epilog = str(command.__doc__), f"Example:\n  {command.EXAMPLE}"
        purpose = description[0].lower() + description[1:].removesuffix(".")
        subparser = subparsers.add_parser(name, help=purpose, description=description, epilog=epilog, **style)
        subparser.set_defaults(command=name, run=command.run)
        command.add_arguments(subparser)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 success, 1 some trials failed, 2 the user's mistake, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    root = parser()
    options = root.parse_args(arguments)
    if options.command is None:
        root.print_help(sys.stderr)
        return 2
    try:
        try:
            os.getcwd()
        except OSError as error:  # PyTorch would end the process
            fault = f"the working folder cannot be found ({error.strerror})"
            raise TuneCnnError(f'{fault}; type: cd "$PWD", or go to another one') from error
        if os.path.expanduser("~") == "~":  # as in a container whose user has no entry in /etc/passwd
            raise TuneCnnError("this user has no home folder; name one: export HOME=/tmp")
        exit_code: int = options.run(options)
        sys.stdout.flush()  # while a BrokenPipeError is still caught
        return exit_code
    except TuneCnnError as error:
        tell(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        again = [argument for argument in arguments if argument != "--fresh"]  # which would start over again
        has_begun = options.command == "sweep" and not options.dry_run
        remedy = f"; continue with:  {shlex.join(['tune-cnn', *again])}" if has_begun else ""
        tell(f"\ninterrupted{remedy}", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone, as in `tune-cnn ... | head`; Python would complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MemoryError, RuntimeError, ImportError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        # In the words of PyTorch's errors on CPUs and GPUs, and of the loader of its libraries.
        wanting = "of memory|allocate|enough memory|map segment|new thread"
        if not isinstance(error, MemoryError) and not re.search(wanting, reason):
            raise
        remedy = "end other programs, or ask for fewer --threads, smaller networks or batches, fewer images"
        tell(f"out of memory or threads ({reason}); {remedy}", file=sys.stderr)
        return 2
    except OSError as error:
        place = error.filename2 or error.filename or f"a file, perhaps in {os.environ.get('TMPDIR', '/tmp')}"
        tell(f"{place}: {error.strerror or error}; fix that and try again", file=sys.stderr)
        return 2
