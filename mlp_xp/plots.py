"""The pictures: a run's loss and accuracy, and the curves of several backends with their difference."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from mlp_xp.replicas import Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from mlp_xp.comparison import Comparison

GREY = "0.75"
MOST_POINTS = 300
"""Of a line: with more, a noisy curve fills its area and hides those below it."""
MOST_CHARACTERS = 200
"""Of a name; a picture is narrower, and a stranger's may be as long as its file."""
AS_IT_IS: dict[str, Any] = {"parse_math": False, "usetex": False}
"""How a text is drawn that holds a name from outside: it may have dollars, and they are no mathematics."""


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144)
    return buffer.getvalue()


def printable(name: str) -> str:
    """Return a name from outside as a picture can show it; it may be a file's, of any bytes, or a stranger's."""
    half = MOST_CHARACTERS // 2
    shown = name if len(name) <= MOST_CHARACTERS else f"{name[: half - 1]}…{name[-half:]}"
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in shown)


def put_title(figure: Figure, title: str, fontsize: float = 10.0) -> None:
    """Write above a figure what has a name from outside in it."""
    figure.suptitle(printable(title), fontsize=fontsize, **AS_IT_IS)


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
    figure, panels = _panels(curve, title)
    ends = np.arange(1, len(curve) + 1)
    steps = np.arange(step_losses.size) * (len(curve) / step_losses.size)
    panels[0].plot(steps, step_losses, color=GREY, linewidth=0.6, label="each batch")
    # A mean stands in the middle of what it is taken over, a test at the end of what was learnt.
    panels[0].plot(ends - 0.5, [row["loss"] for row in curve], "o-", markersize=3, label="epoch's mean")
    panels[0].plot(ends, [row["test_loss"] for row in curve], "s-", markersize=3, label="test")
    if len(panels) == 2:
        percent = [100.0 * row["accuracy"] for row in curve]
        panels[1].plot(ends, percent, "s-", markersize=3, color="C1")
        _mark_last(panels[1], percent[-1], f"{percent[-1]:.2f} %")
    _finish(panels)
    return figure


def plot_replicas(step_losses: NDArray[np.float64], curve: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draw a training of many seeds: means, a band of a standard deviation to either side, and one that holds all.

    Parameters
    ----------
    step_losses : ndarray of shape (n_steps, n_replicas)
        Over all epochs.
    curve : sequence of mappings
        Per epoch, as `mlp_xp.replicas.ReplicatedEpoch.row` gives it.
    title : str
    """
    figure, panels = _panels(curve, title)
    ends = np.arange(1, len(curve) + 1)
    steps, width = np.arange(len(step_losses)) * (len(curve) / len(step_losses)), _width(len(step_losses))
    batches = "each batch" if width == 1 else f"mean of {width} batches"
    _band(panels[0], _means(steps, width), Spread.of(_means(step_losses, width)), "0.5", batches, linewidth=0.6)
    _band(panels[0], ends - 0.5, _column(curve, "loss"), "C0", "epoch's mean", marker="o", markersize=3)
    _band(panels[0], ends, _column(curve, "test_loss"), "C1", "test", marker="s", markersize=3)
    if len(panels) == 2:
        accuracy = Spread(*(100.0 * part for part in _column(curve, "accuracy")))
        _band(panels[1], ends, accuracy, "C1", "test", marker="s", markersize=3)
        last, deviation = accuracy.mean[-1], accuracy.standard_deviation[-1]
        _mark_last(panels[1], last, f"{last:.2f} %\n± {deviation:.2f} %")
    _finish(panels)
    return figure


def _column(curve: Sequence[Mapping[str, Any]], name: str) -> Spread:
    """Return the spread of a number over the epochs, shape (n_epochs,)."""
    return Spread(*(np.asarray([row[name][part] for row in curve]) for part in Spread._fields))


def _band(panel: Axes, x: NDArray[Any], spread: Spread, color: str, label: str, **line: Any) -> None:
    """Draw a mean, a band of a standard deviation to either side, and a fainter one from the least to the most."""
    mean, deviation, least, most = spread
    panel.fill_between(x, least, most, color=color, alpha=0.15, linewidth=0)
    panel.fill_between(x, mean - deviation, mean + deviation, color=color, alpha=0.3, linewidth=0)
    panel.plot(x, mean, color=color, label=label, **line)


def _panels(curve: Sequence[Mapping[str, Any]], title: str) -> tuple[Figure, NDArray[Any]]:
    """Return a figure with a panel for the losses and, if there is an accuracy, one for that below."""
    n_panels = 1 if curve[0]["accuracy"] is None else 2
    figure = Figure(figsize=(7.2, 3.0 + 1.4 * n_panels), layout="constrained")
    panels = figure.subplots(n_panels, sharex=True, squeeze=False, height_ratios=(2, 1)[:n_panels])[:, 0]
    put_title(figure, title)
    return figure, panels


def _finish(panels: NDArray[Any]) -> None:
    """Dress the panels once the curves are in them."""
    _logarithmic(panels[0])
    _legend(panels[0])
    for panel, label in zip(panels, ("loss", "test accuracy [%]"), strict=False):
        panel.set_ylabel(label)
        panel.grid(alpha=0.25)
    panels[-1].set_xlabel("epochs")
    panels[-1].set_xlim(left=0)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))


def _mark_last(panel: Axes, height: float, text: str) -> None:
    """Write a curve's last value beside the panel."""
    panel.annotate(
        text, (1.0, height), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center"
    )


def plot_comparison(comparison: Comparison) -> Figure:
    """Draw the backends' loss curves over one another, and below, on a log axis, each one's difference."""
    figure = Figure(figsize=(7.2, 6.0), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 2))
    put_title(figure, comparison.title)
    first, *others = comparison.trainings
    steps = np.arange(first.step_losses.size)
    width = _width(steps.size)
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
    if comparison.seeds is not None:
        # As if of one step, though smoothed: the root of the mean square.
        deviation = np.sqrt(_means(comparison.seeds.standard_deviation**2, width))
        label = f"standard deviation between {comparison.seeds.n} seeds"
        below.plot(_means(steps, width), deviation, color="C0", linewidth=1.0, label=label)
    if comparison.seeds is None and all(np.array_equal(each.step_losses, first.step_losses) for each in others):
        below.set_yticks([0.0])
    else:
        below.set_yscale("log")
    below.set_ylabel(f"difference from\n{printable(first.label)}", **AS_IT_IS)
    below.set_xlabel("step")
    _legend(below, markerscale=3.0)
    for panel in (above, below):
        panel.grid(alpha=0.25)
    return figure


def _width(n: int) -> int:
    """Return of how many neighbours a point is the mean, if there shall not be too many points."""
    return -(-n // MOST_POINTS)


def _means(values: NDArray[Any], width: int) -> NDArray[np.float64]:
    """Return the means, along the first axis, of ``width`` neighbours each; the last may be of fewer."""
    starts = np.arange(0, len(values), width)
    counts = np.diff(starts, append=len(values))
    return np.add.reduceat(values, starts) / counts.reshape(-1, *[1] * (values.ndim - 1))


def _logarithmic(panel: Axes) -> None:
    """Make the losses' axis logarithmic with plain numbers: 0.5 rather than 5 × 10⁻¹."""
    if not np.isfinite(panel.dataLim.minposy):
        return  # all losses are 0
    panel.set_yscale("log")
    low, high = panel.get_ylim()
    if high >= 10 * low:
        panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_formatter("{x:g}" if high < 10 * low else NullFormatter())


def _legend(panel: Axes, markerscale: float = 1.0) -> None:
    """Put the legend in a row above the panel, where it hides nothing."""
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 4}
    legend = panel.legend(**place, frameon=False, fontsize=8, markerscale=markerscale)
    for text in legend.get_texts():  # devices and backends have names of their makers'
        text.set(text=printable(text.get_text()), **AS_IT_IS)
