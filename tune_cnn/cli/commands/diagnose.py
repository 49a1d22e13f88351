"""`tune-cnn diagnose`: which networks will learn, why not, and what helps, before any training."""

import argparse
import sys
from collections.abc import Mapping, Sequence

from tune_cnn import data
from tune_cnn.diagnosis import Diagnosis, diagnose_all
from tune_cnn.settings import dashed
from tune_cnn.sweep.search_space import Experiment, distinct_trials
from tune_cnn.texts import aligned, tell


def run(options: argparse.Namespace) -> int:
    """Print a line for each trial, and below it the reasons and remedies of those that may not learn."""
    trials = distinct_trials(options.experiments)
    for source in {e.settings.data: None for e in options.experiments}:
        tell(data.describe(source), file=sys.stderr)
    found = diagnose_all(same[0].settings for same in trials.values()).by_trial
    tell(_table(trials, found))
    for trial_id, diagnosis in found.items():
        if diagnosis.verdict != "trains":
            tell(f"\n{trials[trial_id][0].name}: {diagnosis.verdict}. {diagnosis.reason}")
            tell(f"  remedies: {', or '.join(diagnosis.remedies)}")
    return 0


def _table(trials: Mapping[str, Sequence[Experiment]], found: Mapping[str, Diagnosis]) -> str:
    rows = [["experiment", "K", "L", "verdict", "score spread", "least gradient/weight", "in conv", "most dead units"]]
    for trial_id, diagnosis in found.items():
        first, *_ = trials[trial_id]
        ratios = diagnosis.gradient_to_weight
        rows.append(
            [
                first.name,
                dashed(first.settings.filters_per_layer),
                str(first.settings.layers_per_block),
                diagnosis.verdict,
                f"{diagnosis.score_spread:.1e}",
                f"{min(ratios):.1e}",
                str(ratios.index(min(ratios)) + 1),
                f"{max(diagnosis.dead_units):.0%}",
            ]
        )
    return aligned(rows)
