"""Seconds per epoch: this project's backends beside PyTorch, and beside the matrix products alone (the floor).

All contenders live in one process and take turns, an epoch each, so that whatever else the machine does meets
them all. Evaluation is not measured, and a round in which libraries compile and warm up is not counted.

    python scripts/bench.py                                                  # everything that opens here
    python scripts/bench.py --contenders numpy,jax,pytorch-eager --dtype float64 --json bench.json --plot bench.png
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench_contenders import CONTENDERS, WORKLOADS, Contender, PyTorchEager, Workload
from mlp_xp.backend import list_backends
from mlp_xp.cli.table import format_table
from mlp_xp.errors import BackendUnavailable
from mlp_xp.files import write_atomically
from mlp_xp.plots import png
from mlp_xp.settings import DTYPES

PAUSE = 0.05  # seconds between turns: one library's idle threads stop spinning before the next one starts


def enter(names: Sequence[str], workload: Workload) -> tuple[list[Contender], dict[str, str]]:
    """Return the contenders that can run here, with a floor for every device, and the others' reasons."""
    contenders: dict[str, Contender] = {}
    left_out = {}
    for name in ("floor-numpy", *names):
        try:
            contenders[name] = CONTENDERS[name](workload)
        except (BackendUnavailable, ModuleNotFoundError) as error:
            left_out[name] = str(error)
            continue
        if name in list_backends() and contenders[name].device != "cpu":
            contenders[f"floor-{name}"] = CONTENDERS[f"floor-{name}"](workload)
    return list(contenders.values()), left_out


def interleave(contenders: Sequence[Contender], rounds: int) -> list[list[float]]:
    """Return each contender's seconds in every round after a first one that is not counted; the order alternates."""
    seconds: list[list[float]] = [[] for _ in contenders]
    turns = list(zip(contenders, seconds, strict=True))
    for number in range(rounds + 1):
        for contender, mine in turns if number % 2 else reversed(turns):
            time.sleep(PAUSE)
            start = time.perf_counter()
            contender.epoch(number)
            elapsed = time.perf_counter() - start
            if number > 0:
                mine.append(elapsed)
    return seconds


@dataclass(frozen=True)
class Result:
    """What one contender needed; the ratios are None where there is nothing to compare with."""

    contender: str
    device: str
    median: float
    least: float
    most: float
    to_floor: float | None
    to_pytorch: float | None
    seconds: list[float]
    description: dict[str, Any]


def ratio(seconds: Sequence[float], reference: Sequence[float] | None) -> float | None:
    """Return the median of the rounds' ratios: a slow moment of the machine meets both sides of each."""
    if reference is None:
        return None
    return statistics.median(mine / other for mine, other in zip(seconds, reference, strict=True))


def summarize(contenders: Sequence[Contender], seconds: Sequence[list[float]]) -> list[Result]:
    """Compare all with the fastest floor of their own device and with PyTorch eager; the fastest comes first."""
    floors: dict[str, list[float]] = {}
    pytorch = None
    for contender, mine in zip(contenders, seconds, strict=True):
        if contender.name.startswith("floor"):
            floors[contender.device] = min(floors.get(contender.device, mine), mine, key=statistics.median)
        elif contender.name == PyTorchEager.name:
            pytorch = mine
    results = []
    for contender, mine in zip(contenders, seconds, strict=True):
        ratios = ratio(mine, floors.get(contender.device)), ratio(mine, pytorch)
        spread = statistics.median(mine), min(mine), max(mine)
        results.append(Result(contender.name, contender.device, *spread, *ratios, mine, contender.description))
    return sorted(results, key=lambda result: result.median)


@dataclass(frozen=True)
class Report:
    """What a workload cost everyone who could take part, and why the others could not."""

    workload: Workload
    results: list[Result]
    left_out: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it; the data are named, not included."""
        return {
            "name": self.workload.name,
            "data": self.workload.data.name,
            "layer_sizes": self.workload.layer_sizes,
            "n_steps": self.workload.n_steps,
            "settings": self.workload.settings.to_dict(),
            "left_out": self.left_out,
            "results": [asdict(result) for result in self.results],
        }


def table(results: Sequence[Result]) -> str:
    """Return the results for people."""
    rows = []
    for r in results:
        ratios = ("-" if value is None else f"{value:.2f}" for value in (r.to_floor, r.to_pytorch))
        rows.append((r.contender, r.device, f"{r.median:.4f}", f"{r.least:.4f} - {r.most:.4f}", *ratios))
    return format_table(("contender", "device", "s per epoch", "min - max", "/ floor", "/ PyTorch eager"), rows)


def plot(reports: Sequence[Report], subtitle: str) -> bytes:
    """Return a picture: a panel per workload with a bar per contender, its spread and its ratio to the floor."""
    from matplotlib.figure import Figure

    lengths = [len(report.results) for report in reports]
    figure = Figure(figsize=(8.0, 1.2 * len(reports) + 0.45 * sum(lengths)), layout="constrained")
    panels = figure.subplots(len(reports), squeeze=False, height_ratios=lengths)[:, 0]
    for axes, report in zip(panels, reports, strict=True):
        for y, r in enumerate(report.results):
            color = {"floor": "0.75", "mlp_xp": "C0"}.get(r.contender.split()[0], "C1")
            spread = [[r.median - r.least], [r.most - r.median]]
            axes.barh(y, r.median, xerr=spread, color=color, ecolor="0.3", capsize=3)
            text = f"{r.median:#.3g} s" + ("" if r.to_floor is None else f" = {r.to_floor:.2f} × floor")
            axes.annotate(text, (r.most, y), (6, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(report.results)), [f"{r.contender} ({r.device})" for r in report.results])
        axes.set_xlim(0, 1.4 * max(r.most for r in report.results))
        axes.set_xlabel("seconds per epoch: median, least and most")
        axes.set_title(f"{report.workload}\n{subtitle}", fontsize=10)
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    return png(figure)


def machine() -> dict[str, Any]:
    """Return what computes here; devices and libraries are in the contenders' descriptions."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text(encoding="utf-8")) if cpuinfo.exists() else None
    cpu = model[1] if model else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": cpu, "cores": cores, "system": platform.platform(), "python": platform.python_version()}


def measure(workload: Workload, names: Sequence[str], rounds: int) -> Report:
    """Let contenders train a workload in turns, and print what came out."""
    print(workload, flush=True)
    contenders, left_out = enter(names, workload)
    for name, reason in left_out.items():
        print(f"left out: {name} ({reason})", flush=True)
    report = Report(workload, summarize(contenders, interleave(contenders, rounds)), left_out)
    print(table(report.results), flush=True)
    return report


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ",".join([*list_backends(), "pytorch-eager"])
    parser.add_argument("--contenders", default=names, help=f"among {', '.join(CONTENDERS)}; default: %(default)s")
    parser.add_argument("--workloads", default="lab", help=f"among {', '.join(WORKLOADS)}; default: %(default)s")
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument("--rounds", default=7, type=int, help="epochs that count, of each; default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it as a PNG")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    workloads, contenders = options.workloads.split(","), options.contenders.split(",")
    for name, known in [*((name, WORKLOADS) for name in workloads), *((name, CONTENDERS) for name in contenders)]:
        if name not in known:
            parser.error(f"unknown {name!r}; there are {', '.join(known)}")

    here = machine()
    place = f"{here['cpu']}, {here['cores']} cores"
    print(place, flush=True)
    reports = [measure(WORKLOADS[name](options.dtype), contenders, options.rounds) for name in workloads]
    print(f"Medians of {options.rounds} interleaved rounds; ratios are taken round by round.")
    if options.json:
        command = shlex.join(["scripts/bench.py", *arguments])
        content = {"command": command, "machine": here, "workloads": [report.to_dict() for report in reports]}
        write_atomically(options.json, f"{json.dumps(content, indent=1)}\n".encode())
    if options.plot:
        write_atomically(options.plot, plot(reports, place))


if __name__ == "__main__":
    main(sys.argv[1:])
