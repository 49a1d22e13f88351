"""`tune-cnn sweep`: train the experiments of config files, several at once."""

import sys
from argparse import ArgumentParser, Namespace

from tune_cnn.cli.options import (
    add_files,
    add_out,
    add_storage,
    check_writable,
    not_negative,
    positive,
    read_experiments,
    seconds,
)
from tune_cnn.errors import DataError, ResourceError, StorageError, TuneCnnError
from tune_cnn.texts import counted, size, tell
from tune_cnn.waiting import waiting

PURPOSE = "train the experiments of config files, several at once; repeat it to resume"
EXAMPLE = "tune-cnn sweep configs/exp1_1.yaml configs/exp1_2.yaml --only 'exp1_1_K32*'"
_DIAGNOSES_S = 10.0  # that a dry run takes for its verdicts


def add_arguments(parser: ArgumentParser) -> None:
    add_files(parser)
    parser.add_argument("--name", help="the sweep's name (default: made from the files' names)")
    add_out(parser, "result files")
    add_storage(parser)
    parser.add_argument("--dry-run", action="store_true", help="show what would run, and stop")
    parser.add_argument(
        "--finish",
        action="append",
        default=[],
        metavar="PATTERN",
        help="train experiments of these names to the end, also those that a scheduler stopped",
    )
    parser.add_argument("--time-budget", type=seconds, metavar="TIME", help="stop after 90s, 30m, 2h, ...")
    parser.add_argument("--max-concurrent", type=positive, metavar="N", help="run so many trials at once at most")
    parser.add_argument(
        "--fresh", action="store_true", help="train everything again, in a new folder; the old one is kept"
    )
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="join a running Ray cluster (auto: the one on this machine)"
    )
    parser.add_argument("--cpus", type=positive, metavar="N", help="cores to use (default: all)")
    parser.add_argument("--gpus", type=not_negative, metavar="N", help="GPUs to use (default: all)")


def run(options: Namespace) -> int:
    """Train what is missing, then export, draw and report what is finished."""
    experiments = read_experiments(options)
    with waiting("loading PyTorch"):  # only now, so that faults of config files are told at once
        from tune_cnn import data
        from tune_cnn.cli.results import show_results
        from tune_cnn.diagnosis import diagnose_all
        from tune_cnn.machine import cores
        from tune_cnn.sweep.cluster import ClusterOptions
        from tune_cnn.sweep.lock import locked
        from tune_cnn.sweep.plan import check_disk, disk_use, make_plan, plan_summary, plan_table
        from tune_cnn.sweep.remarks import before_start, slow_precisions, times
        from tune_cnn.sweep.runner import run_sweep
        from tune_cnn.sweep.sweep_folder import SweepFolder

    folder = SweepFolder(options.storage, options.name)
    if options.fresh:
        folder.start_over()
    plan = make_plan(experiments, folder)
    cluster = ClusterOptions(options.address, options.cpus, options.gpus)
    use = disk_use(plan, at_once=options.cpus or cores())
    for source in {e.settings.data: None for e in experiments}:
        tell(data.describe(source), file=sys.stderr)
    for remark in slow_precisions(plan, experiments, cluster):
        tell(remark, file=sys.stderr)
    if options.dry_run:
        found = diagnose_all((line.settings for line in plan), download=False, within_s=_DIAGNOSES_S)
        verdicts = {trial_id: diagnosis.verdict for trial_id, diagnosis in found.by_trial.items()}
        times_s, time_line = times(plan, experiments, cluster)
        tell(plan_table(plan, verdicts, times_s))
        for line in (*found.left_out, time_line):
            tell(line)
        tell(f"disk: up to {size(use.running)} while it runs, {size(use.finished)} in the end")
        return 0
    tell(f"sweep {folder}: {plan_summary(plan)}", file=sys.stderr)
    for remark in before_start(plan, experiments, cluster, folder):
        tell(remark, file=sys.stderr)
    check_writable(options.out)
    check_disk(folder, use)

    with locked(folder.folder) as lock:
        try:
            failures = run_sweep(
                experiments,
                folder,
                cluster,
                keep_others=bool(options.only),
                check_lock=lock.check,
                tune_options={
                    "time_budget_s": options.time_budget,
                    "max_concurrent_trials": options.max_concurrent,
                },
            )
        except (DataError, ResourceError):
            raise  # before anything started
        except BaseException as end:
            if isinstance(end, StorageError) and not folder.folder.is_local:
                raise  # a server that fails would only fail again
            # Whatever happened, what is finished is in its place; if it cannot be, that is not the news.
            try:
                show_results(folder, options.out)
            except (TuneCnnError, OSError) as error:
                tell(error, file=sys.stderr)
            raise
        complete = show_results(folder, options.out)
        left = {e.name for e in experiments if not folder.trial(e.settings).is_finished()}
    if options.time_budget and left and not failures:
        tell(f"the time budget is used up, {counted(len(left), 'experiment')} unfinished; the same command continues")
    return 1 if failures or left or not complete else 0
