"""``mlp-xp study kmeans``: how k-means falls, where it ends, and what outliers do."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from tqdm import tqdm

from mlp_xp.arithmetic import ARITHMETICS
from mlp_xp.backend import open_backend
from mlp_xp.cli.options import add_data_arguments, describe, load_split, make_source, seed
from mlp_xp.cli.progress import note
from mlp_xp.studies.kmeans import ROWS, Fitter, n_steps, study
from mlp_xp.studies.kmeans_report import report
from mlp_xp.studies.report import Report
from mlp_xp.studies.rows import take_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the study's options."""
    parser.epilog = (
        f"Looks at the rows to train on, at most the first {ROWS:,}. Exit code: 0 if all claims hold, else 1."
    )
    parser.add_argument("--clusters", type=int, default=10, metavar="N", help="the most clusters; default 10")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float64", help="default float64")
    parser.add_argument("--arithmetic", choices=tuple(ARITHMETICS), default="native", help="default native")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of the rows to begin at; default 0")
    add_data_arguments(parser)


def run(options: argparse.Namespace) -> tuple[Report, Callable[[], Figure]]:
    """Do the study; return the report and what draws the picture."""
    backend = open_backend(options.backend, options.device)
    data = load_split(make_source(options))
    note(describe(data))
    rows, n_given = take_rows(data.train, options.dtype, ROWS), data.train.n_samples
    fitter = Fitter(backend, options.dtype, options.arithmetic)
    with tqdm(total=n_steps(options.clusters), unit="step", disable=None, leave=False) as bar:

        def tick(name: str) -> None:
            bar.set_description(name, refresh=False)
            bar.update()

        where = f"{data.train.name} on {backend.name}"
        findings = study(rows, n_given, where, options.clusters, fitter, options.seed, tick)

    def draw() -> Figure:
        from mlp_xp.studies.kmeans_figure import draw_kmeans  # matplotlib is slow to import, and comes last

        return draw_kmeans(findings)

    return report(findings, backend.describe()), draw
