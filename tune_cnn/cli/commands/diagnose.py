"""Predict before any training which networks will learn, why others will not, and what helps."""

import sys
from argparse import Namespace

from tune_cnn.cli.options import add_files
from tune_cnn.texts import aligned, tell

EXAMPLE = "tune-cnn diagnose exp1_1 --only 'exp1_1_K32*'"
add_arguments = add_files


def run(options: Namespace) -> int:
    from tune_cnn.sweep.config.load import distinct_trials, load_experiments

    experiments = load_experiments(options.files, overrides=options.overrides, only=options.only, data=options.data)
    from tune_cnn import data  # only now, so that faults in config files are reported at once
    from tune_cnn.diagnosis import diagnose_all

    trials = {trial_id: same[0] for trial_id, same in distinct_trials(experiments).items()}
    for source in {e.settings.data: None for e in experiments}:
        tell(data.describe(source), file=sys.stderr)
    found, left_out = diagnose_all(e.settings for e in trials.values())
    rows = [["experiment", "verdict", "score spread", "least gradient/weight", "in conv", "most dead units"]]
    for trial_id, diagnosis in found.items():
        ratios, dead = diagnosis.gradient_to_weight, diagnosis.dead_units
        row = [trials[trial_id].name, diagnosis.verdict, f"{diagnosis.score_spread:.1e}", f"{min(ratios):.1e}"]
        row += [str(ratios.index(min(ratios)) + 1), f"{max(dead):.0%}"] if dead else ["-", "-"]
        rows.append(row)
    if found:
        tell(aligned(rows))
    for line in left_out:
        tell(line, file=sys.stderr)
    for trial_id, diagnosis in found.items():
        if diagnosis.verdict != "trains":
            tell(f"\n{trials[trial_id].name}: {diagnosis.verdict}. {diagnosis.reason}")
            tell(f"  remedies: {', or '.join(diagnosis.remedies)}")
    return 0
