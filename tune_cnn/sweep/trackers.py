"""Keeps failing user callbacks from ending a sweep; sets up Ray's callbacks for MLflow and Weights & Biases."""

import importlib
import os
import sys
from typing import Any

from ray.tune import Callback

from tune_cnn.errors import ConfigError
from tune_cnn.texts import named, tell


def tracker(name: str, sweep: str) -> Callback:
    """A callback that reports each trial as a run of an MLflow experiment, or a W&B group, named after the sweep.

    The tracker's own environment variables, such as `MLFLOW_TRACKING_URI`, say where the runs go. If it is not
    installed, or cannot be reached, that is a ConfigError.
    """
    place = f"--track {name}"
    try:
        importlib.import_module(name)
        if name == "mlflow":
            from ray.air.integrations.mlflow import MLflowLoggerCallback

            inner = MLflowLoggerCallback(experiment_name=sweep)
        else:
            from ray.air.integrations.wandb import WandbLoggerCallback

            project = os.environ.get("WANDB_PROJECT", "tune_cnn")
            # Ray's default is Tune's folder of the trial, which is deleted at the end.
            folder = os.environ.get("WANDB_DIR", os.getcwd())
            inner = WandbLoggerCallback(project=project, group=sweep, log_config=True, dir=folder)
        inner.setup()
        inner.setup = lambda **_: None  # Tune would call it again
    except ImportError:
        raise ConfigError(place, [f"not installed; pip install 'tune_cnn[{name}]'"]) from None
    except Exception as error:
        remedy = "set MLFLOW_TRACKING_URI" if name == "mlflow" else "run wandb login, or set WANDB_MODE=offline"
        raise ConfigError(place, [f"cannot be used ({' '.join(str(error).split())}); {remedy}"]) from error
    return inner


class Guarded(Callback):  # type: ignore[misc]
    """Wraps a callback to report only its first error; Tune would end the sweep, or train the trial again."""

    def __init__(self, inner: Callback) -> None:
        self._inner, self._has_warned = inner, False

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks into its own state, which we never restore

    def __getattribute__(self, name: str) -> Any:
        if name != "setup" and not name.startswith("on_"):
            return super().__getattribute__(name)

        def guarded(*args: Any, **kwargs: Any) -> None:
            # To Tune, a trial that reports its failure has completed.
            has_failed = name == "on_trial_complete" and "failure" in (kwargs["trial"].last_result or {})
            try:
                getattr(self._inner, "on_trial_error" if has_failed else name)(*args, **kwargs)
            except Exception as error:
                if not self._has_warned:
                    who = type(self._inner).__name__
                    tell(f"warning: {who} has failed, and the sweep goes on ({named(error)})", file=sys.stderr)
                self._has_warned = True

        return guarded
