"""The format of checkpoint files: tensors and plain values, whole or not at all; for sweeps, see `trial_folder`."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from tune_cnn.errors import ResultError
from tune_cnn.files import read_file, replace_file

MOST_BYTES = 4 * 2**30  # of a checkpoint whose network is not known
_REMEDY = "delete it, or choose another name"


def state_to_bytes(state: dict[str, Any]) -> bytes:
    """Tensors and plain values as the content of a file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def state_from_bytes(content: bytes, place: str) -> dict[str, Any]:
    """What `state_to_bytes` was given, on the CPU; a ResultError names `place` if it is damaged, or not ours."""
    try:
        # torch.load does not compare the checksums of the archive, so a flipped bit in a weight would pass.
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            # What we write is not compressed; what unpacks to more than its own size could fill the memory.
            parts = archive.infolist()
            if any(part.compress_type for part in parts) or sum(part.file_size for part in parts) > len(content):
                raise ResultError(f"{place}: compressed, so not ours; {_REMEDY}")
            if damaged := archive.testzip():
                raise ResultError(f"{place}: damaged at {damaged}; delete it")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except ResultError:
        raise
    except pickle.UnpicklingError as error:  # its own message tells how to run the code that may be in there
        raise ResultError(f"{place}: holds more than tensors and plain values, so not ours; {_REMEDY}") from error
    except Exception as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise  # it says nothing of the file
        raise ResultError(f"{place}: not a checkpoint of ours, or damaged ({error}); {_REMEDY}") from error
    if not isinstance(state, dict):
        raise ResultError(f"{place}: not a checkpoint of ours; {_REMEDY}")
    return state


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values as one file, whole or not at all."""
    replace_file(path, state_to_bytes(state))


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, on the CPU; a ResultError if the file is damaged, or not one of ours."""
    return state_from_bytes(read_file(path, MOST_BYTES), str(path))
