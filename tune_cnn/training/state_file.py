"""Checkpoint files: tensors and plain values, written atomically. For those of sweeps, see `trial_folder`."""

import io
import zipfile
from pathlib import Path
from typing import Any

import torch

from tune_cnn.errors import ResultError
from tune_cnn.files import read_file, replace_file

MOST_BYTES = 4 * 2**30  # limit for a checkpoint whose network is unknown


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
