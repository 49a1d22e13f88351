"""`tune-cnn status`: show how far a sweep is."""

import argparse

from tune_cnn.sweep.lock import running
from tune_cnn.sweep.outcome import outcome_table
from tune_cnn.sweep.storage import SweepFolder
from tune_cnn.texts import tell


def run(options: argparse.Namespace) -> int:
    """Show the table of its trials, and who is running it."""
    folder = SweepFolder.find(options.sweep, options.storage)
    experiments = folder.experiments()
    tell(outcome_table(folder, experiments))
    trials = {settings.trial_id: settings for settings in experiments.values()}
    finished = sum(folder.trial(settings).is_finished() for settings in trials.values())
    who = running(folder.folder)
    tell(f"{finished}/{len(trials)} trials finished; {f'{who} is running it' if who else 'nobody is running it'}")
    return 0
