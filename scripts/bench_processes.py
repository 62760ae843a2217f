"""Whole processes: from the start of `mlp-xp train` to its first line, and the memory that a training takes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from bench_report import Report, Request, Unit, summarize
from bench_rounds import Contender, interleave, own_measure
from bench_workloads import images
from mlp_xp.datasets import Dataset, load, mnist
from mlp_xp.errors import MLPXPError

MLP_XP = [sys.executable, "-m", "mlp_xp"]
IMPORTS = "import numpy, sklearn.datasets"
PEAK = (
    "import resource, subprocess, sys\n"
    "status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode\n"
    "if status: sys.exit(status)\n"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)
"""A process counts the memory of its parent until it has started, so the parent must be a small one."""


def output(command: Sequence[str]) -> str:
    """Run a process to its end and return what it printed."""
    result = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own commands
    if result.returncode:
        complaint = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise MLPXPError(f"{' '.join(command)[:80]} …: exit status {result.returncode}, {complaint}")
    return result.stdout


def seconds_to_end(command: Sequence[str]) -> float:
    """Return the time from a process's start to its end."""
    start = time.perf_counter()
    output(command)
    return time.perf_counter() - start


def seconds_to_first_line(command: Sequence[str]) -> float:
    """Return the time from a process's start to the first `#summary` that can be read from it."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:  # noqa: S603
        lines = process.stdout or ()
        elapsed = next((time.perf_counter() - start for line in lines if line.startswith("#summary")), None)
        for _ in lines:  # to the end, so that nothing of it runs during the next turn
            pass
    if elapsed is None or process.returncode:
        raise MLPXPError(f"{' '.join(command)}: no #summary, exit status {process.returncode}")
    return elapsed


def seconds_of_recorded_epoch(train: Sequence[str]) -> float:
    """Return what a run itself says that its first epoch took."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        seconds_to_end([*train, "--out", str(run)])
        first, *_ = (run / "curve.jsonl").read_text(encoding="utf-8").splitlines()
    return float(json.loads(first)["seconds"])


def cold_start(request: Request) -> Report:
    """Measure `mlp-xp train` on the embedded digits, beside the imports and the epoch that it cannot do without."""
    train = [*MLP_XP, "train", "--epochs", "1", "--dtype", request.dtype]

    def first_line(_: int) -> float:
        return seconds_to_first_line(train)

    def imports_and_epoch(_: int) -> float:
        return seconds_to_end([sys.executable, "-c", IMPORTS]) + seconds_of_recorded_epoch(train)

    def usage(_: int) -> float:
        return seconds_to_end([*MLP_XP, "--help"])

    contenders = [
        Contender("imports + epoch", "floor", "cpu", imports_and_epoch),
        Contender("mlp-xp train, first line", "project", "cpu", first_line),
        Contender("mlp-xp --help", "project", "cpu", usage),
    ]
    values, failed = interleave(contenders, request.count(), own_measure)
    return Report(
        name="cold-start",
        title=f"cold-start: a process's start to the first epoch's line, digits, NumPy, {request.dtype}",
        results=summarize(contenders, values),
        left_out=failed,
        details={"imports": IMPORTS},
        unit=Unit("s"),
        reference="imports + epoch",
    )


def peak_memory(command: Sequence[str]) -> float:
    """Return the most memory in MB (10⁶ bytes) that a process had at any time."""
    return int(output([sys.executable, "-c", PEAK, *command])) * (1 if sys.platform == "darwin" else 1024) / 1e6


def _peak(command: Sequence[str], _: int) -> float:
    return peak_memory(command)


def write_repeated(data: Dataset, times: int, folder: Path) -> str:
    """Write all rows so many times as a pair of IDX files and return what `--data` takes."""
    side = int(data.n_features**0.5)
    shape = times * data.n_samples, side, data.n_features // side
    paths = folder / f"{times}-images-idx3-ubyte", folder / f"{times}-labels-idx1-ubyte"
    labels = data.targets.astype(np.uint8)
    for path, rows, sizes in zip(paths, (data.features, labels), (shape, shape[:1]), strict=True):
        with path.open("wb") as file:
            # Two zeros, the type (8 for unsigned bytes), the number of axes, and their lengths.
            file.write(bytes([0, 0, 8, len(sizes)]) + np.asarray(sizes, ">u4").tobytes())
            for _ in range(times):
                file.write(np.ascontiguousarray(rows).data)
    return ",".join(map(str, paths))


def memory(request: Request, data: Dataset | None = None, times: Sequence[int] = (1, 10, 100)) -> Report:
    """Measure the peak of an epoch of the lab on MNIST, and on files that repeat its rows."""
    if data is None:
        data = load("mnist") if mnist.available() else images()
    n_bytes = data.n_samples * (data.n_features + 1)
    left_out: dict[str, str] = {}
    train = [*MLP_XP, "train", "--preset", "lab", "--epochs", "1", "--dtype", request.dtype, "--data"]
    with tempfile.TemporaryDirectory() as folder:
        commands = {"imports": [sys.executable, "-c", IMPORTS]}
        if mnist.available():
            commands["lab on MNIST"] = [*train, "mnist"]
        for n in times:
            name, free = f"{n} × {data.n_samples} rows in IDX files", shutil.disk_usage(folder).free
            if n * n_bytes + 1e9 > free:
                left_out[name] = f"needs {n * n_bytes / 1e9:.1f} GB and 1 GB to spare in {folder}; {free / 1e9:.1f} GB"
                continue
            commands[name] = [*train, write_repeated(data, n, Path(folder))]
        contenders = [
            Contender(name, "floor" if name == "imports" else "project", "cpu", partial(_peak, command))
            for name, command in commands.items()
        ]
        values, failed = interleave(contenders, request.count(3), own_measure)
    return Report(
        name="memory",
        title=f"memory: peak resident memory of a process that trains an epoch of the lab, NumPy, {request.dtype}",
        results=summarize(contenders, values),
        left_out=left_out | failed,
        details={"imports": IMPORTS, "rows": data.name, "bytes": {str(n): n * n_bytes for n in times}},
        measured="MB",
        unit=Unit("MB"),
        reference="imports",
    )
