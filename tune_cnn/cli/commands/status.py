"""Show how far a sweep has come, even while it runs."""

from argparse import Namespace

from tune_cnn.cli.options import add_sweep, open_sweep
from tune_cnn.texts import tell
from tune_cnn.waiting import waiting

EXAMPLE = "tune-cnn status ray_results/exp1_1"
add_arguments = add_sweep


def run(options: Namespace) -> int:
    folder = open_sweep(options.sweep, options)
    from tune_cnn.sweep.lock import running
    from tune_cnn.sweep.outcome import outcome_table, outcomes, summary

    with waiting("reading the trials"):
        experiments = folder.experiments()
        found = outcomes(folder, experiments)
    tell(outcome_table(folder, experiments, found))
    tell(summary(found.values(), running(folder.folder)))
    return 0
