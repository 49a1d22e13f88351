"""Many trainings: from config files to trials, over the cores and GPUs of one machine or of a cluster.

The only folder that imports ray, and it does so when something runs, not when it is imported.
"""

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any


class _Sweep(ModuleType):
    # `tune_cnn.sweep(...)` calls `api.sweep`, as Python gives this folder the same name: help, too, shows the function.

    def __call__(self, *files: Any, **options: Any) -> Any:
        try:
            self.__signature__.bind(*files, **options)
        except TypeError as error:  # of an unknown argument: all others may be left out
            hint = 'settings are changed as in settings={"epochs": 3}; help(tune_cnn.sweep) has all arguments'
            raise TypeError(f"sweep() {error}; {hint}") from None
        return self._function(*files, **options)

    @property
    def _function(self) -> Any:
        return importlib.import_module("tune_cnn.api").sweep

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        return f"{inspect.getdoc(self._function)}\n\nsweep{self.__signature__}"


sys.modules[__name__].__class__ = _Sweep
