"""Train a grid of CNNs on CIFAR-10 with Ray Tune, and answer what the grid was run for.

From Python, call `tune_cnn.sweep(...)` or `tune_cnn.open_sweep(...)`; `help(tune_cnn.sweep)` lists the arguments. Both
return a sweep with `results`, `history(name)` and `model(name)`.
"""

import importlib
import os
import sys

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"]:  # python -m, until Python has located the module to run
    _module = sys.orig_argv[-len(sys.argv)]
    _module = _module.partition("m")[2] if _module.startswith("-") else _module  # -mtune_cnn.x
    if _module.startswith("tune_cnn.") and not _module.endswith("__main__"):  # would silently do nothing
        _commands = {_file.removesuffix(".py") for _file in os.listdir(f"{__path__[0]}/cli/commands")}
        _command = next((part for part in reversed(_module.split(".")) if part in _commands), "--help")
        sys.stderr.write(f"{_module}: a module for Python programs, no command; type: tune-cnn {_command}\n")
        sys.exit(2)


class _Package(type(sys)):  # type: ignore[misc]
    """Imports the Python interface on first use, since that takes seconds."""

    # The setter ignores the subpackage `sweep`, which Python assigns to this name when it is imported.
    sweep = property(lambda _: importlib.import_module("tune_cnn.api").sweep, lambda *_: None)
    open_sweep = property(lambda _: importlib.import_module("tune_cnn.api").open_sweep)


sys.modules[__name__].__class__ = _Package
