"""Small runs through the library in one process, for long, to see whether anything piles up.

    python scripts/soak.py --minutes 31

A round loads a table, records a training, stops it, goes on with it, verifies it, records replicas, opens the weights,
predicts, and fits and saves estimators, on every backend that is given, in native and in exact arithmetic. Printed
per minute: rounds, resident memory, open files, the system's threads. At the end memory must be within 5 % of what it
was after the first minute, with no more files open and no more threads.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import mlp_xp
from mlp_xp.cluster import KMeans
from mlp_xp.neural_network import MLPClassifier, load, save
from mlp_xp.verification import RecordedRun, verify

SETTINGS = mlp_xp.Settings(hidden_layer_sizes=(16,), batch_size=100, epochs=4, momentum=0.9)
EXACT = mlp_xp.Settings(hidden_layer_sizes=(16,), batch_size=100, epochs=4, arithmetic="exact", dropout=0.1)


class Usage(NamedTuple):
    """What a process has of its system's."""

    minute: float
    rounds: int
    mebibytes: float
    files: int
    threads: int


def measure(minute: float, rounds: int) -> Usage:
    """Return what this process has now, on Linux."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files, threads = (len(list(Path(f"/proc/self/{name}").iterdir())) for name in ("fd", "task"))
    return Usage(minute, rounds, pages * os.sysconf("SC_PAGE_SIZE") / 2**20, files, threads)


def run_round(data: mlp_xp.Split, backend: mlp_xp.Backend, folder: Path) -> None:
    """Use the library once as its users do."""
    np.savetxt(folder / "table.csv", data.train.features[:200], fmt="%d", delimiter=",")
    mlp_xp.load(folder / "table.csv", label_column=20)
    for settings in (SETTINGS, EXACT):
        run = folder / settings.arithmetic
        epochs = mlp_xp.record(run, settings, data, backend, mlp_xp.train(settings, data, backend))
        next(epochs)
        del epochs
        list(mlp_xp.resume(run, backend, data))
        list(verify(RecordedRun(run), data, backend))
        mlp_xp.load_model(run, backend).predict(data.test.features)
    many = mlp_xp.train_replicas(SETTINGS, data, backend, 2)
    list(mlp_xp.record_replicas(folder / "seeds", SETTINGS, data, backend, many, 2))
    features = backend.asarray(data.train.features[:300], "float32")
    classifier = MLPClassifier((8,), early_stopping=True, n_iter_no_change=2, random_state=0)
    classifier.fit(features, data.train.targets[:300])
    save(classifier, folder / "classifier.safetensors")
    load(folder / "classifier.safetensors").predict(data.test.features.astype(np.float32))
    KMeans(3, random_state=0, n_init=1).fit(features)


def main() -> int:
    """Print a line per minute; 1 if anything piled up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=31.0)
    parser.add_argument("--backends", default="numpy,jax")
    parser.add_argument("--json", type=Path, help="file for the table")
    options = parser.parse_args()
    if options.minutes < 2:
        parser.error("the first minute is what the rest is held against: give --minutes 2 at least")
    data = mlp_xp.load("digits").split()
    backends = [mlp_xp.open_backend(name) for name in options.backends.split(",")]
    rows: list[Usage] = []
    begin, rounds = time.monotonic(), 0
    print("minute  rounds  MiB  open files  threads", flush=True)
    while (minute := (time.monotonic() - begin) / 60) < options.minutes:
        if minute >= len(rows) + 1:
            rows.append(measure(round(minute, 2), rounds))
            print("  ".join(f"{value:g}" for value in rows[-1]), flush=True)
        for backend in backends:
            with tempfile.TemporaryDirectory() as folder:
                run_round(data, backend, Path(folder))
        rounds += 1
    rows.append(measure(round(minute, 2), rounds))
    first, last = rows[0], rows[-1]
    growth = last.mebibytes / first.mebibytes - 1
    files, threads = last.files - first.files, last.threads - first.threads
    per_round = 1024 * (last.mebibytes - first.mebibytes) / max(1, last.rounds - first.rounds)
    print(
        f"{rounds} rounds: memory {growth:+.1%}, {per_round:+.1f} KiB a round, files {files:+d}, threads {threads:+d}"
    )
    result: dict[str, Any] = {"backends": options.backends, "growth": growth, "rows": [row._asdict() for row in rows]}
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return int(growth > 0.05 or last.files > first.files or last.threads > first.threads)


if __name__ == "__main__":
    sys.exit(main())
