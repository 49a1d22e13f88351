"""What is said before a sweep starts: what will be slow, long, replaced, or was trained elsewhere."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from tune_cnn import data
from tune_cnn.errors import ResultError
from tune_cnn.files import parse_json, read_file
from tune_cnn.machine import SLOWDOWN, load, slow_here, slow_remark
from tune_cnn.models import cost
from tune_cnn.sweep.cluster import ClusterOptions, own_node
from tune_cnn.sweep.estimate import estimate, trial_duration
from tune_cnn.sweep.pace import Pace
from tune_cnn.sweep.plan import PlannedExperiment, found_elsewhere
from tune_cnn.sweep.trial_folder import TrialFolder
from tune_cnn.texts import counted, duration, enumerated, tell

_LONG_S = 3600.0
# Of a core, about; with AVX-512, twice as many as with AVX2.
_MULTIPLY_ADDS_PER_S = 1e11 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 5e10
_BATCH_S = 1e-3  # that a batch takes of however small a network
_ESTIMATE_S = 15.0  # that a dry run takes for its times, after a few for the start of processes


def describe(plan: Sequence[PlannedExperiment], cluster: ClusterOptions) -> None:
    """Say which images the experiments take, what is slow on the machines, and that nothing is left to finish."""
    for source in {line.settings.data: None for line in plan}:
        tell(data.describe(source), file=sys.stderr)
    for remark in _of_this_machine(plan, cluster):
        tell(remark, file=sys.stderr)
    if {line.state for line in plan if line.is_to_finish} == {"done"}:
        tell("finish: what it names has run to its end already", file=sys.stderr)


def before_start(
    plan: Sequence[PlannedExperiment],
    cluster: ClusterOptions,
    out_dir: Path,
    others: Mapping[str, TrialFolder] = {},
) -> list[str]:
    """Remarks on what the start of a sweep means for the user; of `others`, what is there is exported too."""
    written = {name: trial.trial_id for name, trial in others.items() if trial.folder.names()}
    written |= {line.name: line.settings.trial_id for line in plan if not line.is_open}
    return [*found_elsewhere(plan), *_long(plan, cluster), *replaced(written, out_dir)]


def _of_this_machine(plan: Sequence[PlannedExperiment], cluster: ClusterOptions) -> Iterator[str]:
    """Remarks on cores and GPUs that this machine lacks, though Ray hands them out, and on what its cores do slowly."""
    there, asked = own_node(ClusterOptions(cluster.address)), own_node(cluster)
    if there is None or asked is None:
        return
    if asked.cpus > there.cpus:
        yield f"cpus {cluster.cpus}: this machine has {counted(int(there.cpus), 'core')}, which trials share"
    if asked.gpus > there.gpus:
        has = counted(int(there.gpus), "GPU")
        yield f"gpus {cluster.gpus}: this machine has {has}; trials compute on its CPU where they get none"
    on_cores = [e for e in plan if e.state != "done" and (not asked.gpus or e.resources.gpus_per_trial == 0)]
    yield from map(slow_remark, filter(slow_here, dict.fromkeys(e.settings.precision for e in on_cores)))


def _long(plan: Sequence[PlannedExperiment], cluster: ClusterOptions) -> list[str]:
    """A remark on a sweep that takes hours by its multiply-adds alone; a dry run measures, which takes longer."""
    node = own_node(cluster)
    if node is None or node.gpus:
        return []
    seconds = 0.0
    for line in plan:
        settings = line.settings
        if line.shares_with is None and line.epochs_left:
            slowdown = SLOWDOWN if slow_here(settings.precision) else 1
            image_s = cost(settings).multiply_adds / _MULTIPLY_ADDS_PER_S * slowdown
            # Backward takes twice as long as forward.
            pace = Pace(3 * settings.bs_train * image_s + _BATCH_S, image_s)
            seconds += trial_duration(settings, line.epochs_left, pace) / node.cpus
    if seconds < _LONG_S:
        return []
    return [
        f"time: some {duration(seconds)} on {counted(int(node.cpus), 'core')}, if no trial stops early; --dry-run "
        "tells more exactly, fewer epochs or a part of the experiments make it less"
    ]


def replaced(trial_ids: Mapping[str, str], out_dir: Path) -> list[str]:
    """A remark on result files of other settings, or of other programs, that will be written over.

    `trial_ids` are those of the experiments whose files will be written, by name.
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
    """The seconds that each trial takes, by trial id, and a line about all of them."""
    node = own_node(cluster)
    if node is None:
        return {}, "time: not estimated, since the steps of a cluster cannot be timed from here"
    busy = load()
    try:
        trial_s, line = estimate(plan, node, within_s=_ESTIMATE_S)
    except Exception as error:  # also one in the code of a custom network
        error.__traceback__ = None  # which keeps what the timing processes share: Python would call it leaked
        return {}, f"time: not estimated ({' '.join(str(error).split())})"
    reservation = f"; timed while other work kept the machine busy ({busy})" if busy and trial_s else ""
    return trial_s, line + reservation
