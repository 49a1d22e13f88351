"""Remarks before a sweep starts: what will be slow, take long or be replaced, and what was trained elsewhere."""

import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tune_cnn import data
from tune_cnn.errors import ResultError
from tune_cnn.files import parse_json, read_file
from tune_cnn.machine import slow_here, slow_remark
from tune_cnn.models import cost
from tune_cnn.sweep.cluster import ClusterOptions, own_node
from tune_cnn.sweep.estimate import estimate, trial_duration
from tune_cnn.sweep.pace import Pace
from tune_cnn.sweep.plan import PlannedExperiment, found_elsewhere
from tune_cnn.sweep.trial_folder import TrialFolder
from tune_cnn.texts import counted, duration, enumerated, tell

_LONG_S = 3600.0
# Approximate speed of a core with AVX-512; others are slower.
_MULTIPLY_ADDS_PER_S = 1e11
_ESTIMATE_S = 15.0  # time that a dry run spends on timing, once its processes have started


def describe(plan: Sequence[PlannedExperiment], cluster: ClusterOptions) -> None:
    """Print which images the experiments use, what is slow on this machine, and whether nothing is left to finish."""
    for source in {line.settings.data: None for line in plan}:
        tell(data.describe(source), file=sys.stderr)
    for remark in _of_this_machine(plan, cluster):
        tell(remark, file=sys.stderr)
    if {line.state for line in plan if line.is_to_finish} == {"done"}:
        tell("finish: what it names has run to its end already", file=sys.stderr)


def before_start(
    plan: Sequence[PlannedExperiment], cluster: ClusterOptions, out_dir: Path, others: Mapping[str, TrialFolder]
) -> list[str]:
    """Remarks on what starting a sweep means for the user; the existing results of `others` are exported too."""
    written = {name: trial.trial_id for name, trial in others.items() if trial.folder.names()}
    written |= {line.name: line.settings.trial_id for line in plan if not line.is_open}
    return [*found_elsewhere(plan), *_long(plan, cluster), *replaced(written, out_dir)]


def _of_this_machine(plan: Sequence[PlannedExperiment], cluster: ClusterOptions) -> Iterator[str]:
    """Remarks on cores and GPUs that Ray hands out but this machine lacks, and on precisions slow on its cores."""
    there, asked = own_node(ClusterOptions(cluster.address)), own_node(cluster)
    if there is None or asked is None:
        return
    if asked.cpus > there.cpus or asked.gpus > there.gpus:
        has = f"{counted(int(there.cpus), 'core')} and {counted(int(there.gpus), 'GPU')}"
        yield f"this machine has {has}: trials share the cores, and compute on them where they get no GPU"
    on_cores = [e for e in plan if e.state != "done" and (not asked.gpus or e.resources.gpus_per_trial == 0)]
    yield from map(slow_remark, filter(slow_here, dict.fromkeys(e.settings.precision for e in on_cores)))


def _long(plan: Sequence[PlannedExperiment], cluster: ClusterOptions) -> list[str]:
    """A remark if a sweep takes hours by its multiply-adds alone; to measure, as a dry run does, takes longer."""
    node = own_node(cluster)
    if node is None or node.gpus:
        return []
    seconds = 0.0
    for line in plan:
        if line.shares_with is None and line.epochs_left:
            image_s = cost(line.settings).multiply_adds / _MULTIPLY_ADDS_PER_S
            # The backward pass takes twice as long as the forward pass.
            pace = Pace(3 * line.settings.bs_train * image_s, image_s)
            seconds += trial_duration(line.settings, line.epochs_left, pace) / node.cpus
    if seconds < _LONG_S:
        return []
    return [
        f"time: some {duration(seconds)} on {counted(int(node.cpus), 'core')}, if no trial stops early; --dry-run "
        "gives a closer estimate, and fewer epochs or experiments take less"
    ]


def replaced(trial_ids: Mapping[str, str], out_dir: Path) -> list[str]:
    """A remark on result files, of other settings or other programs, that will be overwritten.

    `trial_ids` has the trial id of each experiment whose file will be written, by name.
    """
    changed = []
    for name, trial_id in trial_ids.items():
        with suppress(OSError, ValueError, ResultError):
            content = parse_json(read_file(out_dir / f"{name}.json"))
            facts = content.get("trial") if isinstance(content, Mapping) else None
            if not isinstance(facts, Mapping) or facts.get("id") != trial_id:
                changed.append(f"{name}.json")
    if not changed:
        return []
    fault = f"{enumerated(changed, most=3)} will be replaced, with results of other settings"
    return [f"{out_dir}: {fault}; to keep them, give another --out, and a sweep another --name"]


def times(plan: Sequence[PlannedExperiment], cluster: ClusterOptions) -> tuple[dict[str, float], str]:
    """Estimated seconds per trial, by trial id, and a line about the whole sweep."""
    node = own_node(cluster)
    if node is None:
        return {}, "time: not estimated, since the steps of a cluster cannot be timed from here"
    try:
        return estimate(plan, node, within_s=_ESTIMATE_S)
    except Exception as error:  # even one in the code of a custom network
        why = " ".join(str(error).split())
    gc.collect()  # such an error keeps what the timing processes shared: Python would report it as leaked
    return {}, f"time: not estimated ({why})"
