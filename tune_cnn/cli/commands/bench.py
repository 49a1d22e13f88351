"""`tune-cnn bench`: how fast training is on the cores of this machine."""

import argparse
import json
import os
import platform
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

import tune_cnn
from tune_cnn.bench.cells import cells_table, measure_cell
from tune_cnn.bench.whole_sweeps import measure_sweeps
from tune_cnn.cli.commands.common import check_writable
from tune_cnn.files import publish_file
from tune_cnn.machine import cores, cpu_model
from tune_cnn.sweep.search_space import distinct_trials, load_experiments
from tune_cnn.texts import tell

_CELLS = Path(str(files("tune_cnn.bench") / "cells.yaml"))
_DEFAULT_CELLS = ("K32_*", "K64_L4")


def run(options: argparse.Namespace) -> int:
    """Measure each distinct cell, and whole sweeps if asked to."""
    file = options.file or _CELLS
    only = options.only or (() if options.file else _DEFAULT_CELLS)
    experiments = load_experiments([file], overrides=options.overrides, only=only, data=options.data)
    if options.out:
        check_writable(options.out.parent)
    threads = options.threads or cores()
    cells = [
        measure_cell(twins[0].name, twins[0].settings, options.batches, options.rounds, threads, _say)
        for twins in distinct_trials(experiments).values()
    ]
    tell(cells_table(cells))
    figures: dict[str, Any] = {
        "machine": _machine(threads),
        "batches": options.batches,
        "rounds": options.rounds,
        "cells": [cell.to_json() for cell in cells],
    }
    if options.sweep:
        source = [str(file), *(part for override in options.overrides for part in ("--set", override))]
        source += ["--data", options.data] if options.data else []
        sweeps = measure_sweeps(source, {cell.name: cell.settings for cell in cells}, _say)
        tell(sweeps)
        figures["sweep"] = sweeps.to_json()
    if options.out:
        publish_file(options.out, json.dumps(figures, indent=2).encode() + b"\n")
        tell(f"figures: {options.out}")
    return 0


def _say(message: str) -> None:
    tell(message, file=sys.stderr)


def _machine(threads: int) -> dict[str, Any]:
    return {
        "processor": cpu_model(),
        "cores": cores(),
        "threads": threads,
        "busy_at_the_end": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "versions": {"tune_cnn": tune_cnn.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }
