"""How the time of a step grows with the batch, the width, the depth and the rows, and with which exponent."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from bench_report import Request, left_out_lines, readable
from bench_rounds import chosen, enter, interleave
from bench_training import TRAINING
from bench_workloads import Workload, random_rows
from mlp_xp.cli.table import format_table
from mlp_xp.settings import PRESETS

AXES: dict[str, tuple[int, ...]] = {
    "batch": (25, 50, 100, 200, 400, 800, 1600),
    "width": (32, 64, 128, 256, 512, 1024),
    "depth": (1, 2, 4, 8, 16),
    "rows": (3_200, 6_400, 12_800, 25_600, 51_200),
}
"""What grows, and its sizes; the rest is as in the lab, with 3,200 rows (and 6,400 where the batch grows)."""


def point(axis: str, size: int, dtype: str) -> Workload:
    """Return the workload at one size."""
    depth, width = size if axis == "depth" else 2, size if axis == "width" else 256
    settings = replace(PRESETS["lab"], hidden_layer_sizes=(width,) * depth, dtype=dtype)
    if axis == "batch":
        settings = replace(settings, batch_size=size)
    rows = size if axis == "rows" else 2 * 3_200 if axis == "batch" else 3_200
    return Workload(f"{axis} {size}", settings, random_rows(rows, 784, 10), per_step=True)


@dataclass(frozen=True)
class Line:
    """Seconds per step of one contender along one axis.

    Attributes
    ----------
    sizes : list of int
    medians : list of float
        One per size.
    exponent : float
        b in time = a · sizeᵇ, fitted to all sizes.
    values : list of list of float
        Every round's, one list per size.
    """

    axis: str
    contender: str
    device: str
    sizes: list[int]
    medians: list[float]
    exponent: float
    values: list[list[float]]
    description: dict[str, Any]


def exponent(sizes: Sequence[float], times: Sequence[float]) -> float:
    """Return the slope of the line that fits the logarithms best, in the sense of least squares."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


@dataclass(frozen=True)
class Growth:
    """All lines, and why others are missing."""

    title: str
    lines: list[Line]
    left_out: dict[str, str]
    name: str = "growth"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {**asdict(self), "unit": "s per step"}

    def __str__(self) -> str:
        """Return a table for each axis: microseconds per step at every size, and the exponent."""
        parts = [self.title, *left_out_lines(self.left_out)]
        for axis in dict.fromkeys(line.axis for line in self.lines):
            lines = [line for line in self.lines if line.axis == axis]
            all_sizes = sorted({size for line in lines for size in line.sizes})
            rows = []
            for line in lines:
                times = {size: readable(1e6 * t) for size, t in zip(line.sizes, line.medians, strict=True)}
                cells = [times.get(size, "-") for size in all_sizes]
                rows.append((line.contender, line.device, *cells, f"{line.exponent:.2f}"))
            header = ("us per step", "device", *(f"{axis} {size}" for size in all_sizes), "exponent")
            parts.append(format_table(header, rows))
        return "\n".join(parts)


def grow(request: Request, axes: Mapping[str, Sequence[int]] | None = None) -> Growth:
    """Measure every axis; all contenders at all its sizes take turns."""
    names = chosen(request.names, TRAINING, ["numpy", "jax", "pytorch-eager"])
    names = [name for name in names if not name.startswith("floor-") or name in (request.names or ())]
    lines: list[Line] = []
    left_out: dict[str, str] = {}
    for axis, sizes in (AXES if axes is None else axes).items():
        lines += _along(axis, sizes, names, request, left_out)
    title = f"growth: the lab's network and others, {request.dtype}, on random bytes"
    return Growth(title, lines, left_out)


def _along(
    axis: str, sizes: Sequence[int], names: Sequence[str], request: Request, left_out: dict[str, str]
) -> list[Line]:
    """Return the lines of one axis, and note who is left out."""
    contenders, steps = {}, {}
    for size in sizes:
        workload = point(axis, size, request.dtype)
        entered, missing = enter(names, TRAINING, workload)
        left_out |= missing
        steps[size] = workload.n_steps
        for contender in entered:
            contenders[contender.name, size] = replace(contender, name=f"{contender.name}, {axis} {size}")
    measured, failed = interleave(list(contenders.values()), request.count())
    left_out |= failed
    lines = []
    for name in dict.fromkeys(name for name, _ in contenders):
        values = {
            size: [value / steps[size] for value in measured[contenders[name, size].name]]
            for size in sizes
            if (name, size) in contenders and contenders[name, size].name in measured
        }
        medians = [statistics.median(each) for each in values.values()]
        if len(values) > 1:
            one, slope, each = (
                contenders[name, next(iter(values))],
                exponent(list(values), medians),
                list(values.values()),
            )
            lines.append(Line(axis, name, one.device, list(values), medians, slope, each, one.description))
    return lines
