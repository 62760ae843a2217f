"""The pictures: bars for every workload, lines for growth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from bench_growth import Growth
from bench_report import Report, readable
from mlp_xp.plots import png

COLORS = {"floor": "0.75", "project": "C0", "peer": "C1"}
MARKERS = "os^Dvx*+"


def plot(reports: Sequence[Report | Growth], subtitle: str) -> bytes:
    """Return a picture with a part for every report that has something to show."""
    drawn = [report for report in reports if (report.lines if isinstance(report, Growth) else report.results)]
    heights = [5.6 if isinstance(report, Growth) else 1.2 + 0.36 * len(report.results) for report in drawn]
    figure = Figure(figsize=(9.0, max(sum(heights), 1.0)), layout="constrained")
    if drawn:
        parts = figure.subfigures(len(drawn), squeeze=False, height_ratios=heights)[:, 0]
        for part, report in zip(parts, drawn, strict=True):
            part.suptitle(f"{report.title}\n{subtitle}", fontsize=9)
            if isinstance(report, Growth):
                _lines(part, report)
            else:
                _bars(part, report)
    return png(figure)


def _bars(part: Any, report: Report) -> None:
    """Draw a bar per contender, with its spread and its ratio to the reference."""
    axes = part.subplots()
    factor = report.unit.factor
    for y, r in enumerate(report.results):
        median, least, most = r.median * factor, r.least * factor, r.most * factor
        spread = [[median - least], [most - median]]
        axes.barh(y, median, xerr=spread, color=COLORS[r.role], ecolor="0.3", capsize=3)
        text = readable(median) + ("" if r.to_floor is None else f" = {r.to_floor:.2f} × {report.reference}")
        axes.annotate(text, (most, y), (6, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(report.results)), [f"{r.contender} ({r.device})" for r in report.results], fontsize=8)
    axes.set_xlim(0, 1.4 * factor * max(r.most for r in report.results))
    axes.set_xlabel(f"{report.unit.name}: median, least and most", fontsize=8)
    axes.margins(y=0.02)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)


def _lines(part: Any, report: Growth) -> None:
    """Draw a panel per axis, logarithmic in both directions, where an exponent is a slope."""
    names = list(dict.fromkeys(line.contender for line in report.lines))
    axes_names = list(dict.fromkeys(line.axis for line in report.lines))
    panels = part.subplots(2, -(-len(axes_names) // 2), squeeze=False).ravel()
    for panel in panels[len(axes_names) :]:
        panel.set_visible(False)
    for panel, axis in zip(panels, axes_names, strict=False):
        for line in (line for line in report.lines if line.axis == axis):
            i = names.index(line.contender)
            times = [1e6 * median for median in line.medians]
            label = f"{line.contender}: exponent {line.exponent:.2f}"
            panel.loglog(line.sizes, times, f"{MARKERS[i % len(MARKERS)]}-", color=f"C{i}", markersize=4, label=label)
        sizes = sorted({size for line in report.lines if line.axis == axis for size in line.sizes})
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=7)
        panel.set_xticks([], minor=True)
        panel.set_xlabel(axis, fontsize=8)
        panel.set_ylabel("us per step", fontsize=8)
        panel.grid(alpha=0.25)
        panel.legend(fontsize=7, frameon=False)
