"""Speed, measured in one place: this project beside its peers, and beside the matrix products alone (the floor).

All contenders of a workload live in one process (or are processes) and take turns, so that whatever else the machine
does meets them all. A round in which libraries compile and warm up is not counted.

    python scripts/bench.py                                          # the lab, everyone who can run here
    python scripts/bench.py --workloads all --json bench.json --plot bench.png
    python scripts/bench.py --workloads lab,tiny --contenders numpy,jax,pytorch-eager --dtype float64
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import bench_workloads
from bench_evaluation import evaluate
from bench_fit import fit
from bench_growth import Growth, grow
from bench_plots import plot
from bench_processes import cold_start, memory
from bench_report import Report, Request
from bench_training import TRAINING, train, train_replicas
from bench_unsupervised import fit_kmeans, fit_pca
from mlp_xp.datasets import load
from mlp_xp.files import write_atomically
from mlp_xp.settings import DTYPES

WORKLOADS: dict[str, Callable[[Request], Report | Growth]] = {
    "lab": partial(train, bench_workloads.lab),
    "tiny": partial(train, bench_workloads.tiny),
    "wide": partial(train, bench_workloads.wide),
    "deep": partial(train, bench_workloads.deep),
    "evaluation": evaluate,
    "fit-digits": partial(fit, partial(load, "digits"), 100),
    "fit-mnist": partial(fit, bench_workloads.images, 5),
    "kmeans": partial(fit_kmeans, bench_workloads.images, (10, 100)),
    "pca": partial(fit_pca, bench_workloads.images, 50),
    "replicas": train_replicas,
    "growth": grow,
    "cold-start": cold_start,
    "memory": memory,
}
"""Name on the command line -> what measures it."""


BUSY = 0.5
"""A load above which figures mean little: threads that wait for each other wait for other processes, too."""


def machine() -> dict[str, Any]:
    """Return what computes here; devices and libraries are in the contenders' descriptions."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text(encoding="utf-8")) if cpuinfo.exists() else None
    cpu = model[1] if model else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    versions = {"system": platform.platform(), "python": platform.python_version()}
    return {"cpu": cpu, "cores": cores, **versions, "load_before": load}


def accelerators(reports: Sequence[Report | Growth]) -> list[str]:
    """Return the kinds of devices, besides the CPU, on which something was measured."""
    measured = [each for report in reports for each in (report.lines if isinstance(report, Growth) else report.results)]
    return sorted({str(each.description.get("device_kind", each.device)) for each in measured if each.device != "cpu"})


def names(text: str, known: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Return the names in a list with commas."""
    found = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in found:
        if name not in known:
            parser.error(f"unknown {name!r}; there are {', '.join(known)}")
    return found


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--workloads", default="lab", help=f"all, or among {', '.join(WORKLOADS)}; default: %(default)s"
    )
    parser.add_argument(
        "--contenders",
        help=f"among {', '.join(TRAINING)}; a workload takes those that it knows; default: those that suit it",
    )
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument("--rounds", type=int, help="turns of everyone that count; default: 7, of memory 3")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it as a PNG")
    options = parser.parse_args(arguments)
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds: at least 1")
    workloads = list(WORKLOADS) if options.workloads == "all" else names(options.workloads, list(WORKLOADS), parser)
    contenders = None if options.contenders is None else names(options.contenders, list(TRAINING), parser)

    here = machine()
    place = f"{here['cpu']}, {here['cores']} cores"
    print(place, flush=True)
    if (here["load_before"] or 0) > BUSY:
        print(f"note: the load is {here['load_before']:.1f}: whoever shares the cores slows some libraries far more")
    reports = []
    for name in workloads:
        reports.append(WORKLOADS[name](Request(options.dtype, contenders, options.rounds)))
        print(f"\n{reports[-1]}", flush=True)
    print("\nMedians of interleaved rounds; ratios are taken round by round.")
    if options.json:
        command = shlex.join(["scripts/bench.py", *arguments])
        content = {"command": command, "machine": here, "workloads": [report.to_dict() for report in reports]}
        write_atomically(options.json, f"{json.dumps(content, indent=1)}\n".encode())
    if options.plot:
        write_atomically(options.plot, plot(reports, ", ".join([place, *accelerators(reports)])))


if __name__ == "__main__":
    main(sys.argv[1:])
