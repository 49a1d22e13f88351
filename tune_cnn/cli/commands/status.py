"""`tune-cnn status`: show how far a sweep is."""

from argparse import ArgumentParser, Namespace

from tune_cnn.cli.options import add_sweep
from tune_cnn.texts import tell
from tune_cnn.waiting import waiting

PURPOSE = "show how far a sweep is, also while it runs"
EXAMPLE = "tune-cnn status ray_results/exp1_1"


def add_arguments(parser: ArgumentParser) -> None:
    add_sweep(parser)


def run(options: Namespace) -> int:
    """Show the table of its trials, who is running it, and until when."""
    with waiting("loading PyTorch"):
        from tune_cnn.sweep.lock import running
        from tune_cnn.sweep.outcome import outcome_table, outcomes, summary
        from tune_cnn.sweep.sweep_folder import SweepFolder

    folder = SweepFolder.find(options.sweep, options.storage)
    experiments = folder.experiments()
    found = outcomes(folder, experiments)
    tell(outcome_table(folder, experiments, found))
    tell(summary(found.values(), running(folder.folder)))
    return 0
