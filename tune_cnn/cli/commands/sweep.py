"""Train the experiments of config files, several at once; to resume, run the same command again."""

from argparse import ArgumentParser, Namespace

from tune_cnn.cli.options import MANY, add_files, add_out, add_storage, positive, seconds, whole
from tune_cnn.sweep.config.shipped import sweep_name
from tune_cnn.texts import size, tell
from tune_cnn.waiting import waiting

EXAMPLE = "tune-cnn sweep exp1_1 exp1_2 --only 'exp1_1_K32*'"
_DIAGNOSES_S = 10.0  # time limit for the verdicts of a dry run


def add_arguments(parser: ArgumentParser) -> None:
    add_files(parser)
    parser.add_argument("--name", help="the sweep's name (default: made from the files' names)")
    add_out(parser, "folder of the result files")
    add_storage(parser)
    parser.add_argument("--dry-run", action="store_true", help="show what would run, and stop")
    finish = "train experiments of these names to the end, also those that a scheduler stopped"
    parser.add_argument("--finish", metavar="PATTERN", help=finish, **MANY)
    parser.add_argument("--time-budget", type=seconds, metavar="TIME", help="stop 90s, 30m, 2h, ... after Ray's start")
    track = "also report each trial to MLflow or Weights & Biases"
    parser.add_argument("--track", choices=["mlflow", "wandb"], help=track, **MANY)
    parser.add_argument("--max-concurrent", type=positive, metavar="N", help="run at most N trials at once")
    parser.add_argument("--fresh", action="store_true", help="train all again, in a new folder; the old one is kept")
    parser.add_argument("--address", metavar="HOST:PORT", help="join a running Ray cluster (auto: this machine's)")
    parser.add_argument("--cpus", type=positive, metavar="N", help="cores to use (default: all)")
    parser.add_argument("--gpus", type=whole, metavar="N", help="GPUs to use (default: all)")


def run(options: Namespace) -> int:
    from tune_cnn.rules import name_problems
    from tune_cnn.sweep.config.load import load_experiments

    name = options.name or sweep_name(options.files)
    place = "--name" if options.name else ", ".join(map(str, options.files))
    remedy = "" if options.name else "; rename the file, or give --name"
    experiments = load_experiments(
        options.files,
        overrides=options.overrides,
        only=options.only,
        finish=options.finish,
        data=options.data,
        may_be_open=True,
        further={place: [problem + remedy for problem in name_problems(name)]},
    )
    from tune_cnn.api import train  # only now, so that faults in config files are reported at once
    from tune_cnn.diagnosis import diagnose_all
    from tune_cnn.machine import cores
    from tune_cnn.sweep.cluster import ClusterOptions
    from tune_cnn.sweep.plan import check_disk, disk_use, make_plan, plan_table
    from tune_cnn.sweep.remarks import describe, replaced, times
    from tune_cnn.sweep.study import settled
    from tune_cnn.sweep.sweep_folder import SweepFolder

    folder = SweepFolder(options.storage, name)
    if options.fresh:
        folder.start_over()
    cluster = ClusterOptions(options.address, options.cpus, options.gpus)
    if options.dry_run:
        plan = make_plan(settled(experiments, folder), folder)
        describe(plan, cluster)
        known = [line for line in plan if not line.is_open]
        with waiting("looking at each network before its training"):
            found = diagnose_all((line.settings for line in known), download=False, within_s=_DIAGNOSES_S)
        verdicts = {trial_id: diagnosis.verdict for trial_id, diagnosis in found.by_trial.items()}
        with waiting("timing some steps of each network"):
            times_s, time_line = times(known, cluster)
        if len(known) < len(plan):
            time_line = "time: not known before Optuna has suggested all settings"
        tell(plan_table(plan, verdicts, times_s))
        replaces = replaced({line.name: line.settings.trial_id for line in known}, options.out)
        for line in (*found.left_out, time_line, *replaces):
            tell(line)
        running, finished = disk_use(plan, at_once=options.cpus or cores())
        tell(f"disk: up to {size(running)} while it runs, {size(finished)} in the end")
        check_disk(folder, running)
        return 0
    from tune_cnn.sweep.trackers import tracker

    failures, is_complete = train(
        experiments,
        folder,
        options.out,
        cluster,
        keep_others=bool(options.only),
        callbacks=[tracker(package, name) for package in options.track],
        tune_options={"time_budget_s": options.time_budget, "max_concurrent_trials": options.max_concurrent},
    )
    return 1 if failures or not is_complete else 0
