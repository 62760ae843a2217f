"""The picture of `mlp_xp.studies.pca`: the sheet's three points, and what axes make of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, PercentFormatter

from mlp_xp.plots import put_title
from mlp_xp.studies.pca import COPIES, MOST_DIMENSIONS, RIVALS, Findings, shown
from mlp_xp.studies.pca_report import SHARES, axes_needed, shares
from mlp_xp.studies.pictures import draw_images
from mlp_xp.studies.rows import image_side

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Panel
    from numpy.typing import NDArray

COLORS = dict(zip(COPIES, ("k", "C0", "C2", "C3"), strict=True))
MOST_POINTS = 2000
"""In the plane of the first two axes."""
N_IMAGES = 12
N_ROWS = 8
"""That are reconstructed in the picture."""
MOST_CLASSES = 10
"""With a colour each; of more, the picture shows their numbers as shades."""


def draw_pca(findings: Findings, rows: NDArray[np.float64], classes: NDArray[np.integer] | None) -> Figure:
    """Draw the worked case, the variances, the axes, reconstructions, the first plane, and the errors.

    Parameters
    ----------
    findings : Findings
    rows : ndarray of shape (n_rows, n_features)
        That were studied.
    classes : ndarray of int, shape (n_rows,), or None
        Theirs, if they have any.
    """
    figure = Figure(figsize=(14.0, 8.6), layout="constrained")
    panels = figure.subplots(2, 3)
    title = f"Principal components of {findings.n_rows:,} rows of {findings.n_features} features: {findings.where}"
    put_title(figure, title, 11.0)
    _draw_worked(panels[0, 0], findings)
    _draw_variances(panels[0, 1], findings)
    _draw_axes(panels[0, 2], findings)
    _draw_reconstructions(panels[1, 0], findings, rows)
    _draw_plane(panels[1, 1], findings, rows, classes)
    _draw_errors(panels[1, 2], findings)
    for panel in panels.flat:
        panel.title.set_fontsize(9.5)
    return figure


def _draw_worked(panel: Panel, findings: Findings) -> None:
    """Draw the sheet's points and moved copies, each with its axes as long as the standard deviations along them."""
    for name, points, axes in findings.worked:
        color = COLORS[name]
        panel.fill(*points.T, color=color, alpha=0.08, linewidth=0)
        panel.plot(*points.T, "o", color=color, markersize=5)
        panel.text(axes.mean[0], points[:, 1].min() - 0.25, name, color=color, fontsize=8.5, ha="center", va="top")
        for i, alpha in enumerate((1.0, 0.5)):
            along = np.sqrt(axes.variances[i]) * axes.components[i]
            arrow = {"arrowstyle": "-|>", "color": color, "alpha": alpha, "linewidth": 2.0, "shrinkA": 0, "shrinkB": 0}
            panel.annotate("", tuple(axes.mean + along), tuple(axes.mean), arrowprops=arrow)
            x, y = axes.mean + along * (1.0 + 0.25 / np.linalg.norm(along))
            panel.text(x, y, f"w{i + 1}", color=color, fontsize=8, ha="center", va="center")
    panel.set_aspect("equal", adjustable="datalim")
    panel.update_datalim([(-2.0, -7.0), (6.5, 2.6)])  # as texts do not count
    panel.grid(alpha=0.25)
    panel.set_title("Three points: translations and scalings leave w1 as it is,\na rotation turns it")


def _draw_variances(panel: Panel, findings: Findings) -> None:
    axes = findings.axes
    total = shares(axes)
    numbers = np.arange(1, total.size + 1)
    panel.bar(numbers, axes.variances / axes.variances.sum(), 1.0, color="C0", alpha=0.5, label="along each axis")
    panel.plot(numbers, total, "-", color="C1", label="along all up to it")
    for share in SHARES:
        needed = axes_needed(axes, share)
        panel.plot([needed, needed], [0.0, total[needed - 1]], ":", color="0.4", linewidth=1.0)
        panel.plot([needed], [total[needed - 1]], "o", color="C1", markersize=4)
        panel.annotate(
            f"{share:.0%}: {needed}", (needed, total[needed - 1]), fontsize=8,
            ha="right", textcoords="offset points", xytext=(-4, 3),
        )  # fmt: skip
    panel.set_xlim(0.5, total.size + 0.5)
    panel.set_ylim(0.0, 1.1)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    # Where the curve is not: it rises at once on a linear scale, slowly on a logarithmic one.
    panel.legend(frameon=False, fontsize=8, loc="upper left" if total.size > MOST_DIMENSIONS else "center right")
    panel.grid(alpha=0.25)
    panel.set_title("Share of the variance")
    if total.size > MOST_DIMENSIONS:
        _make_logarithmic(panel, total.size)
    else:
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_xlabel("axis")


def _draw_axes(panel: Panel, findings: Findings) -> None:
    components = findings.axes.components
    side = image_side(findings.n_features)
    panel.set_title("The first axes")
    if side is None:
        n_shown = min(3, len(components))
        places = np.arange(1, findings.n_features + 1)
        for i in range(n_shown):
            panel.bar(places + (i - (n_shown - 1) / 2) * 0.8 / n_shown, components[i], 0.8 / n_shown, label=f"w{i + 1}")
        panel.axhline(0.0, color="k", linewidth=0.6)
        panel.legend(frameon=False, fontsize=8)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_xlabel("feature")
        panel.set_ylabel("its number in the axis")
        return
    images = np.zeros((3, 4, side * side))
    first = components[:N_IMAGES]
    images.reshape(-1, side * side)[: len(first)] = first
    names = [f"w{4 * i + 1} – w{4 * i + 4}" for i in range(3)]
    draw_images(panel, images, side, rows=names)


def _draw_reconstructions(panel: Panel, findings: Findings, rows: NDArray[np.float64]) -> None:
    axes = findings.axes
    chosen = [k for k in shown(len(axes.components))[:-1] if k > 1][:5] or [1]
    some = rows[:N_ROWS]
    along = (some - axes.mean) @ axes.components.T
    versions = [some, *(along[:, :k] @ axes.components[:k] + axes.mean for k in reversed(chosen))]
    names = ["as it is", *(f"{k} axes" for k in reversed(chosen))]
    side = image_side(findings.n_features)
    panel.set_title("Rows, reconstructed from few axes")
    if side is not None:
        draw_images(panel, np.stack(versions), side, rows=names, limits=(float(some.min()), float(some.max())))
        return
    places = np.arange(1, findings.n_features + 1)
    for i, (name, version) in enumerate(zip(names, versions, strict=True)):
        panel.plot(places, version[0], "o-" if i == 0 else ".--", color="k" if i == 0 else f"C{i - 1}", label=name)
    panel.legend(frameon=False, fontsize=8)
    panel.grid(alpha=0.25)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_xlabel("feature of the first row")


def _draw_plane(
    panel: Panel, findings: Findings, rows: NDArray[np.float64], classes: NDArray[np.integer] | None
) -> None:
    axes, some = findings.axes, rows[:MOST_POINTS]
    plane = (some - axes.mean) @ axes.components[:2].T
    if plane.shape[1] < 2:
        plane = np.column_stack([plane, np.zeros(len(plane))])
    style: dict[str, Any] = {"s": 7, "alpha": 0.7, "linewidths": 0}
    if classes is None:
        panel.scatter(*plane.T, color="C0", **style)
    elif (n_classes := int(classes.max()) + 1) <= MOST_CLASSES:
        for label in range(n_classes):
            panel.scatter(*plane[classes[:MOST_POINTS] == label].T, color=f"C{label}", label=f"{label}", **style)
        panel.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=2.5)
    else:
        panel.figure.colorbar(
            panel.scatter(plane[:, 0], plane[:, 1], c=classes[:MOST_POINTS], **style), ax=panel, label="class"
        )
    panel.grid(alpha=0.25)
    panel.set_title(
        "Rows in the plane of w1 and w2, by class" if classes is not None else "Rows in the plane of w1, w2"
    )
    panel.set_xlabel("along w1")
    panel.set_ylabel("along w2")


def _draw_errors(panel: Panel, findings: Findings) -> None:
    """Draw the error against the number of axes, in shares of the variance, with other subspaces' above."""
    total, least = findings.total_variance, findings.tolerance
    kept = [(k, error / total) for k, error in findings.errors.items() if error > least]
    others = [(k, np.asarray(errors) / total) for k, errors in findings.rivals.items()]
    for part, name, color in (
        (slice(RIVALS // 2), "random subspaces", "C7"),
        (slice(RIVALS // 2, None), "the best one, tilted", "C3"),
    ):
        points = [(k, error) for k, errors in others for error in errors[part]]
        if points:
            panel.plot(*zip(*points, strict=True), "x", color=color, markersize=5, label=name)
    if kept:
        panel.plot(*zip(*kept, strict=True), "-", color="C0", label="the first axes")
    _make_logarithmic(panel, len(findings.axes.variances))
    panel.set_yscale("log")
    if others or kept:
        panel.legend(frameon=False, fontsize=8, loc="lower left")
    panel.grid(alpha=0.25)
    panel.set_title("No other subspace is nearer to the rows")
    panel.set_ylabel("mean squared error / whole variance")
    panel.set_xlabel("axes")


def _make_logarithmic(panel: Panel, n_axes: int) -> None:
    """Show numbers of axes on a logarithmic scale, those of the table by name."""
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(FixedLocator(shown(n_axes)[:-1] or [1]))
    panel.xaxis.set_major_formatter("{x:.0f}")
    panel.xaxis.set_minor_locator(NullLocator())
