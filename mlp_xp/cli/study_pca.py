"""``mlp-xp study pca``: what principal components are, and what they do not depend on."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from mlp_xp.backend import open_backend
from mlp_xp.cli.options import add_data_arguments, describe, load_split, make_source, seed
from mlp_xp.cli.progress import note
from mlp_xp.studies.pca import SOLVERS, n_steps, study
from mlp_xp.studies.pca_report import report
from mlp_xp.studies.report import Report
from mlp_xp.studies.rows import take_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the study's options."""
    parser.epilog = "Looks at the rows to train on. Exit code: 0 if what mathematics says of the axes holds, else 1."
    parser.add_argument("--solver", choices=SOLVERS, default=SOLVERS[0], help=f"default {SOLVERS[0]}")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64", help="default float64")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of the moves and other subspaces; default 0")
    add_data_arguments(parser)


def run(options: argparse.Namespace) -> tuple[Report, Callable[[], Figure]]:
    """Do the study; return the report and what draws the picture."""
    backend = open_backend(options.backend, options.device)
    data = load_split(make_source(options))
    note(describe(data))
    rows = take_rows(data.train, options.dtype)
    with tqdm(total=n_steps(*rows.shape), unit="step", disable=None, leave=False) as bar:

        def tick(name: str) -> None:
            bar.set_description(name, refresh=False)
            bar.update()

        where = f"{data.train.name} on {backend.name}"
        findings = study(rows, where, backend, options.dtype, options.solver, options.seed, tick)
    classes = None if data.train.n_classes is None else np.asarray(data.train.targets)

    def draw() -> Figure:
        from mlp_xp.studies.pca_figure import draw_pca  # matplotlib is slow to import, and comes last

        return draw_pca(findings, rows, classes)

    return report(findings, backend.describe()), draw
