"""State of a training (weights, optimizer, scheduler, EMA, random state): restored, checked, and written to files."""

import copy
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tune_cnn.errors import ConfigError, ResultError
from tune_cnn.files import read_file, replace_file
from tune_cnn.settings import Settings, parse_settings

MOST_BYTES = 4 * 2**30  # limit for a checkpoint whose network is unknown


class TrainingState(NamedTuple):
    """Everything that changes from batch to batch."""

    parts: Mapping[str, Any]  # `model`, `optimizer`, and `scheduler`, `average` and `scaler` if used
    device: torch.device

    def to_dict(self) -> dict[str, Any]:
        """The state as tensors and plain values, with the random state."""
        rng = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.device)
        return {name: part.state_dict() for name, part in self.parts.items()} | {"rng": rng}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what `to_dict` returned; if parts are missing or unfit, raise a ResultError and change nothing."""
        before = copy.deepcopy(self.to_dict())
        try:
            check_tensors(state["model"], self.parts["model"].state_dict())
            _check_optimizer_state(state["optimizer"], self.parts["optimizer"])
            self._load(copy.deepcopy(state))
            self._rehearse()
            self._load(state)
        except Exception as error:
            self._load(before)
            if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
                raise  # not a fault of the state, which can be loaded at the next try
            kind = "" if isinstance(error, ResultError) else f"{type(error).__name__}: "
            raise ResultError(kind + " ".join(str(error).split())) from error

    def _load(self, state: Mapping[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["rng"]["cpu"].cpu())
        if self.device.type == "cuda" and "cuda" in state["rng"]:
            torch.cuda.set_rng_state(state["rng"]["cuda"].cpu(), self.device)

    def _rehearse(self) -> None:
        """Take a step with zero gradients: optimizers and schedulers check what they load only when they use it."""
        optimizer = self.parts["optimizer"]
        for group in optimizer.param_groups:
            for weight in group["params"]:
                weight.grad = torch.zeros_like(weight)
        optimizer.step()
        if "scheduler" in self.parts:
            self.parts["scheduler"].step()
        optimizer.zero_grad()


def check_tensors(found: Mapping[str, Any], expected: Mapping[str, Tensor]) -> None:
    """Raise a ResultError that names the first tensor whose shape or dtype differs from that of the expected one."""
    for name in [*expected, *found]:
        mine, other = expected.get(name), found.get(name)
        if not isinstance(mine, Tensor) or not isinstance(other, Tensor):
            raise ResultError(f"{name} is {'unknown' if mine is None else 'missing'}")
        if (mine.shape, mine.dtype) != (other.shape, other.dtype):
            raise ResultError(f"{name} is {other.dtype} {[*other.shape]}, not {mine.dtype} {[*mine.shape]}")


def _check_optimizer_state(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Check that each tensor has the shape of its parameter, which the step of a fused optimizer does not check."""
    if not any(group.get("fused") for group in state["param_groups"]):
        return
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for index, kept in state["state"].items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.ndim > 0 and value.shape != weights[index].shape:
                shapes = f"{[*value.shape]}, not {[*weights[index].shape]}"
                raise ResultError(f"the optimizer's {name} of weight {index} is {shapes}")


def course(settings: Settings) -> dict[str, Any]:
    """All settings that affect the result of an epoch, without those that only decide when training ends."""
    values = settings.flat()
    del values["early_stopping"]
    if settings.schedule == "constant" and settings.warmup == 0:
        del values["epochs"]  # with a schedule or warm-up, the learning rate depends on it
    return values


def check_settings(state: Mapping[str, Any], settings: Settings) -> None:
    """Raise a ResultError with the first difference if these settings cannot continue the training of a state."""
    if state.get("trial_id") == settings.trial_id:
        return
    try:
        there = parse_settings(state["settings"])
    except (KeyError, TypeError, AttributeError, ConfigError):  # version 0.1.0 kept no settings
        known = state.get("trial_id")
        raise ResultError(f"it is of trial {known}, not of {settings.trial_id}" if known else "not ours") from None
    theirs, mine = course(there), course(settings)
    for key in sorted({**mine, **theirs}, key="epochs".__eq__):
        if theirs.get(key) != mine.get(key):
            why = ", and the learning rate depends on it" if key == "epochs" else ""
            raise ResultError(f"{key} is {theirs.get(key)} there and {mine.get(key)} here{why}")


def state_to_bytes(state: dict[str, Any]) -> bytes:
    """Serialise tensors and plain values into the content of a file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def state_from_bytes(content: bytes, place: str) -> dict[str, Any]:
    """Load the output of `state_to_bytes` onto the CPU; a ResultError names `place` if it is damaged or not ours."""
    try:
        # torch.load does not compare the checksums of the archive, so a flipped bit in a weight would pass.
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            # Our files are not compressed; one that unpacks to more than its own size could fill the memory.
            parts = archive.infolist()
            is_packed = any(p.compress_type for p in parts) or sum(p.file_size for p in parts) > len(content)
            is_intact = not is_packed and archive.testzip() is None
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True) if is_intact else None
    except Exception as error:  # not told, as PyTorch's messages suggest running any code in the file
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise  # not a fault of the file
        state = None
    if not isinstance(state, dict):
        raise ResultError(f"{place}: damaged, or not a checkpoint of ours; delete it, or choose another name")
    return state


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values to a file, atomically."""
    replace_file(path, state_to_bytes(state))


def load_state(path: Path) -> dict[str, Any]:
    """Load a file written by `save_state` onto the CPU; raise a ResultError if it is damaged or not ours."""
    return state_from_bytes(read_file(path, MOST_BYTES), str(path))
