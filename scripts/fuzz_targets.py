"""Every loader of files from strangers, as a function that one file's content is tried on.

A target writes the content where the loader looks for it and calls the loader. What may come of it is a result or one
of the project's own errors; anything else, or more than a second, or more memory than twice the file and 50 MB, is a
finding. Memory is what the kernel counts as the process's largest resident size while the loader ran, beyond what was
resident before.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import os
import shutil
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from matplotlib.figure import Figure

import mlp_xp
import mlp_xp.checkpoint_files
import mlp_xp.description
import mlp_xp.disk
import mlp_xp.resuming
import mlp_xp.trainer
from mlp_xp.checkpoint import Position
from mlp_xp.checkpoint_files import read_checkpoint
from mlp_xp.datasets import csv, idx, npy
from mlp_xp.datasets.targets import to_dataset
from mlp_xp.description import describe_work
from mlp_xp.errors import MLPXPError, TrainingInterrupted
from mlp_xp.neural_network import MLPClassifier, load, save
from mlp_xp.plots import put_title
from mlp_xp.recorded import load_model, read_description
from mlp_xp.replica_runs import record_replicas
from mlp_xp.resuming import RecordedTraining
from mlp_xp.verification import RecordedRun, check_files

MOST_SECONDS = 1.0
ALLOWANCE = 50e6
"""Bytes of memory beyond twice the file."""
PARTS = ("run.json", "curve.jsonl", "steps.csv", "weights.safetensors", "checkpoints/epoch-0001.safetensors")
CHECKPOINT = "checkpoints/interrupted-0-3-0.safetensors"
WHOLE, BETWEEN = "parts", b"\n==\n"
"""A file that holds these, one after another, and what is between them: of a run as a whole."""


class Target(NamedTuple):
    """A loader.

    Attributes
    ----------
    seeds : list of bytes
        Files that it can read.
    path : Path
        Where it looks.
    read : callable
    """

    seeds: list[bytes]
    path: Path
    read: Callable[[], object]


class Nowhere(mlp_xp.disk.Disk):
    """A disk that keeps nothing: a run on it goes on, and is then as it was."""

    def create(self, path: Path) -> int:  # noqa: ARG002 - whatever it is
        """Open what swallows all that is written to it."""
        return os.open(os.devnull, os.O_WRONLY)

    open_end = create

    def sync(self, descriptor: int) -> None:
        """Wait for nothing."""

    def rename(self, source: Path, target: Path) -> None:
        """Leave the old file."""

    def sync_folder(self, folder: Path) -> None:
        """Wait for nothing."""

    def remove(self, path: Path) -> None:
        """Leave the file."""

    def make_folder(self, folder: Path) -> None:
        """Make none."""


class Cost(NamedTuple):
    """Of a single file."""

    seconds: float
    memory: float


def make_targets(folder: Path) -> dict[str, Target]:
    """Return all targets by name; they work in a folder."""
    targets = {**_of_data(folder), **_of_runs(folder)}
    estimator = folder / "estimator.safetensors"
    targets["estimator"] = Target([_estimator(estimator)], estimator, lambda: load(estimator))
    return targets


def try_file(target: Target, content: bytes, *, most_seconds: float = MOST_SECONDS) -> tuple[Cost, str | None]:
    """Read a file, and return what that cost and what is wrong with it, if anything is."""
    target.path.write_bytes(content)
    before, begin, wrong = _resident(reset=True), time.perf_counter(), None
    try:
        target.read()
    except MLPXPError as error:
        if not str(error).strip():
            wrong = "an error without a word"
    except BaseException as error:
        wrong = f"{type(error).__module__}.{type(error).__qualname__}: {error}"
    cost = Cost(time.perf_counter() - begin, max(0, _resident() - before))
    if wrong is None and cost.seconds > most_seconds:
        wrong = f"{cost.seconds:.2f} s"
    if wrong is None and cost.memory > 2 * len(content) + ALLOWANCE:
        wrong = f"{cost.memory / 1e6:.0f} MB of memory for {len(content):,} bytes"
    return cost, wrong


def _resident(*, reset: bool = False) -> int:
    """Return the largest resident size since the last reset, in bytes, on Linux."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _of_data(folder: Path) -> dict[str, Target]:
    table = np.column_stack([np.arange(6) % 3, np.arange(18).reshape(6, 3) / 4])
    lines = "\n".join(",".join(map(str, row)) for row in table.tolist())
    bytes_only = np.arange(24, dtype=np.uint8).reshape(6, 4)
    tables = [table, table.astype(">f4"), np.asfortranarray(table), bytes_only, table > 1, table.astype(np.int64)]

    def data_set(kind: str, reader: Callable[[Path], object], seeds: list[bytes]) -> dict[str, Target]:
        path = folder / f"data.{kind}"
        return {kind: Target(seeds, path, lambda: to_dataset("fuzz", reader(path)))}  # type: ignore[arg-type]

    texts = [lines.encode(), f"label,a,b,c\n{lines}\n".encode(), b'"1",2\r\n0,3\r\n', b"0,1\n\n1,255\n0,1e5\n"]
    archives = [
        _saved(np.savez, x=table[:, 1:], y=table[:, 0]),
        _saved(np.savez_compressed, X=bytes_only, labels=[0, 1] * 3),
    ]
    images = [_idx(bytes_only, 0x08), _idx(table.astype(">f4"), 0x0D), _idx(bytes_only.reshape(6, 2, 2), 0x08)]
    labels = folder / "labels"
    labels.write_bytes(_idx(np.arange(6, dtype=np.uint8), 0x08))
    (folder / "images").write_bytes(images[0])
    return {
        **data_set("csv", csv.read, texts),
        **data_set("csv.gz", csv.read, [gzip.compress(text) for text in texts]),
        **data_set("npy", npy.read, [_saved(np.save, arr=each) for each in tables]),
        **data_set("npz", npy.read_archive, archives),
        **data_set("idx", partial(idx.read_pair, labels=labels), images),
        **data_set("idx.gz", partial(idx.read_pair, labels=labels), [gzip.compress(each) for each in images]),
        **data_set("labels", lambda path: idx.read_pair(folder / "images", labels=path), [labels.read_bytes()]),
    }


def _of_runs(folder: Path) -> dict[str, Target]:
    with mock.patch.object(mlp_xp.description, "secrets") as secrets:
        secrets.token_hex.return_value = "0" * 16  # a run's id: the corpus has files of the same one
        return _of_recorded(folder)


def _of_recorded(folder: Path) -> dict[str, Target]:
    backend, data = mlp_xp.open_backend("numpy"), mlp_xp.load("digits").split()
    settings = mlp_xp.Settings(hidden_layer_sizes=(2,), batch_size=700, epochs=2)
    small = replace(settings, batch_size=200)
    whole = folder / "whole"
    list(mlp_xp.record(whole, settings, data, backend, mlp_xp.train(settings, data, backend)))
    (whole / "loss.png").unlink()
    (whole / WHOLE).write_bytes(BETWEEN.join((whole / part).read_bytes() for part in PARTS))
    interrupted = folder / "interrupted"
    with contextlib.suppress(TrainingInterrupted), mock.patch.object(mlp_xp.trainer, "PIECE", 1):
        stop = iter([False, True]).__next__
        list(mlp_xp.record(interrupted, small, data, backend, mlp_xp.train(small, data, backend, stop=stop)))
    replicas = folder / "replicas"
    list(record_replicas(replicas, settings, data, backend, mlp_xp.train_replicas(settings, data, backend, 2), 2))

    def verify(run: Path) -> None:
        check_files(RecordedRun(run), data)

    def find_place(run: Path) -> None:
        RecordedTraining(run).release()

    work = describe_work(backend)  # once: it looks for all libraries that the process has loaded

    def go_on(run: Path) -> None:
        """Train an epoch more, and draw what a picture has of the run's description: the rest of it takes too long.

        So does an epoch of many steps, or a pre-training of many epochs, which a description may well ask for.
        """
        training, asked = RecordedTraining(run), itertools.count()
        try:
            with (
                mock.patch.object(mlp_xp.disk, "DISK", Nowhere()),
                mock.patch.object(mlp_xp.resuming, "describe_work", return_value=work),
                mock.patch.object(mlp_xp.trainer, "PIECE", 64 * mlp_xp.trainer.CALLS),
                mock.patch.multiple("mlp_xp.plots", **PICTURES),
            ):
                list(training.resume(data, backend, epochs=training.position.epoch + 1, stop=lambda: next(asked) > 3))
        finally:
            training.release()

    def read_parts(run: Path) -> None:
        contents = (run / WHOLE).read_bytes().split(BETWEEN)
        for part, content in zip_longest(PARTS, contents[: len(PARTS)]):
            if content is None:
                (run / part).unlink(missing_ok=True)
            else:
                (run / part).write_bytes(content)
        with contextlib.suppress(MLPXPError):
            verify(run)
        describe(run)

    def start(run: Path) -> None:
        """Train from a checkpoint, whose digests are taken on trust."""
        with mock.patch.object(mlp_xp.checkpoint_files, "_digests", return_value={}):
            checkpoint = read_checkpoint(run, Position(0, 3), read_description(run)["id"])
        with np.errstate(all="ignore"):
            list(mlp_xp.train(small, data, backend, start=checkpoint, on_divergence="rollback"))

    def describe(run: Path) -> None:
        load_model(run, backend)
        go_on(run)

    readers: dict[str, tuple[str, Callable[[Path], object]]] = {
        "run.json": ("run.json", describe),
        "curve.jsonl": ("curve.jsonl", verify),
        "steps.csv": ("steps.csv", verify),
        "weights": ("weights.safetensors", lambda run: load_model(run, backend)),
        "checkpoint": ("checkpoints/epoch-0001.safetensors", find_place),
        "replicas.json": ("replicas.json", go_on),
        "run": (WHOLE, read_parts),
        "interrupted": (CHECKPOINT, find_place),
        "start": (CHECKPOINT, start),
    }
    folders = {"replicas.json": replicas, "interrupted": interrupted, "start": interrupted}
    targets = {}
    for name, (file, reader) in readers.items():
        run = folder / f"run-{name}"
        shutil.copytree(folders.get(name, whole), run)
        targets[name] = Target([(run / file).read_bytes()], run / file, partial(reader, run))
    return targets


def _draw_title(_losses: object, _curve: object, title: str) -> Figure:
    figure = Figure(figsize=(1.0, 1.0))
    put_title(figure, title)
    figure.draw_without_rendering()
    return figure


PICTURES: dict[str, Any] = {
    **dict.fromkeys(("plot_run", "plot_replicas"), _draw_title),
    "png": lambda _: b"a picture",
}
"""Instead of those of `mlp_xp.plots`."""


def _estimator(path: Path) -> bytes:
    features = np.random.default_rng(0).normal(size=(40, 3))
    classifier = MLPClassifier((2,), max_iter=50, early_stopping=True, n_iter_no_change=1, random_state=0)
    save(classifier.fit(features, np.arange(40) % 2), path)
    return path.read_bytes()


def _saved(function: Callable[..., None], **arrays: object) -> bytes:
    buffer = io.BytesIO()
    function(buffer, **arrays)
    return buffer.getvalue()


def _idx(array: np.ndarray, kind: int) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.tobytes()
