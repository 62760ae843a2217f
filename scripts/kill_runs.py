"""Kill a recorded training again and again, go on each time, and see that it ends in the same bits.

    python scripts/kill_runs.py --kills 240

For each of NumPy and JAX, in native and in exact arithmetic: a training is begun in a process of its own, which is
ended by SIGKILL, every other time at a random moment after it has begun to write, and every other time at a random one
of its operations on files (of a write, half is done by then). `mlp-xp train --resume` goes on and is killed in its
turn, until a process comes to the end. After every kill all files that are replaced as a whole must be whole; at the
end the last epoch's digest, the losses and the weights must be those of the training that was never stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.numpy

from faults import FaultyDisk
from mlp_xp import disk
from mlp_xp.cli import main as mlp_xp
from mlp_xp.recorded import count_lines

SETTINGS = "--hidden 32 --epochs 60 --momentum 0.9 --dropout 0.1 --batch-size 100 --keep-checkpoints 2"
COMPARED = ("steps.csv", "weights.safetensors")


class Trial(NamedTuple):
    """What became of the trainings of a backend in an arithmetic.

    Attributes
    ----------
    backend, arithmetic : str
    kills_at_moments, kills_at_operations : int
    between_epochs : int
        Kills after the first epoch's line and before the last one's.
    unfinished_files : int
        That kills left beside those they were to replace.
    trainings : int
        That came to their end.
    unequal : int
        Of these.
    unreadable : int
        Files that a kill left neither old nor new.
    """

    backend: str
    arithmetic: str
    kills_at_moments: int
    kills_at_operations: int
    between_epochs: int
    unfinished_files: int
    trainings: int
    unequal: int
    unreadable: int


def child(at: int, arguments: Sequence[str]) -> int:
    """Run ``mlp-xp`` and end it by SIGKILL at an operation on files."""
    disk.DISK = FaultyDisk(at, lambda: os.kill(os.getpid(), signal.SIGKILL))
    return mlp_xp(arguments)


def last_chain(folder: Path) -> str:
    """Return the last epoch's digest of all that was."""
    line = (folder / "curve.jsonl").read_text().splitlines()[-1]
    chain: str = json.loads(line)["sha256_chain"]
    return chain


def count_unreadable(folder: Path) -> int:
    """Return how many files of tensors and of JSON are not whole."""
    unreadable = 0
    for path in folder.rglob("[!.]*.json"):
        try:
            json.loads(path.read_text())
        except ValueError as error:
            print(f"{path}: {error}", file=sys.stderr)
            unreadable += 1
    for path in folder.rglob("[!.]*.safetensors"):
        try:
            safetensors.numpy.load_file(path)
        except safetensors.SafetensorError as error:
            print(f"{path}: {error}", file=sys.stderr)
            unreadable += 1
    return unreadable


def written(run: Path) -> int:
    """Return when a run's description was written last, in nanoseconds; 0 if it is not there."""
    try:
        return (run / "run.json").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def run_once(arguments: list[str], run: Path, seconds: float | None, at: int | None) -> tuple[int, float]:
    """Run a training that is killed some seconds after it has begun to write, or at an operation, or not at all.

    Returns
    -------
    int
        Its exit code.
    float
        The seconds from when it began to write.
    """
    command = [sys.executable, "-m", "mlp_xp"] if at is None else [sys.executable, __file__, "--child", str(at), "--"]
    before = written(run)
    with subprocess.Popen(  # noqa: S603 - this project
        [*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        while process.poll() is None and written(run) == before:
            time.sleep(0.001)
        begin = time.perf_counter()
        try:
            _, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}: {errors.decode()}")
    return process.returncode, time.perf_counter() - begin


def try_training(backend: str, arithmetic: str, kills: int, folder: Path, chance: random.Random) -> Trial:
    """Kill trainings until there were enough kills."""
    settings = [*SETTINGS.split(), "--backend", backend, "--arithmetic", arithmetic]
    whole, run = folder / "whole", folder / "run"
    _, duration = run_once(["train", *settings, "--out", str(whole)], whole, None, None)
    counts = dict.fromkeys(("kills_at_moments", "kills_at_operations", *Trial._fields[4:]), 0)
    while counts["kills_at_moments"] + counts["kills_at_operations"] < kills or run.exists():
        is_there = (run / "run.json").exists()
        arguments = ["train", "--resume", str(run)] if is_there else ["train", *settings, "--out", str(run)]
        enough = counts["kills_at_moments"] + counts["kills_at_operations"] >= kills
        at_operation = not enough and counts["kills_at_operations"] <= counts["kills_at_moments"]
        seconds = None if enough or at_operation else chance.uniform(0.0, duration)
        at = chance.randrange(1000) if at_operation else None
        left = set(run.rglob(".*.mlp_xp"))
        code, _ = run_once(arguments, run, seconds, at)
        if code != 0:
            counts["kills_at_operations" if at_operation else "kills_at_moments"] += 1
            counts["between_epochs"] += 0 < count_lines(run / "curve.jsonl") < count_lines(whole / "curve.jsonl")
            counts["unfinished_files"] += len(set(run.rglob(".*.mlp_xp")) - left)
            counts["unreadable"] += count_unreadable(run)
        else:
            counts["trainings"] += 1
            equal = last_chain(run) == last_chain(whole) and all(
                (run / name).read_bytes() == (whole / name).read_bytes() for name in COMPARED
            )
            counts["unequal"] += not equal
            shutil.rmtree(run)
    return Trial(backend, arithmetic, **counts)


def main() -> int:
    """Print a row per backend and arithmetic; 1 if any training went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=240, help="of all trainings together; default 240")
    parser.add_argument("--backends", default="numpy,jax")
    parser.add_argument("--arithmetics", default="native,exact")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the table")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        return child(options.child, options.arguments)
    pairs = [(b, a) for b in options.backends.split(",") for a in options.arithmetics.split(",")]
    chance, rows = random.Random(options.seed), []  # noqa: S311 - moments, no secrets
    print("  ".join(name.replace("_", " ") for name in Trial._fields))
    for backend, arithmetic in pairs:
        with tempfile.TemporaryDirectory() as folder:
            row = try_training(backend, arithmetic, -(-options.kills // len(pairs)), Path(folder), chance)
        print("  ".join(str(value).ljust(len(name)) for name, value in row._asdict().items()), flush=True)
        rows.append(row)
    result: dict[str, Any] = {"settings": SETTINGS, "seed": options.seed, "rows": [row._asdict() for row in rows]}
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return int(any(row.unequal or row.unreadable for row in rows))


if __name__ == "__main__":
    sys.exit(main())
