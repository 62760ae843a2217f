"""The picture of `mlp_xp.studies.gradients`: at the start above, through training below."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlp_xp.plots import put_title
from mlp_xp.studies.gradients import MITIGATIONS, PLAIN, STEEPEST
from mlp_xp.studies.gradients_report import Findings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = dict(zip((*STEEPEST, *MITIGATIONS), ("C3", "C4", "C7", "C0", "C2", "C1"), strict=True))


def draw_gradients(findings: Findings) -> Figure:
    """Draw the gradients of layers, depths and epochs, the accuracy, and the dead units."""
    figure = Figure(figsize=(13.0, 8.0), layout="constrained")
    panels = figure.subplots(2, 3)
    width = findings.networks[PLAIN].hidden_layer_sizes[0]
    title = f"Gradients of {findings.depth} hidden layers of {width} units: {findings.where}"
    put_title(figure, title, 11.0)
    _draw_bounds(panels[0, 0], findings)
    _draw_mitigations(panels[0, 1], findings)
    _draw_depths(panels[0, 2], findings)
    _draw_training(panels[1, 0], findings)
    _draw_accuracy(panels[1, 1], findings)
    _draw_dead(panels[1, 2], findings)
    for panel in panels.flat:
        panel.grid(alpha=0.25)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.title.set_fontsize(9.5)
    handles = panels[1, 0].get_lines()
    figure.legend(handles, [*findings.moments], loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _color(name: str) -> str:
    return COLORS[name.removeprefix(f"{PLAIN}, ")]


def _draw_bounds(panel: Axes, findings: Findings) -> None:
    """Every layer's gradient at the start, and what it cannot exceed."""
    for name in STEEPEST:
        flow = findings.moments[name][0].flow
        layers = np.arange(1, flow.norms.size + 1)
        panel.semilogy(layers, flow.norms, "o-", markersize=4, color=_color(name))
        if flow.bounds is not None:
            panel.semilogy(layers, flow.bounds, "--", linewidth=1.0, color=_color(name), alpha=0.7)
    panel.plot([], [], "--", color="0.4", linewidth=1.0, label="what its derivatives and weights allow at most")
    panel.legend(frameon=False, fontsize=8, loc="best")
    panel.set_title("At the start: the activation decides")
    panel.set_ylabel("norm of the weight's gradient")
    panel.set_xlabel("layer, from the input")


def _draw_mitigations(panel: Axes, findings: Findings) -> None:
    for name, moments in findings.moments.items():
        if moments and (name == PLAIN or name not in STEEPEST):
            flow = moments[0].flow
            panel.semilogy(np.arange(1, flow.norms.size + 1), flow.norms, "o-", markersize=4, color=_color(name))
    panel.set_title(f"At the start ({PLAIN}): what helps\n(pre-training: when it is over)")
    panel.set_ylabel("norm of the weight's gradient")
    panel.set_xlabel("layer, from the input")


def _draw_depths(panel: Axes, findings: Findings) -> None:
    for name, flows in findings.starts.items():
        depths = [depth for depth, _ in flows]
        panel.semilogy(depths, [flow.ratio for _, flow in flows], "o-", markersize=4, color=_color(name))
    reference = np.asarray(depths)
    decay = 0.25 ** (reference - reference[0]) * findings.starts[PLAIN][0][1].ratio
    panel.semilogy(reference, decay, ":", color="0.4", label="a quarter per layer")
    panel.legend(frameon=False, fontsize=8, loc="best")
    panel.set_title("At the start: the deeper, the smaller")
    panel.set_ylabel("first layer's gradient / last layer's")
    panel.set_xlabel("hidden layers")


def _draw_training(panel: Axes, findings: Findings) -> None:
    for name, moments in findings.moments.items():
        epochs = [moment.epoch for moment in moments]
        panel.semilogy(epochs, [moment.flow.ratio for moment in moments], "-", color=_color(name))
    panel.set_title("Through training")
    panel.set_ylabel("first layer's gradient / last layer's")
    panel.set_xlabel("epochs")


def _draw_accuracy(panel: Axes, findings: Findings) -> None:
    for name, moments in findings.moments.items():
        known = [(moment.epoch, 100.0 * moment.accuracy) for moment in moments if moment.accuracy is not None]
        panel.plot([epoch for epoch, _ in known], [percent for _, percent in known], "-", color=_color(name))
    panel.set_ylim(0.0, 100.0)
    panel.set_title("What is learnt")
    panel.set_ylabel("test accuracy [%]")
    panel.set_xlabel("epochs")


def _draw_dead(panel: Axes, findings: Findings) -> None:
    """ReLU's units that no row wakes, at the start and at the end."""
    start, end = (findings.moments["relu"][i].flow.dead for i in (0, -1))
    layers = np.arange(1, start.size + 1)
    panel.bar(layers - 0.2, start, 0.4, color="0.7", label="at the start")
    panel.bar(layers + 0.2, end, 0.4, color=_color("relu"), label="at the end")
    panel.set_ylim(0.0, max(1.0, 1.3 * max(start.max(), end.max())))
    panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    panel.legend(frameon=False, fontsize=8, loc="best")
    panel.set_title("ReLU: units that are 0 for every row")
    panel.set_ylabel(f"of {findings.networks['relu'].hidden_layer_sizes[0]} units")
    panel.set_xlabel("hidden layer, from the input")
