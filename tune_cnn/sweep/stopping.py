"""The Tune stopper that reads the plateau rule."""

from typing import Any

from ray.tune import Stopper

from tune_cnn.train_results import stop_reason


class PlateauStopper(Stopper):  # type: ignore[misc]
    """Stops a trial when the rule of `train_results.stop_reason` says so, or when it has failed for good.

    It has no state: each trial counts for itself, in its own checkpoint, and reports the counts and its settings. So
    a retry, a resume or a second sweep cannot make it drift.
    """

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        if "failure" in result:
            return True
        return (
            stop_reason(
                num_epochs=result["epoch"],
                epochs_without_improvement=result["epochs_without_improvement"],
                diverged=result["diverged"],
                epochs=result["epochs"],
                early_stopping=result["early_stopping"],
            )
            is not None
        )

    def stop_all(self) -> bool:
        return False
