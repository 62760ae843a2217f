"""The picture of `mlp_xp.studies.kmeans`: a worked case, how J falls, what outliers do, and the centres."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mlp_xp.plots import put_title
from mlp_xp.studies.kmeans import METRICS, Findings
from mlp_xp.studies.outliers import COUNTS
from mlp_xp.studies.pictures import draw_images
from mlp_xp.studies.rows import image_side

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {"l2": "C0", "l1": "C1"}
CLUSTER_COLORS = "C2", "C4", "C5"
STYLES = ":", "--", "-"
"""Of few outliers, more, and many."""
MOST_CENTERS = 12
"""That are shown."""


def draw_kmeans(findings: Findings) -> Figure:
    """Draw the worked case with its paths, J over half-steps and against k, outliers' pull, and the data's centres."""
    figure = Figure(figsize=(14.0, 8.6), layout="constrained")
    grid = figure.add_gridspec(2, 3)
    put_title(figure, f"k-means of {findings.what}", 11.0)
    _draw_worked(figure.add_subplot(grid[0, 0]), findings)
    _draw_falling(figure.add_subplot(grid[0, 1]), findings)
    _draw_shares(figure.add_subplot(grid[0, 2]), findings)
    _draw_outliers(figure.add_subplot(grid[1, 0]), findings)
    _draw_centers(figure.add_subplot(grid[1, 1:]), findings)
    for panel in figure.axes:
        panel.title.set_fontsize(9.5)
    return figure


def _draw_worked(panel: Axes, findings: Findings) -> None:
    """Draw the worked rows in the colours of l2's clusters, and the centres' paths of both metrics."""
    points, runs = findings.worked
    for label, color in enumerate(CLUSTER_COLORS):
        panel.plot(*points[runs[0].labels == label].T, "o", color=color, markersize=3.5, alpha=0.45, zorder=1)
    for run, marker, size, style in zip(runs, "Xo", (6, 12), ("-", "--"), strict=True):
        for center in range(run.path.shape[1]):
            path = run.path[:, center]
            panel.plot(*path.T, style, color=COLORS[run.metric], linewidth=1.4, marker=".", markersize=5)
            panel.plot(*path[0], "o", color="k", markersize=6, markerfacecolor="white")
        panel.plot(
            *run.path[-1].T, marker, color=COLORS[run.metric], markersize=size, markerfacecolor="none",
            markeredgewidth=2.0, linestyle="none", zorder=4,
            label=f"{'means' if run.metric == 'l2' else 'medians'} ({run.metric}), {len(run.path) - 1} iterations",
        )  # fmt: skip
    panel.plot([], [], "o", color="k", markersize=6, markerfacecolor="white", label="where they begin")
    panel.set_aspect("equal", adjustable="datalim")
    panel.update_datalim([(0.0, 11.5)])  # for the legend
    panel.legend(frameon=False, fontsize=8, loc="upper left")
    panel.grid(alpha=0.25)
    panel.set_title("150 rows in the plane: the centres' paths")


def _draw_falling(panel: Axes, findings: Findings) -> None:
    """Draw how far J is above its end, after every half-step."""
    for run in findings.runs:
        objectives = np.asarray(run.objectives)
        above = (objectives - objectives[-1]) / (objectives[-1] or 1.0)  # 0 where every row has a centre
        steps = np.arange(objectives.size) / 2
        is_seen = above > findings.tolerance
        color = COLORS[run.metric]
        panel.plot(steps[is_seen], above[is_seen], "-", color=color, linewidth=1.0)
        for begin, face in ((0, color), (1, "white")):
            some = is_seen & (np.arange(objectives.size) % 2 == begin)
            panel.plot(steps[some], above[some], "o", color=color, markersize=4, markerfacecolor=face)
        panel.plot(
            [],
            [],
            "-",
            color=color,
            label=f"{run.metric}: J ends at {objectives[-1]:,.{2 if objectives[-1] < 1000 else 0}f}",
        )
    panel.plot([], [], "ok", markersize=4, label="after assigning")
    panel.plot([], [], "ok", markersize=4, markerfacecolor="white", label="after updating")
    panel.set_yscale("log")
    panel.legend(frameon=False, fontsize=8, loc="best")
    panel.grid(alpha=0.25)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    n_clusters = findings.runs[0].path.shape[1]
    panel.set_title(f"{n_clusters} clusters: J falls in both half-steps")
    panel.set_ylabel("(J − its end) / its end")
    panel.set_xlabel("iterations")


def _draw_shares(panel: Axes, findings: Findings) -> None:
    """Draw the parts of the deviation of l2's clusterings, and l1's J, against k."""
    numbers = [fit.k for fit in findings.nested["l2"]]
    parts = [fit.deviations for fit in findings.nested["l2"]]
    within = np.asarray([float(part.within / part.total) for part in parts])
    between = np.asarray([float(part.between / part.total) for part in parts])
    panel.bar(numbers, within, 0.8, color=COLORS["l2"], alpha=0.75, label="l2: within clusters (J / n)")
    panel.bar(numbers, between, 0.8, bottom=within, color="0.85", label="l2: between clusters")
    objectives = np.asarray([fit.objective for fit in findings.nested["l1"]])
    panel.plot(numbers, objectives / objectives[0], "o-", color=COLORS["l1"], markersize=4, label="l1: J / J of k = 1")
    panel.set_ylim(0.0, 1.3)
    panel.set_yticks(np.linspace(0.0, 1.0, 6))
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.legend(frameon=False, fontsize=8, loc="upper right")
    panel.grid(alpha=0.25)
    panel.set_title("Within + between = total: J does not grow with k")
    panel.set_xlabel("k, each from the centres of k − 1 and one row")


def _draw_outliers(panel: Axes, findings: Findings) -> None:
    n_rows = len(findings.worked[0])
    for metric in METRICS:
        for count, style in zip(COUNTS, STYLES, strict=True):
            shifts = [shift for shift in findings.shifts if (shift.metric, shift.n_outliers) == (metric, count)]
            panel.plot(
                [shift.distance for shift in shifts], [shift.shift for shift in shifts], style, marker="o",
                markersize=3.5, color=COLORS[metric], label=f"{metric}, {count} outlier{'s' if count > 1 else ''}",
            )  # fmt: skip
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.legend(frameon=False, fontsize=8, loc="upper left")
    panel.grid(alpha=0.25)
    panel.set_title(f"Outliers among the {n_rows} rows: means follow them,\nthen one is theirs; medians stay")
    panel.set_ylabel("mean shift of the centres [standard deviations]")
    panel.set_xlabel("outliers' distance [standard deviations]")


def _draw_centers(panel: Axes, findings: Findings) -> None:
    """Draw the centres that both metrics end at, from the same rows: as images, or feature by feature."""
    ends = [run.path[-1][:MOST_CENTERS] for run in findings.runs]
    side = image_side(findings.n_features)
    names = ["l2: means", "l1: medians"]
    panel.set_title("The centres, from the same rows")
    if side is not None:
        stacked = np.stack(ends)
        draw_images(panel, stacked, side, rows=names, limits=(float(stacked.min()), float(stacked.max())))
        return
    places = np.arange(1, findings.n_features + 1)
    for centers, style, name in zip(ends, ("o-", "s--"), names, strict=True):
        for number, center in enumerate(centers):
            panel.plot(places, center, style, color=f"C{number % 10}", markersize=4, linewidth=1.0)
        panel.plot([], [], style, color="k", markersize=4, linewidth=1.0, label=name)
    panel.legend(frameon=False, fontsize=8)
    panel.grid(alpha=0.25)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_xlabel("feature")
