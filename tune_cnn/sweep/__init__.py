"""Many trainings: from config files to trials, over the cores and GPUs of one machine or of a cluster.

The only folder that imports ray, and it does so when something runs, not when it is imported.
"""

import importlib
import sys
from types import ModuleType
from typing import Any


class _Sweep(ModuleType):
    """`tune_cnn.sweep(...)` calls `api.sweep`: Python gives this folder the same name."""

    def __call__(self, *files: Any, **options: Any) -> Any:
        return importlib.import_module("tune_cnn.api").sweep(*files, **options)


sys.modules[__name__].__class__ = _Sweep
