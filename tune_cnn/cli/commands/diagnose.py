"""Predict before any training which networks will learn, why others will not, and what helps."""

import sys
from argparse import Namespace

from tune_cnn.cli.options import add_files
from tune_cnn.texts import aligned, setting_text, tell

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
    has_grid = not all(e.settings.model for e in trials.values())
    rows = []
    for trial_id, diagnosis in found.items():
        settings, ratios = trials[trial_id].settings, diagnosis.gradient_to_weight
        k, depth = setting_text(settings.filters_per_layer), str(settings.layers_per_block)
        rows.append(
            {
                "experiment": trials[trial_id].name,
                **({"K": k, "L": depth} if has_grid else {}),
                "verdict": diagnosis.verdict,
                "score spread": f"{diagnosis.score_spread:.1e}",
                "least gradient/weight": f"{min(ratios):.1e}",
                "in conv": str(ratios.index(min(ratios)) + 1) if diagnosis.dead_units else "-",
                "most dead units": f"{max(diagnosis.dead_units):.0%}" if diagnosis.dead_units else "-",
            }
        )
    if rows:
        tell(aligned([list(rows[0]), *(list(row.values()) for row in rows)]))
    for line in left_out:
        tell(line, file=sys.stderr)
    for trial_id, diagnosis in found.items():
        if diagnosis.verdict != "trains":
            tell(f"\n{trials[trial_id].name}: {diagnosis.verdict}. {diagnosis.reason}")
            tell(f"  remedies: {', or '.join(diagnosis.remedies)}")
    return 0
