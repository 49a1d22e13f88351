"""Custom networks: how one is built, what its layers are, and why it cannot be trained."""

import inspect
import warnings
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.utils._pytree import tree_leaves

from tune_cnn.errors import NetworkError
from tune_cnn.models.custom_source import error_text, network_class
from tune_cnn.rules import suggest
from tune_cnn.settings import Settings

_MOST_PARAMETERS = 2**30  # 16 GB with Adam and its checkpoints; more is taken for a mistyped width
_STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def build_custom(settings: Settings) -> nn.Module:
    """Build a trial's custom network; a NetworkError if it cannot be imported, or does not accept its arguments."""
    network = network_class(settings)
    model = network(**_arguments(network, settings))
    model.register_forward_pre_hook(_channels_first)
    return model


def _channels_first(model: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Pass images to the network in PyTorch's default layout; a trial's are channels-last."""
    return (inputs[0].contiguous(),)


def measured_layers(model: nn.Module, settings: Settings) -> list[tuple[Any, tuple[int, ...], int]]:
    """Conv and linear layers of a network, in the order in which evaluating one image calls them.

    Returns:
        For each: the layer, the shape (C, H, W) or (features,) of its input, and its number of output positions.
    """
    calls: list[tuple[Any, tuple[int, ...], int]] = []

    def record(layer: Any, inputs: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> None:
        width = layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
        calls.append((layer, tuple([*inputs, *named.values()][0].shape[1:]), output.numel() // width))

    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(record, with_kwargs=True) for layer in layers]
    _scores(model.eval(), settings, images=1)
    for hook in hooks:
        hook.remove()
    return calls


def fault(settings: Settings, has_single: bool = False) -> str | None:
    """Why a trial's custom network cannot be trained, and what to do; None if it can.

    The network is built, and classifies one and two random images in evaluation mode and two in training mode; if
    `has_single`, which means that a training batch has one image, also one in training mode.
    """
    fails = "cannot be built"
    try:
        network = network_class(settings)
        arguments = _arguments(network, settings)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # a width of 0 becomes a fault
            parameters = 0
            with suppress(Exception, SystemExit), torch.device("meta"):  # not every network can be built there
                parameters = sum(weight.numel() for weight in network(**arguments).parameters())
            if parameters > _MOST_PARAMETERS:
                return f"{settings.network} has {parameters:,} parameters; at most {_MOST_PARAMETERS:,} are trained"
            model = network(**arguments)
            if any(isinstance(weight, UninitializedParameter) for weight in model.parameters()):
                return f"{settings.network} has lazy layers; call it once in __init__, so that they get their shapes"
            if not all(isinstance(value, Tensor) for value in model.state_dict().values()):
                return f"{settings.network} has an extra state that is not a tensor; make it a buffer"
            if (name := _plain_list(model)) is not None:
                remedy = "make it an nn.ModuleList, ModuleDict or ParameterList"
                return f"{settings.network} has weights in {name}, which are not trained; {remedy}"
            first = model.state_dict()
            batches = [("two images", 2, False), ("one image", 1, False), ("two images in training", 2, True)]
            if has_single:
                single = "one image in training, which an epoch's last batch has (choose another bs_train)"
                batches.append((single, 1, True))
            for few, images, is_training in batches:
                fails = f"cannot classify {few}"
                scores = _scores(model.train(is_training), settings, images)
                wanted = (images, settings.data.classes)
                is_tensor = isinstance(scores, Tensor)
                if not is_tensor or tuple(scores.shape) != wanted or not scores.is_floating_point():
                    found = f"{scores.dtype} {tuple(scores.shape)}" if is_tensor else type(scores).__name__
                    return f"{settings.network} gives {found} for {few}; its scores must be floats of shape {wanted}"
                if is_training:
                    fails = "cannot be trained"
                    scores.sum().backward()
            fails = "changes its layers or buffers in forward (make them in __init__, each of one shape)"
            model.load_state_dict(first)
    except NetworkError as error:
        return str(error)
    except (Exception, SystemExit) as error:  # from the network's own code
        return f"{settings.model} {fails}: {error_text(error, str(settings.model))}"
    return None


def _plain_list(model: nn.Module) -> str | None:
    """Find an attribute that holds weights in plain lists or dicts, where PyTorch does not see them."""
    known = set(model.parameters())
    for name, value in (attribute for module in model.modules() for attribute in vars(module).items()):
        for leaf in tree_leaves(value):  # of lists and dicts, however deeply nested
            weights = leaf.parameters() if isinstance(leaf, nn.Module) else [leaf]
            if any(isinstance(w, nn.Parameter) and w.requires_grad and w not in known for w in weights):
                return name
    return None


def _scores(model: nn.Module, settings: Settings, images: int) -> Any:
    with torch.set_grad_enabled(model.training):
        return model(torch.rand(images, *settings.data.in_size, dtype=torch.float))  # whatever the default dtype is


def _arguments(network: type[nn.Module], settings: Settings) -> dict[str, Any]:
    offered = {
        "in_size": settings.data.in_size,
        "out_classes": settings.data.classes,
        "filters": settings.filters,
        "pool_every": settings.pool_every,
        "hidden_dims": list(settings.hidden_dims),
    }
    parameters = inspect.signature(network).parameters
    named = [name for name, parameter in parameters.items() if parameter.kind not in _STARRED]
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    own = settings.model_args or {}
    for name in own:
        if name in offered:
            raise NetworkError(f"model_args.{name}: tune_cnn gives it to the network; leave it out")
        if name not in named and not takes_any:
            known = [other for other in named if other not in offered]
            remedy = suggest(name, known) if known else "it takes none"
            raise NetworkError(f"model_args.{name}: {settings.network} does not take it; {remedy}")
    always = ("in_size", "out_classes") if takes_any else ()
    given = {name: value for name, value in offered.items() if name in (*named, *always)} | own
    for name in named:
        if name not in given and parameters[name].default is inspect.Parameter.empty:
            raise NetworkError(f"{settings.network} needs {name}; write it under model_args:")
    return given


def unused_keys(settings: Settings) -> set[str]:
    """Settings keys that a custom network is offered, but that its constructor does not take."""
    named = inspect.signature(network_class(settings)).parameters
    offered = {"filters_per_layer": "filters", "layers_per_block": "filters"}
    offered |= {"pool_every": "pool_every", "hidden_dims": "hidden_dims"}
    return {key for key, name in offered.items() if name not in named}
