"""Source code of custom networks: imported, identified by a fingerprint, and sent to other machines.

Building a network runs its code: do so only for sweeps that you trust.
"""

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from tune_cnn.errors import NetworkError, ResultError
from tune_cnn.files import read_file, replace_file, temporary_folder
from tune_cnn.rules import suggest
from tune_cnn.settings import Settings
from tune_cnn.texts import digest, named

Texts = dict[str, str]  # source files by path: the network's file, then those beside it that it imports
_MOST_BYTES = 1_000_000  # of a source file
# Custom networks known to this process:
_loaded: dict[tuple[str, str], type[nn.Module]] = {}  # by model and fingerprint
_sources: dict[str, Texts] = {}  # by fingerprint; some from the machine that started the sweep
_files: dict[str, list[str]] = {}  # by model: its file, and those beside it that it imports
_beside: set[str] = set()  # names of imported modules that lie beside custom networks


def resolve(settings: Settings) -> Settings:
    """Fill in the fingerprint of a custom network's source, which is part of the trial id; other networks have none.

    It raises a NetworkError if there is no such file, module or class, or if it cannot be imported.
    """
    if settings.model is None:
        return settings
    model = os.path.abspath(os.path.expanduser(settings.model)) if _is_file(settings.model) else settings.model
    return replace(settings, model=model, model_fingerprint=_load(model, settings.model_fingerprint)[1])


def sources(trials: Iterable[Settings]) -> dict[str, Texts]:
    """Source files of custom networks, as planned, by fingerprint; processes on other machines `adopt` them."""
    return {s.model_fingerprint: _sources[s.model_fingerprint] for s in trials if s.model_fingerprint in _sources}


def adopt(sources: Mapping[str, Texts]) -> None:
    """Use these source files of custom networks from now on."""
    _sources.update(sources)


def network_class(settings: Settings) -> type[nn.Module]:
    """Import the class of a resolved trial's custom network; a NetworkError if it has changed since the planning."""
    assert settings.model is not None
    return _load(settings.model, settings.model_fingerprint)[0]


def _is_file(model: str) -> bool:
    return model.rpartition(":")[0].endswith(".py")


def _load(model: str, planned: str | None) -> tuple[type[nn.Module], str]:
    """Import a custom network's class; return it and its source's fingerprint, which must be `planned` if given."""
    known = planned or _as_loaded(model)
    if known and (model, known) in _loaded:
        return _loaded[model, known], known
    place, _, name = model.rpartition(":")
    texts: list[tuple[str, str]] = []  # path and text of each file
    try:
        if _is_file(model):
            module, texts = _from_files(place, _sources.get(planned or "", {}), model)
        elif place == "__main__" or importlib.util.find_spec(place) is None:  # a script, or a notebook
            raise NetworkError(f"{model}: there is no module {place}; install it, or name a file: nets.py:Net")
        else:
            module = importlib.import_module(place)
    except NetworkError:
        raise
    except (Exception, SystemExit) as error:
        raise NetworkError(f"{model} cannot be imported: {error_text(error, model)}") from error
    network: Any = getattr(module, name, None)
    if not _is_network(network):
        classes = [k for k, value in vars(module).items() if _is_network(value) and value.__module__ == module.__name__]
        remedy = suggest(name, classes) if classes else "derive one from it"
        raise NetworkError(f"{model}: no class of this name is a torch.nn.Module; {remedy}")
    if not _is_file(model):  # the module may only re-export the class
        file = str(getattr(sys.modules.get(network.__module__), "__file__", None))
        if not file.endswith(".py"):
            fault = f"no Python source of {network.__module__}"
            raise NetworkError(f"{model}: {fault}; name a Python file and a class in it")
        texts = [(file, _text(file, model))]
    fingerprint = digest("".join(text for _, text in texts))
    if not _is_file(model) and any(m == model and f != fingerprint and n is network for (m, f), n in _loaded.items()):
        raise NetworkError(f"{model}: its file has changed since it was imported; restart the kernel, or Python")
    if planned not in (None, fingerprint):
        raise NetworkError(f"{model} has changed since this trial was planned; restore it, or start a new sweep")
    if _is_file(model):
        _sources[fingerprint], _files[model] = dict(texts), [path for path, _ in texts]
    _loaded[model, fingerprint] = network
    return network, fingerprint


def _as_loaded(model: str) -> str | None:
    """Current fingerprint of the files that a custom network was loaded from; None: not loaded, or unreadable."""
    with suppress(NetworkError):
        return digest("".join(_text(file, model) for file in _files[model])) if model in _files else None
    return None


def _text(path: str, model: str) -> str:
    try:
        return read_file(Path(path), _MOST_BYTES).decode("utf-8-sig")  # Windows editors write a byte-order mark
    except (OSError, ValueError, ResultError) as error:
        remedy = (
            "its path is taken from the config file's folder; if the project was moved, type the sweep's command there"
        )
        raise NetworkError(f"{model}: cannot be read ({error}); {remedy}") from error


def _is_network(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


def _from_files(place: str, planned: Texts, model: str) -> tuple[ModuleType, list[tuple[str, str]]]:
    """Import a file as a module; return it, and path and text of the file, then of imported modules beside it, by name.

    If the `planned` files are not all on this machine, they are imported from a temporary folder.
    """
    source = planned.get(place) or _text(place, model)
    module = ModuleType(f"tune_cnn_own_{digest(source)}")
    module.__file__ = place
    sys.modules[module.__name__] = module  # dataclasses and pickle look it up there
    home = Path(place).parent
    with ExitStack() as stack:
        folder = home
        if not all(map(os.path.exists, planned)):
            folder = stack.enter_context(temporary_folder())
            for path, text in planned.items():
                replace_file(folder / Path(path).relative_to(home), text.encode())
        # Import files beside it anew: another network's may have the same names, and these may have changed since.
        old = {n: sys.modules.pop(n) for n, m in list(sys.modules.items()) if n in _beside or _file_in(folder, n, m)}
        sys.path.insert(0, str(folder))
        try:
            exec(compile(source, place, "exec"), vars(module))
        except BaseException:
            del sys.modules[module.__name__]
            raise
        finally:
            sys.path.remove(str(folder))
            beside = {n: file for n, m in sorted(sys.modules.items()) if (file := _file_in(folder, n, m))}
            _beside.update(beside.keys() - old.keys())
            sys.modules.update({n: m for n, m in old.items() if n not in _beside})  # restored for others
        texts = [(str(home / Path(file).relative_to(folder)), _text(file, model)) for file in beside.values()]
    return module, [(place, source), *texts]


def _file_in(folder: Path, name: str, module: ModuleType) -> str | None:
    """File of a module that was imported from a folder, but not from a virtual environment in it; else None."""
    file = str(getattr(module, "__file__", None))
    if not file.startswith(f"{folder}{os.sep}"):
        return None
    path = folder.joinpath(*name.split("."))
    return file if file in (f"{path}.py", str(path / "__init__.py")) else None


def error_text(error: BaseException, model: str) -> str:
    """Describe an error in a custom network's code, with the line of its file that it came from."""
    name = model.rpartition(":")[0]
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    return named(error) + (f" (line {lines[-1]})" if lines else "")
