"""A user's own network: a class in a file, or in an installed module.

Its code runs where its settings do: only build networks of sweeps that you trust.
"""

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from tune_cnn.errors import NetworkError, ResultError, TuneCnnError
from tune_cnn.files import read_file
from tune_cnn.rules import suggest
from tune_cnn.settings import Settings

_MOST_BYTES = 1_000_000  # of a source file
_MOST_PARAMETERS = 2**30  # with Adam and its checkpoints, 16 GB; more is a mistyped width
_STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_sources: dict[str, str] = {}  # by fingerprint: what came from the machine that started the sweep


def resolve(settings: Settings) -> Settings:
    """Fill in the fingerprint of the network's source, which is part of the trial id; ours have none.

    Raises:
        NetworkError: There is no such file, module or class, or it cannot be imported.
    """
    if settings.model is None:
        return settings
    model = os.path.abspath(os.path.expanduser(settings.model)) if _is_file(settings.model) else settings.model
    resolved = replace(settings, model=model, model_fingerprint=_fingerprint(_source(model)))
    if settings.model_fingerprint not in (None, resolved.model_fingerprint):
        raise NetworkError(f"{settings.model} has changed since this trial was planned; restore it, or start a new one")
    network_class(resolved)
    return resolved


def sources(trials: Iterable[Settings]) -> dict[str, str]:
    """The source files of own networks by fingerprint, for processes of other machines to `adopt`."""
    files = {s.model_fingerprint: s.model for s in trials if s.model and s.model_fingerprint and _is_file(s.model)}
    return {fingerprint: _source(model) for fingerprint, model in files.items()}


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


def build_own(settings: Settings) -> nn.Module:
    """The own network of a trial.

    Raises:
        NetworkError: It cannot be imported, or its constructor does not take what it is given.
    """
    network = network_class(settings)
    model = network(**_arguments(network, settings))
    model.register_forward_pre_hook(_channels_first)
    return model


def _channels_first(model: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Give the network its images in PyTorch's default layout; a trial's are channels-last."""
    return (inputs[0].contiguous(),)


def measured_layers(model: nn.Module, settings: Settings) -> list[tuple[Any, tuple[int, ...], int]]:
    """The conv and linear layers of a network in the order of their calls, found by one image's forward pass.

    Returns:
        For each: the layer, the shape (C, H, W) or (features,) of its input, and how many positions it computes.
    """
    found: list[tuple[Any, tuple[int, ...], int]] = []

    def called(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        width = layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
        found.append((layer, tuple(inputs[0].shape[1:]), output.numel() // width))

    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(called) for layer in layers]
    _scores(model, settings, images=1)
    for hook in hooks:
        hook.remove()
    return found


def fault(settings: Settings) -> str | None:
    """Why a trial's own network cannot be trained, and what to do; None if it can.

    It is built once, and classifies two random images.
    """
    try:
        network = network_class(settings)
        arguments = _arguments(network, settings)
        with _explained(settings, "cannot be built"), torch.random.fork_rng(devices=[]):
            parameters = 0
            with suppress(NotImplementedError), torch.device("meta"):  # not every network can be built there
                parameters = sum(weight.numel() for weight in network(**arguments).parameters())
            if parameters > _MOST_PARAMETERS:
                return f"{settings.network} has {parameters:,} parameters; at most {_MOST_PARAMETERS:,} are trained"
            model = network(**arguments)
        if not any(weight.requires_grad for weight in model.parameters()):
            return f"{settings.network} has no weights to train; give it layers in __init__"
        with _explained(settings, "cannot classify two images"), torch.random.fork_rng(devices=[]):
            scores = _scores(model, settings, images=2)
    except NetworkError as error:
        return str(error)
    wanted = (2, settings.data.classes)
    if not isinstance(scores, Tensor) or tuple(scores.shape) != wanted or not scores.is_floating_point():
        found = f"{scores.dtype} {(*scores.shape,)}" if isinstance(scores, Tensor) else type(scores).__name__
        return f"{settings.network} gives {found} for two images; its scores must be floats of shape {wanted}"
    return None


@contextmanager
def _explained(settings: Settings, fails: str) -> Any:
    """Turn what the network's own code raises into a NetworkError that names the line."""
    try:
        yield
    except NetworkError:
        raise
    except Exception as error:
        raise NetworkError(f"{settings.model} {fails}: {_told(error, str(settings.model))}") from error


def _told(error: BaseException, model: str) -> str:
    name = model.rpartition(":")[0]
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    if isinstance(error, SyntaxError) and error.filename == name:
        lines = [error.lineno]
    message = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    return f"{type(error).__name__}: {message}" + (f" (line {lines[-1]})" if lines else "")


def _scores(model: nn.Module, settings: Settings, images: int) -> Any:
    was_training = model.training
    with torch.no_grad():
        scores = model.eval()(torch.rand(images, *settings.data.in_size))
    model.train(was_training)
    return scores


def _arguments(network: type[nn.Module], settings: Settings) -> dict[str, Any]:
    offered = {
        "in_size": settings.data.in_size,
        "out_classes": settings.data.classes,
        "filters": settings.filters,
        "pool_every": settings.pool_every,
        "hidden_dims": list(settings.hidden_dims),
    }
    try:
        parameters = inspect.signature(network).parameters
    except (TypeError, ValueError) as error:
        raise NetworkError(f"{settings.model}: its constructor cannot be read ({error}); define __init__") from error
    named = [name for name, parameter in parameters.items() if parameter.kind not in _STARRED]
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in ("in_size", "out_classes"):
        if name not in named:
            raise NetworkError(f"{settings.model}: its constructor must take in_size and out_classes; add {name}")
    own = settings.model_args or {}
    for name in own:
        if name in offered:
            raise NetworkError(f"model_args.{name}: tune_cnn gives it to the network; leave it out")
        if name not in named and not takes_any:
            known = [name for name in named if name not in offered]
            remedy = suggest(name, known) if known else "it takes none"
            raise NetworkError(f"model_args.{name}: {settings.network} does not take it; {remedy}")
    given = {name: value for name, value in offered.items() if name in named} | own
    for name in named:
        if name not in given and parameters[name].default is inspect.Parameter.empty:
            raise NetworkError(f"{settings.network} needs {name}; write it under model_args:")
    return given


def unused_keys(settings: Settings) -> set[str]:
    """The settings keys that are offered to an own network, and that its constructor does not take."""
    named = inspect.signature(network_class(settings)).parameters
    offered = {"filters_per_layer": "filters", "layers_per_block": "filters"}
    offered |= {"pool_every": "pool_every", "hidden_dims": "hidden_dims"}
    return {key for key, name in offered.items() if name not in named}


def _is_file(model: str) -> bool:
    return model.rpartition(":")[0].endswith(".py")


def _fingerprint(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def _source(model: str) -> str:
    """The text of the file that holds an own network."""
    place = model.rpartition(":")[0]
    try:
        if not _is_file(model):
            spec = importlib.util.find_spec(place)
            if spec is None or not str(spec.origin).endswith(".py"):
                raise NetworkError(f"{model}: there is no module {place}; install it, or name a file: nets.py:Net")
            place = str(spec.origin)
        return read_file(Path(place), _MOST_BYTES).decode()
    except FileNotFoundError:
        raise NetworkError(f"{place}: no such file; the path is taken from the config file's folder") from None
    except (OSError, ValueError, ResultError, ModuleNotFoundError) as error:
        if isinstance(error, NetworkError):
            raise
        raise NetworkError(f"{model}: cannot be read ({error}); name a Python file and a class in it") from error


@cache
def _class(model: str, fingerprint: str | None) -> type[nn.Module]:
    place, _, name = model.rpartition(":")
    try:
        module = _from_file(place, model, fingerprint) if _is_file(model) else importlib.import_module(place)
    except TuneCnnError:
        raise
    except (Exception, SystemExit) as error:
        raise NetworkError(f"{model} cannot be imported: {_told(error, model)}") from error
    network = getattr(module, name, None)
    if network is None:
        own = [value for value in vars(module).values() if _is_network(value)]
        found = [value.__name__ for value in own if value.__module__ == module.__name__]
        remedy = suggest(name, found) if found else "it has no class of a network"
        raise NetworkError(f"{model}: no class of this name; {remedy.replace('keys are', 'classes are')}")
    if not _is_network(network):
        raise NetworkError(f"{model}: not a torch.nn.Module; derive its class from torch.nn.Module")
    return network  # type: ignore[no-any-return]


def _is_network(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


def _from_file(place: str, model: str, fingerprint: str | None) -> ModuleType:
    source = _sources.get(fingerprint or "") or _source(model)
    if fingerprint not in (None, _fingerprint(source)):
        raise NetworkError(f"{model} has changed since this trial was planned; restore it, or start a new sweep")
    spec = importlib.util.spec_from_loader(f"tune_cnn_own_{_fingerprint(source)}", loader=None, origin=place)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = place
    sys.modules[spec.name] = module  # dataclasses and pickle look there
    folder = str(Path(place).parent)
    sys.path.insert(0, folder)  # it may import files beside it
    try:
        exec(compile(source, place, "exec"), vars(module))
    except BaseException:
        del sys.modules[spec.name]
        raise
    finally:
        sys.path.remove(folder)
    return module
