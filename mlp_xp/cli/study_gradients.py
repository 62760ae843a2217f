"""``mlp-xp study gradients``: how gradients vanish in deep networks, and what helps."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from tqdm import tqdm

from mlp_xp.backend import open_backend
from mlp_xp.cli.options import (
    add_data_arguments,
    add_training_arguments,
    change_settings,
    describe,
    load_split,
    make_source,
)
from mlp_xp.cli.progress import note
from mlp_xp.settings import Settings
from mlp_xp.studies.gradients import Moment, at_start, cases, depths, follow
from mlp_xp.studies.gradients_report import Findings, report
from mlp_xp.studies.report import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASE = Settings(init="glorot", batch_size=20, epochs=20, pretrain_epochs=15)
"""For the digits; of more rows, fewer epochs are enough."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the study's options."""
    parser.epilog = (
        "The defaults are for the digits; for MNIST: --data mnist --batch-size 50 --epochs 5 --pretrain-epochs 1. "
        "Exit code: 0 if every gradient is within its bound, else 1."
    )
    parser.add_argument("--depth", type=int, default=10, metavar="N", help="hidden layers; default 10")
    parser.add_argument("--width", type=int, default=100, metavar="N", help="units of each; default 100")
    add_data_arguments(parser)
    add_training_arguments(parser.add_argument_group("training"), BASE)


def run(options: argparse.Namespace) -> tuple[Report, Callable[[], Figure]]:
    """Train all networks of the study; return the report and what draws the picture."""
    networks = cases(change_settings(BASE, options), options.depth, options.width)
    backend = open_backend(options.backend, options.device)
    data = load_split(make_source(options))
    note(describe(data))
    starts = {
        name: [(depth, at_start(settings, data.train, backend)) for depth, settings in depths(settings, options.depth)]
        for name, settings in networks.items()
        if settings.pretrain == "none"
    }
    moments: dict[str, list[Moment]] = {}
    total = sum(settings.epochs for settings in networks.values())
    with tqdm(total=total, unit="epoch", disable=None, leave=False) as bar:
        for name, settings in networks.items():
            bar.set_description(name)
            moments[name] = []
            for moment in follow(settings, data, backend):
                moments[name].append(moment)
                bar.update(moment.epoch > 0)
    findings = Findings(f"{data.train.name} on {backend.name}", networks, starts, moments)

    def draw() -> Figure:
        from mlp_xp.studies.gradients_figure import draw_gradients  # matplotlib is slow to import, and comes last

        return draw_gradients(findings)

    return report(findings, backend.describe()), draw
