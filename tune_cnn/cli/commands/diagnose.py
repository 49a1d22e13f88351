"""`tune-cnn diagnose`: which networks will learn, why not, and what helps, before any training."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tune_cnn.cli.options import add_files, read_experiments
from tune_cnn.texts import aligned, setting_text, tell
from tune_cnn.waiting import waiting

if TYPE_CHECKING:
    from tune_cnn.diagnosis import Diagnosis
    from tune_cnn.sweep.config.search_space import Experiment

PURPOSE = "tell before any training which networks will learn, why not, and what helps"
EXAMPLE = "tune-cnn diagnose configs/exp1_1.yaml --only 'exp1_1_K32*'"


def add_arguments(parser: ArgumentParser) -> None:
    add_files(parser)


def run(options: Namespace) -> int:
    """Print a line for each trial, and below it the reasons and remedies of those that may not learn."""
    experiments = read_experiments(options)
    with waiting("loading PyTorch"):  # only now, so that faults of config files are told at once
        from tune_cnn import data
        from tune_cnn.diagnosis import diagnose_all
        from tune_cnn.sweep.config.search_space import distinct_trials

    trials = distinct_trials(experiments)
    for source in {e.settings.data: None for e in experiments}:
        tell(data.describe(source), file=sys.stderr)
    found = diagnose_all(same[0].settings for same in trials.values()).by_trial
    tell(_table(trials, found))
    for trial_id, diagnosis in found.items():
        if diagnosis.verdict != "trains":
            tell(f"\n{trials[trial_id][0].name}: {diagnosis.verdict}. {diagnosis.reason}")
            tell(f"  remedies: {', or '.join(diagnosis.remedies)}")
    return 0


def _table(trials: "Mapping[str, Sequence[Experiment]]", found: "Mapping[str, Diagnosis]") -> str:
    is_own = all(trials[trial_id][0].settings.model for trial_id in found)
    rows = [
        [
            "experiment",
            *([] if is_own else ["K", "L"]),
            "verdict",
            "score spread",
            "least gradient/weight",
            "in conv",
            "most dead units",
        ]
    ]
    for trial_id, diagnosis in found.items():
        settings = trials[trial_id][0].settings
        ratios = diagnosis.gradient_to_weight
        rows.append(
            [
                trials[trial_id][0].name,
                *([] if is_own else [setting_text(settings.filters_per_layer), str(settings.layers_per_block)]),
                diagnosis.verdict,
                f"{diagnosis.score_spread:.1e}",
                f"{min(ratios):.1e}",
                str(ratios.index(min(ratios)) + 1),
                f"{max(diagnosis.dead_units, default=0):.0%}",
            ]
        )
    return aligned(rows)
