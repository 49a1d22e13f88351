"""What a sweep would run: its experiments, their trials, cost and state."""

import errno
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from tune_cnn.errors import StorageError
from tune_cnn.models import cost
from tune_cnn.settings import Settings, telling_keys
from tune_cnn.sweep.config.load import Experiment
from tune_cnn.sweep.earlier import Earlier, find_earlier
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.sweep.trial_folder import KEPT_CHECKPOINTS
from tune_cnn.texts import aligned, counted, duration, setting_text, size, symbol


@dataclass(frozen=True)
class PlannedExperiment(Experiment):
    """One line of the plan: an experiment, and the state of its trial."""

    shares_with: str | None = None  # the first experiment with the same trial; None if this is the first
    start: Earlier | None = None  # the training that its trial starts from; None: it is new

    @property
    def state(self) -> str:
        """`done`, `new`, or `continue` from a checkpoint."""
        return "new" if self.start is None else "done" if self.start.is_finished else "continue"

    @property
    def epochs_done(self) -> int:
        """Epochs that its trial has completed."""
        return 0 if self.start is None else self.start.epoch

    @property
    def epochs_left(self) -> int:
        """Epochs that its trial still has to train, if it does not stop early."""
        return 0 if self.state == "done" else self.settings.epochs - self.epochs_done

    @property
    def elsewhere(self) -> Earlier | None:
        """The other training that its trial is copied from, if this is the first experiment with that trial."""
        return self.start if self.start is not None and not self.start.is_own and self.shares_with is None else None


def make_plan(experiments: Sequence[Experiment], folder: SweepFolder) -> list[PlannedExperiment]:
    """Find out which experiments are done, to be continued or new, from the files of this and other sweeps."""
    known = [experiment for experiment in experiments if not experiment.is_open]
    earlier, first = find_earlier(known, folder), dict[str, str]()
    plan = []
    for experiment in experiments:
        line, trial_id = PlannedExperiment(**vars(experiment)), experiment.settings.trial_id
        if not line.is_open:
            line = replace(line, shares_with=first.get(trial_id), start=earlier.get(trial_id))
            first.setdefault(trial_id, line.name)
        plan.append(line)
    return plan


def found_elsewhere(plan: Sequence[PlannedExperiment]) -> list[str]:
    """Lines that say how many trials are taken from which sweep, and what is left to do for them."""
    counts: Counter[str] = Counter()
    for earlier in filter(None, (line.elsewhere for line in plan)):
        left = "finished" if earlier.is_finished else "to be continued"
        counts[f"taken from sweep {earlier.sweep}, {left}"] += 1
    return [f"{counted(count, 'trial')} {how}" for how, count in counts.items()]


def expected_work(settings: Settings) -> int:
    """Estimated multiply-adds of a training, to start the longest trials first: none should run alone at the end."""
    return cost(settings).multiply_adds * settings.epochs * min(settings.batches * settings.bs_train, 50_000)


def setting_rows(trials: Collection[Settings]) -> list[list[str]]:
    """K and L, unless all networks are custom, and the other settings that differ: titles, then a row per trial."""
    flat = [settings.flat() for settings in trials]
    grid = [] if all(settings.model for settings in trials) else ["filters_per_layer", "layers_per_block"]
    keys = dict.fromkeys([*grid, *telling_keys(flat)])
    titles = ["most epochs" if key == "epochs" else symbol(key) for key in keys]
    return [titles, *([setting_text(values.get(key)) for key in keys] for values in flat)]


def plan_table(
    plan: Sequence[PlannedExperiment], verdicts: Mapping[str, str] = {}, times_s: Mapping[str, float] = {}
) -> str:
    """The plan for a terminal: one line per experiment, then the numbers of experiments and trials.

    `verdicts` say whether a trial will learn, and `times_s` how long it takes at most, by trial id.
    """
    known = [line for line in plan if not line.is_open]
    titles, *settings = setting_rows([line.settings for line in known])
    costs = ["parameters", "mult-adds", "verdict", "time"]
    rows = [["experiment", "trial", *titles, *costs, "state", "shares its trial with"]]
    for line, cells in zip(known, settings, strict=True):
        trial_id, network = line.settings.trial_id, cost(line.settings)
        cells += [f"{network.parameters:,}", f"{network.multiply_adds / 1e6:,.1f} M", verdicts.get(trial_id, "-")]
        cells += [duration(times_s[trial_id]) if trial_id in times_s else "-", line.state, line.shares_with or ""]
        rows.append([line.name, trial_id, *cells])
    lines = [aligned(rows)] if known else []
    if len(known) < len(plan):
        count = len(plan) - len(known)
        lines.append(f"settings that Optuna will suggest as the sweep runs, not known yet: {count}")
    return "\n".join([*lines, plan_summary(plan), *found_elsewhere(plan)])


def plan_summary(plan: Sequence[PlannedExperiment]) -> str:
    """One line: `20 experiments, 14 trials: 3 done, 1 to continue, 10 new`."""
    trials = [line for line in plan if line.shares_with is None]
    count = Counter(line.state for line in trials)
    states = f"{count['done']} done, {count['continue']} to continue, {count['new']} new"
    return f"{counted(len(plan), 'experiment')}, {counted(len(trials), 'trial')}: {states}"


def disk_use(plan: Sequence[PlannedExperiment], at_once: int) -> tuple[int, int]:
    """Bytes that unfinished trials need, with `at_once` of them running at once: at the peak, and in the end."""
    written = [line for line in plan if line.shares_with is None and (line.state != "done" or line.elsewhere)]
    sizes = sorted((_checkpoint_bytes(line.settings) for line in written), reverse=True)
    finished = sum(sizes)  # each trial keeps its last state, since more epochs could follow
    # One more than are kept: a new checkpoint is written before the oldest is deleted.
    return finished + (KEPT_CHECKPOINTS + 1) * sum(sizes[:at_once]), finished


def _checkpoint_bytes(settings: Settings) -> int:
    """Size of a checkpoint: weights, Adam's two moments, best weights and possibly EMA, of 4 bytes a parameter."""
    has_ema = settings.average > 0 or settings.ycn or settings.model is not None
    return 4 * (5 if has_ema else 4) * cost(settings).parameters


def check_disk(folder: SweepFolder, needed: int) -> None:
    """Make sure that the disk of a sweep has as many bytes free as are `needed`.

    Raises:
        StorageError: There is not enough room (the message has the numbers), or a file is in the way of its folder.
    """
    if not folder.folder.is_local:
        return
    place = next(path for path in (folder.folder.local_path, *folder.folder.local_path.parents) if path.exists())
    if not place.is_dir():
        raise folder.folder.failed(NotADirectoryError(errno.ENOTDIR, ""), "made")
    free = shutil.disk_usage(place).free
    if needed > free:
        raise StorageError(
            f"{folder}: the sweep needs up to {size(needed)}, but only {size(free)} are free; "
            f"make room, give a storage elsewhere, or run a part of it"
        )
