"""The pictures: a run's loss and accuracy, and the curves of several backends with their difference."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from mlp_xp.comparison import Comparison

GREY = "0.75"
MOST_POINTS = 300
"""Of a line: with more, a noisy curve fills its area and hides those below it."""


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144)
    return buffer.getvalue()


def plot_run(step_losses: NDArray[np.float64], curve: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draw a training: every batch's loss, the epochs' mean and test losses, and the accuracy below.

    Parameters
    ----------
    step_losses : ndarray of shape (n_steps,)
        Over all epochs.
    curve : sequence of mappings
        Per epoch, as `mlp_xp.training.Epoch.row` gives it.
    title : str
    """
    n_panels = 1 if curve[0]["accuracy"] is None else 2
    figure = Figure(figsize=(7.2, 3.0 + 1.4 * n_panels), layout="constrained")
    panels = figure.subplots(n_panels, sharex=True, squeeze=False, height_ratios=(2, 1)[:n_panels])[:, 0]
    figure.suptitle(title, fontsize=10)
    ends = np.arange(1, len(curve) + 1)
    steps = np.arange(step_losses.size) * (len(curve) / step_losses.size)
    panels[0].plot(steps, step_losses, color=GREY, linewidth=0.6, label="each batch")
    # A mean stands in the middle of what it is taken over, a test at the end of what was learnt.
    panels[0].plot(ends - 0.5, [row["loss"] for row in curve], "o-", markersize=3, label="epoch's mean")
    panels[0].plot(ends, [row["test_loss"] for row in curve], "s-", markersize=3, label="test")
    _logarithmic(panels[0])
    panels[0].set_ylabel("loss")
    _legend(panels[0])
    if n_panels == 2:
        percent = [100.0 * row["accuracy"] for row in curve]
        panels[1].plot(ends, percent, "s-", markersize=3, color="C1")
        panels[1].set_ylabel("test accuracy [%]")
        panels[1].annotate(
            f"{percent[-1]:.2f} %",
            (1.0, percent[-1]),
            (4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
        )
    panels[-1].set_xlabel("epochs")
    panels[-1].set_xlim(left=0)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    for panel in panels:
        panel.grid(alpha=0.25)
    return figure


def plot_comparison(comparison: Comparison) -> Figure:
    """Draw the backends' loss curves over one another, and below, on a log axis, each one's difference."""
    figure = Figure(figsize=(7.2, 6.0), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    figure.suptitle(comparison.title, fontsize=10)
    first, *others = comparison.trainings
    steps = np.arange(first.step_losses.size)
    width = -(-steps.size // MOST_POINTS)
    for i, training in enumerate(comparison.trainings):
        # Thick below thin, so that every curve shows although they lie on one another.
        above.plot(
            _means(steps[: training.step_losses.size], width),  # one that diverged ends early
            _means(training.step_losses, width),
            linewidth=1.0 + 2.4 * (len(others) - i),
            color=f"C{i}",
            label=f"{training.label}: diverged" if training.diverged else training.label,
        )
    _logarithmic(above)
    above.set_ylabel("loss of each batch" if width == 1 else f"loss, mean of {width} batches")
    _legend(above)
    for i, training in enumerate(others, start=1):
        n = training.step_losses.size
        difference = np.abs(training.step_losses - first.step_losses[:n])
        # A log axis has no zero; where there is nothing else, the axis is not one.
        visible = np.where(difference > 0, difference, np.nan) if np.any(difference) else difference
        label = training.label if np.any(difference) or not n else f"{training.label}: 0 everywhere"
        below.plot(steps[:n], visible, ".", markersize=2, color=f"C{i}", label=label)
    if np.any(comparison.allowed):  # in exact arithmetic, nothing is
        below.step(steps, comparison.allowed, where="mid", color="0.4", linestyle="--", label="tolerance")
    if all(np.array_equal(training.step_losses, first.step_losses) for training in others):
        below.set_yticks([0.0])
    else:
        below.set_yscale("log")
    below.set_ylabel(f"difference from\n{first.label}")
    below.set_xlabel("step")
    _legend(below, markerscale=3.0)
    for panel in (above, below):
        panel.grid(alpha=0.25)
    return figure


def _means(values: NDArray[Any], width: int) -> NDArray[np.float64]:
    """Return the means of ``width`` neighbours each; the last may be of fewer."""
    starts = np.arange(0, values.size, width)
    return np.add.reduceat(values, starts) / np.diff(starts, append=values.size)


def _logarithmic(panel: Axes) -> None:
    """Make the losses' axis logarithmic with plain numbers: 0.5 rather than 5 × 10⁻¹."""
    panel.set_yscale("log")
    low, high = panel.get_ylim()
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_formatter("{x:g}" if high < 10 * low else NullFormatter())


def _legend(panel: Axes, markerscale: float = 1.0) -> None:
    """Put the legend in a row above the panel, where it hides nothing."""
    panel.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize=8, markerscale=markerscale)
