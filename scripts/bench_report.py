"""What comes out of a benchmark's rounds: medians, spread and ratios, as a table for people and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from bench_rounds import Contender
from mlp_xp.cli.table import format_table


class Request(NamedTuple):
    """What the command line asks of a workload; None where it leaves the choice to the workload."""

    dtype: str
    names: Sequence[str] | None
    rounds: int | None

    def count(self, default: int = 7) -> int:
        """Return how many rounds count."""
        return default if self.rounds is None else self.rounds


class Unit(NamedTuple):
    """How numbers are shown to people: the unit's name, and its factor from what was measured."""

    name: str
    factor: float = 1.0


S_PER_EPOCH = Unit("s per epoch")


@dataclass(frozen=True)
class Result:
    """What one contender needed; a ratio is None where there is nothing to compare with.

    Attributes
    ----------
    to_floor, to_best_peer : float or None
        The ratio to the fastest floor of its device, and to the fastest contender from elsewhere.
    ratios : dict
        Name -> the ratio to that contender.
    values : list of float
        Every round's.
    """

    contender: str
    role: str
    device: str
    median: float
    least: float
    most: float
    to_floor: float | None
    to_best_peer: float | None
    ratios: dict[str, float]
    values: list[float]
    description: dict[str, Any]


def ratio(values: Sequence[float], reference: Sequence[float]) -> float:
    """Return the median of the rounds' ratios: a slow moment of the machine meets both sides of each."""
    return statistics.median(mine / other for mine, other in zip(values, reference, strict=True))


def summarize(contenders: Sequence[Contender], values: Mapping[str, list[float]]) -> list[Result]:
    """Compare everyone who was measured with everyone else; the fastest comes first."""
    medians = {name: statistics.median(mine) for name, mine in values.items()}
    measured = sorted((c for c in contenders if c.name in values), key=lambda c: medians[c.name])
    peers = [c.name for c in measured if c.role == "peer"]
    floors: dict[str, str] = {}
    for contender in measured:
        if contender.role == "floor":
            floors.setdefault(contender.device, contender.name)
    results = []
    for c in measured:
        mine = values[c.name]
        ratios = {other.name: ratio(mine, values[other.name]) for other in measured}
        floor, peer = c.against or floors.get(c.device), peers[0] if peers else None
        results.append(
            Result(
                contender=c.name,
                role=c.role,
                device=c.device,
                median=medians[c.name],
                least=min(mine),
                most=max(mine),
                to_floor=ratios.get(floor or ""),
                to_best_peer=ratios.get(peer or ""),
                ratios=ratios,
                values=mine,
                description=c.description,
            )
        )
    return results


@dataclass(frozen=True)
class Report:
    """What a workload cost everyone who could take part, and why the others could not.

    Attributes
    ----------
    title : str
        A line for people.
    details : dict
        What else decides the numbers, as JSON can hold it.
    measured : str
        The unit of the results.
    unit : Unit
        The unit in the table and the plot.
    reference : str
        What the first ratio is to.
    """

    name: str
    title: str
    results: list[Result]
    left_out: dict[str, str]
    details: dict[str, Any] = field(default_factory=dict)
    measured: str = "s"
    unit: Unit = S_PER_EPOCH
    reference: str = "floor"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return {
            "name": self.name,
            "title": self.title,
            **self.details,
            "unit": self.measured,
            "left_out": self.left_out,
            "results": [asdict(result) for result in self.results],
        }

    def __str__(self) -> str:
        """Return the report for people."""
        rows, n_ratios = [], 2 if any(r.role == "peer" for r in self.results) else 1
        for r in self.results:
            median, least, most = (readable(value * self.unit.factor) for value in (r.median, r.least, r.most))
            ratios = ["-" if value is None else f"{value:.2f}" for value in (r.to_floor, r.to_best_peer)]
            rows.append((r.contender, r.device, median, f"{least} - {most}", *ratios[:n_ratios]))
        header = ("contender", "device", self.unit.name, "min - max", f"/ {self.reference}", "/ best peer")[
            : 4 + n_ratios
        ]
        return "\n".join([self.title, *left_out_lines(self.left_out), format_table(header, rows)])


def readable(value: float) -> str:
    """Return a measured number with four digits, or with all of a large whole one."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:#.4g}"


def left_out_lines(left_out: Mapping[str, str]) -> list[str]:
    """Return a line for every reason why someone could not take part."""
    names: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        names.setdefault(reason, []).append(name)
    return [f"left out: {', '.join(those)} ({reason})" for reason, those in names.items()]
