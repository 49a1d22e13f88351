"""The source of a user's own network: found, told from others by a fingerprint, and sent to other machines.

Its code runs where its settings do: only build networks of sweeps that you trust.
"""

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

from torch import nn

from tune_cnn.errors import NetworkError, ResultError
from tune_cnn.files import read_file
from tune_cnn.rules import suggest
from tune_cnn.settings import Settings
from tune_cnn.texts import digest

_MOST_BYTES = 1_000_000  # of a source file
_sources: dict[str, str] = {}  # by fingerprint: what came from the machine that started the sweep


def resolve(settings: Settings) -> Settings:
    """Fill in the fingerprint of the network's source, which is part of the trial id; ours have none.

    Raises:
        NetworkError: There is no such file, module or class, or it cannot be imported.
    """
    if settings.model is None:
        return settings
    model = os.path.abspath(os.path.expanduser(settings.model)) if _is_file(settings.model) else settings.model
    fingerprint = digest(_source(model, settings.model_fingerprint))
    resolved = replace(settings, model=model, model_fingerprint=fingerprint)
    network_class(resolved)
    return resolved


def sources(trials: Iterable[Settings]) -> dict[str, str]:
    """The source files of own networks by fingerprint, for processes of other machines to `adopt`.

    Raises:
        NetworkError: One has changed since its trial was planned.
    """
    files = {s.model_fingerprint: s.model for s in trials if s.model and s.model_fingerprint and _is_file(s.model)}
    return {fingerprint: _source(model, fingerprint) for fingerprint, model in files.items()}


def adopt(sources: Mapping[str, str]) -> None:
    """Take the source files of own networks from here on."""
    _sources.update(sources)


def network_class(settings: Settings) -> type[nn.Module]:
    """The class of a resolved trial's own network.

    Raises:
        NetworkError: It cannot be imported, is no `nn.Module`, or has changed since the trial was planned.
    """
    assert settings.model is not None
    return _class(settings.model, settings.model_fingerprint)


def _is_file(model: str) -> bool:
    return model.rpartition(":")[0].endswith(".py")


def _source(model: str, planned: str | None = None) -> str:
    """The text of the file that holds an own network, whose fingerprint is `planned` if that is known."""
    if kept := _sources.get(planned or ""):
        return kept
    place = model.rpartition(":")[0]
    try:
        if not _is_file(model):
            spec = importlib.util.find_spec(place)
            if spec is None or not str(spec.origin).endswith(".py"):
                raise NetworkError(f"{model}: there is no module {place}; install it, or name a file: nets.py:Net")
            place = str(spec.origin)
        source = read_file(Path(place), _MOST_BYTES).decode()
    except FileNotFoundError:
        raise NetworkError(f"{place}: no such file; the path is taken from the config file's folder") from None
    except (OSError, ValueError, ResultError, ModuleNotFoundError) as error:
        if isinstance(error, NetworkError):
            raise
        raise NetworkError(f"{model}: cannot be read ({error}); name a Python file and a class in it") from error
    if planned not in (None, digest(source)):
        raise NetworkError(f"{model} has changed since this trial was planned; restore it, or start a new sweep")
    return source


@cache
def _class(model: str, fingerprint: str | None) -> type[nn.Module]:
    place, _, name = model.rpartition(":")
    source = _source(model, fingerprint)
    try:
        module = _from_source(place, source) if _is_file(model) else importlib.import_module(place)
    except (Exception, SystemExit) as error:
        raise NetworkError(f"{model} cannot be imported: {told(error, model)}") from error
    network = getattr(module, name, None)
    if network is None:
        found = [k for k, value in vars(module).items() if _is_network(value) and value.__module__ == module.__name__]
        remedy = suggest(name, found) if found else "it has no class of a network"
        raise NetworkError(f"{model}: no class of this name; {remedy.replace('keys are', 'classes are')}")
    if not _is_network(network):
        raise NetworkError(f"{model}: not a torch.nn.Module; derive its class from torch.nn.Module")
    return network  # type: ignore[no-any-return]


def _is_network(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


def _from_source(place: str, source: str) -> ModuleType:
    module = ModuleType(f"tune_cnn_own_{digest(source)}")
    module.__file__ = place
    sys.modules[module.__name__] = module  # dataclasses and pickle look there
    folder = str(Path(place).parent)
    sys.path.insert(0, folder)  # it may import files beside it
    try:
        exec(compile(source, place, "exec"), vars(module))
    except BaseException:
        del sys.modules[module.__name__]
        raise
    finally:
        sys.path.remove(folder)
    return module


def told(error: BaseException, model: str) -> str:
    name = model.rpartition(":")[0]
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    if isinstance(error, SyntaxError) and error.filename == name:
        lines = [error.lineno]
    message = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    return f"{type(error).__name__}: {message}" + (f" (line {lines[-1]})" if lines else "")
