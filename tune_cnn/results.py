"""Results that commands write for a sweep: result files, figures and report; and the table of how trials ended."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from tune_cnn import data
from tune_cnn.errors import DataError, ResultError, TuneCnnError
from tune_cnn.experiments import experiment_config
from tune_cnn.result_files import save_experiment
from tune_cnn.settings import Settings
from tune_cnn.sweep.lock import running
from tune_cnn.sweep.outcome import outcome_table, outcomes
from tune_cnn.sweep.sweep_folder import SweepFolder
from tune_cnn.texts import counted, named, tell
from tune_cnn.train_results import FitResult
from tune_cnn.training.devices import default_device
from tune_cnn.trial import Trial
from tune_cnn.waiting import waiting


@dataclass
class Results:
    """What `export` wrote of a sweep, and `write_results` beside it."""

    files: list[Path] = field(default_factory=list)  # of the experiments that have finished an epoch
    unfinished: list[str] = field(default_factory=list)  # the names of the unfinished ones among them
    missing: dict[str, str | None] = field(default_factory=dict)  # without a file: why each failed; None: not begun
    remarks: list[str] = field(default_factory=list)  # why the test set was not measured, one line per reason
    failed: list[str] = field(default_factory=list)  # what could not be written, and why, one line each
    figures: list[Path] = field(default_factory=list)  # one for each row of the grid
    reports: list[Path] = field(default_factory=list)  # a page, Markdown and CSV; none if no experiment has begun

    @property
    def failures(self) -> dict[str, str]:
        """Why experiments without a file failed, by name."""
        return {name: failure for name, failure in self.missing.items() if failure is not None}


def export(folder: SweepFolder, out_dir: Path, not_measured: str | None = None) -> Results:
    """Write `<out_dir>/<name>.json` for every experiment whose trial has finished an epoch, and has not failed.

    Experiments that share a trial each get a file, under their own name. An unfinished trial is marked as such, with
    its epochs so far and the test results of their best weights. Measuring these takes images and time; if
    `not_measured` gives a reason, they are left out.
    """
    done = Results()
    reasons: list[str] = []

    load = cache(partial(data.load, progress=True, download=False))

    @cache
    def outcome(settings: Settings) -> tuple[FitResult, dict[str, Any]] | str | None:
        """Results and facts; or why the trial has failed; None: it has not begun."""
        trial = folder.trial(settings)
        try:
            if (known := trial.record() or trial.failure()) is not None:
                return known
        except ResultError as error:
            return str(error)
        state = trial.newest_state()
        found = trial.as_it_stands(state)
        if state is None or found is None:
            return None
        if not_measured:
            reasons.append(not_measured)
        elif settings.model is not None:
            reasons.append("no code of custom networks is run here")
        else:
            try:
                tested = Trial(settings, load(settings.data), default_device())
                tested.load_state_dict(state)
                tested.measure_test()
                found[1].update({key: tested.summary()[key] for key in ("test_accuracy", "test_loss", "confusion")})
            except DataError as error:
                reasons.append(str(error).partition("\n")[0])
            except ResultError as error:
                reasons.append(f"{trial.label}: the checkpoint does not fit ({error})")
        return found

    searches = folder.searches()
    for name, settings in folder.experiments().items():
        if not isinstance(found := outcome(settings), tuple):
            done.missing[name] = found
            continue
        results, summary = found
        if name in searches:
            summary = {**summary, "search": searches[name], "sweep": folder.name}
        path = out_dir / f"{name}.json"
        try:
            save_experiment(path, experiment_config(name, out_dir, settings), results, summary)
        except OSError as error:  # such as a folder with this name, or another user's file
            remedy = f"fix that, then type: {_command('export', folder, out_dir)}"
            done.failed.append(f"{path}: not written ({error.strerror}); {remedy}")
            continue
        done.files.append(path)
        if summary.get("unfinished"):
            done.unfinished.append(name)
    done.remarks += [f"the test set of unfinished trials is not measured: {why}" for why in dict.fromkeys(reasons)]
    return done


def _command(name: str, folder: SweepFolder, out_dir: Path) -> str:
    return shlex.join(["tune-cnn", name, str(folder), "--out", str(out_dir)])


def export_now(folder: SweepFolder, out_dir: Path, not_measured: str | None = None) -> Results:
    """Write the result files of a sweep as it stands, and say on stderr which experiments are unfinished.

    `not_measured` is that of `export`; None: measure the test set unless somebody is running the sweep.
    """
    if not_measured is None and (who := running(folder.folder)) is not None:
        not_measured = f"{who} is running the sweep"
    with waiting("writing the result files"):
        exported = export(folder, out_dir, not_measured)
    if exported.unfinished:
        tell(f"unfinished, exported as they stand: {', '.join(exported.unfinished)}", file=sys.stderr)
    for remark in exported.remarks:
        tell(remark, file=sys.stderr)
    return exported


def write_results(folder: SweepFolder, out_dir: Path, not_measured: str | None = None) -> Results:
    """Export as `export_now` does, then write figures and report; if one of these fails, the rest is still written.

    Raises:
        StorageError: The sweep's folder is damaged.
    """
    results = export_now(folder, out_dir, not_measured)

    @contextmanager
    def attempt(what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is: the results took hours of training
            why = " ".join(str(error).split()) if isinstance(error, TuneCnnError) else named(error)
            remedy = f"fix that, then type: {_command('report', folder, out_dir)}"
            results.failed.append(f"{what}: not written ({why}); {remedy}")

    with attempt("figures"), waiting("drawing the figures"):
        from tune_cnn.report.figure_files import write_figures  # imports matplotlib, which other commands do without
        from tune_cnn.report.search import write_search_figure

        results.figures += write_figures(results.files, out_dir)
        if folder.searches():
            results.figures += write_search_figure(folder.name, results.files, out_dir)
    if results.files or results.failures:
        with attempt("report"), waiting("writing the report"):
            from tune_cnn.report import write_report

            asked = folder.experiments()
            results.reports += write_report(
                folder.name, results.files, out_dir, figures=results.figures, asked=asked, failures=results.failures
            )
    return results


def show_results(folder: SweepFolder, out_dir: Path) -> bool:
    """Write the results and print their paths; return whether all of them could be written."""
    results = write_results(folder, out_dir, not_measured=f"{_command('export', folder, out_dir)} measures it")
    experiments = folder.experiments()
    tell(outcome_table(folder, experiments, outcomes(folder, experiments)))
    for figure in results.figures:
        tell(f"figure: {figure}")
    for report in results.reports:
        tell(f"report: {report}")
    tell(f"{counted(len(results.files), 'result file')} and {counted(len(results.figures), 'figure')} in {out_dir}")
    for line in results.failed:
        tell(line, file=sys.stderr)
    return not results.failed
