"""The Tune stopper: ends a trial that says that it is over."""

from typing import Any

from ray.tune import Stopper


class TrialStopper(Stopper):  # type: ignore[misc]
    """Stops a trial that reports a `stop_reason`, or that it has failed for good.

    It has no state: each trial counts its epochs without improvement in its own checkpoint and applies the rule itself
    (`train_results.stop_reason`), so a retry, a resume or a second sweep cannot make it drift.
    """

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return "failure" in result or result["stop_reason"] is not None

    def stop_all(self) -> bool:
        return False
