"""Measure this machine: training and validation against a loop written by hand."""

import json
import platform
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tune_cnn.cli.options import add_only, add_settings, positive
from tune_cnn.files import check_writable, path_of, publish_file
from tune_cnn.sweep.config.shipped import config_path
from tune_cnn.texts import aligned, tell

EXAMPLE = "tune-cnn bench exp1_1 --data shapes --only '*_K32_L4' --set precision=bf16 --out bench.json"
_CELLS = Path(__file__).with_name("bench.yaml")
_DEFAULT_CELLS = ("K32_*", "K64_L4")


def add_arguments(parser: ArgumentParser) -> None:
    source = "config file, or a shipped one's name (default: four cells on drawn images)"
    parser.add_argument("file", nargs="?", type=config_path, metavar="CONFIG", help=source)
    add_settings(parser)
    add_only(parser)
    parser.add_argument("--threads", type=positive, metavar="N", help="cores to use (default: all)")
    parser.add_argument("--device", metavar="NAME", default="cpu", help="where to compute, such as cuda (default: cpu)")
    parser.add_argument("--batches", type=positive, default=20, metavar="N", help="batches per turn (default: 20)")
    parser.add_argument("--rounds", type=positive, default=5, metavar="N", help="turns of each (default: 5)")
    parser.add_argument("--out", type=path_of, metavar="FILE", help="write all figures as JSON")


def run(options: Namespace) -> int:
    from tune_cnn.sweep.config.load import distinct_trials, load_experiments

    only = options.only or (() if options.file else _DEFAULT_CELLS)
    experiments = load_experiments([options.file or _CELLS], overrides=options.overrides, only=only, data=options.data)
    from tune_cnn.bench import measure_cell
    from tune_cnn.machine import cores, load, machine_facts
    from tune_cnn.training.devices import choose_device

    if options.out:
        check_writable(options.out.parent)
    threads = options.threads or cores()
    device = choose_device(options.device)
    trials = distinct_trials(experiments).values()
    tell(f"cells: {', '.join(first.name for first, *_ in trials)}", file=sys.stderr)
    if busy := load():
        tell(f"other work keeps the machine busy ({busy}), so ratios will differ from round to round", file=sys.stderr)
    cells: list[dict[str, Any]] = []
    try:
        for first, *_ in trials:
            cells.append(measure_cell(first.name, first.settings, options.batches, options.rounds, threads, device))
    finally:  # after Ctrl-C too, as what was measured took minutes
        if cells:
            tell(cells_table(cells))
            tell("img/s: images per second; x by hand: multiple of a loop written by hand (lowest to highest round);")
            tell("of convs: our share of the speed of the conv layers alone; MB: memory of one further trial")
        if cells and options.out:
            machine = {**machine_facts(device), "threads": threads, "cores": cores(), "system": platform.platform()}
            figures = {"machine": machine, "batches": options.batches, "rounds": options.rounds, "cells": cells}
            publish_file(options.out, json.dumps(figures, indent=2).encode() + b"\n")
            tell(f"figures: {options.out}")
    return 0


def cells_table(cells: Sequence[Mapping[str, Any]]) -> str:
    """Format one line per result of `measure_cell`: median rates, and ratios with their lowest and highest."""
    from tune_cnn.bench import CONTENDERS

    rows = [["cell", "precision", "train img/s", "by hand", "convs alone", "x by hand", "of convs"]]
    rows[0] += ["val img/s", "by hand", "x by hand", "of convs", "MB"]
    for cell in cells:
        row = [cell["name"], cell["precision"]]
        for phase, shown in (("training", CONTENDERS), ("validation", ("ours", "by_hand"))):
            row += [f"{cell[phase]['images_per_s'][contender]['median']:,.0f}" for contender in shown]
            row.append("{median:.2f} ({lowest:.2f} to {highest:.2f})".format(**cell[phase]["ours_over_by_hand"]))
            row.append(f"{cell[phase]['ours_over_convolutions']['median']:.0%}")
        rows.append([*row, "-" if cell["memory_mb"] is None else f"{cell['memory_mb']:.0f}"])
    return aligned(rows)
