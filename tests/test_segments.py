"""Rows in a file, trained on segment by segment: every bit is that of a training on the same rows in memory."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlp_xp.backend import Backend
from mlp_xp.cli import main
from mlp_xp.comparison import compare
from mlp_xp.datasets import Dataset, Split, load, load_features
from mlp_xp.errors import DataError
from mlp_xp.replicas import train_replicas
from mlp_xp.segments import DeviceRows, Segment, StoredRows, open_rows, split_order
from mlp_xp.settings import Settings
from mlp_xp.trainer import Trainer
from mlp_xp.training import train
from mlp_xp_numpy import NumPyBackend

SETTINGS = Settings(hidden_layer_sizes=(8,), momentum=0.9, batch_size=60, epochs=2)
# With dropout: the keys of a step's masks must stay with its rows, wherever a segment ends.
EXACT = replace(SETTINGS, arithmetic="exact", dtype="", dropout=0.3)
ARITHMETICS = {"native": SETTINGS, "exact": EXACT}


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the 23 steps of an epoch on the digits several segments, and so the chunks of an evaluation."""
    monkeypatch.setattr("mlp_xp.segments.BLOCK_BYTES", 15_000)
    monkeypatch.setattr("mlp_xp.datasets.stored.BLOCK_BYTES", 10_000)
    monkeypatch.setattr(Backend, "rows_at_once", 50)
    monkeypatch.setattr(NumPyBackend, "rows_at_once", 50)


def write(folder: Path, features: np.ndarray, targets: np.ndarray) -> Path:
    np.savez(folder / "t.npz", x=features, y=targets)
    return folder / "t.npz"


def both(path: Path, **options: Any) -> tuple[Split, Split]:
    """Return the same data in their file and in memory."""
    stored, in_memory = (load(path, largest_in_memory=limit, **options) for limit in (0, 1 << 30))
    assert (stored.is_stored, in_memory.is_stored) == (True, False)
    return stored.split(), in_memory.split()


def digits(folder: Path, dtype: str = "uint8") -> tuple[Split, Split]:
    data = load("digits")
    # Numbers of different sizes, the largest of which is in one row alone.
    features = data.features if dtype == "uint8" else (data.features / np.arange(1.0, 65.0) - 1.7).astype(dtype)
    if dtype != "uint8":
        features[np.random.default_rng(0).integers(1000), 3] = -77.7
    return both(write(folder, features, data.targets))


def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of steps of every segment of rows in a file."""
    lengths: list[int] = []
    segments = StoredRows.segments

    def counted(self: StoredRows, *arguments: Any) -> Any:
        segment: Segment
        for segment in segments(self, *arguments):
            lengths.append(segment[0].shape[0])
            yield segment

    monkeypatch.setattr(StoredRows, "segments", counted)
    return lengths


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_a_training_has_the_bits_of_one_in_memory(
    tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch, arithmetic: str, dtype: str
) -> None:
    stored, in_memory = digits(tmp_path, dtype)
    lengths = counting(monkeypatch)
    epochs, expected = (list(train(ARITHMETICS[arithmetic], data, backend)) for data in (stored, in_memory))
    assert len(lengths) > 2 * 8, "it was not read in segments"
    assert min(lengths) >= 2
    assert sum(lengths) == 2 * (1437 // 60 + 8)
    for ours, theirs in zip(epochs, expected, strict=True):
        assert ours.digests == theirs.digests
        np.testing.assert_array_equal(ours.step_losses, theirs.step_losses, strict=True)
    predicted, known = (epochs[-1].model.predict(data.test.features) for data in (stored, in_memory))
    np.testing.assert_array_equal(predicted.values, known.values, strict=True)
    np.testing.assert_array_equal(predicted.labels, known.labels, strict=True)


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_replicas_have_the_bits_of_those_in_memory(tmp_path: Path, backend: Backend, arithmetic: str) -> None:
    stored, in_memory = digits(tmp_path, "float32")
    epochs, expected = (list(train_replicas(ARITHMETICS[arithmetic], data, backend, 3)) for data in (stored, in_memory))
    for ours, theirs in zip(epochs, expected, strict=True):
        assert [one.digests for one in ours.replicas] == [one.digests for one in theirs.replicas]


def test_a_regression_has_the_bits_of_one_in_memory(tmp_path: Path, backend: Backend) -> None:
    features = np.random.default_rng(0).normal(size=(300, 3))
    np.save(tmp_path / "t.npy", np.column_stack([features.sum(axis=1), features]))
    stored, in_memory = both(tmp_path / "t.npy", regression=True)
    settings = Settings((), loss="squared_error", batch_size=20, epochs=2, dtype="float64")
    epochs, expected = (list(train(settings, data, backend)) for data in (stored, in_memory))
    assert [epoch.digests for epoch in epochs] == [epoch.digests for epoch in expected]


def test_what_goes_to_the_device_is_bounded(tmp_path: Path, backend: Backend) -> None:
    stored, in_memory = (data.train for data in digits(tmp_path))
    trainers = [Trainer(SETTINGS, data, backend) for data in (stored, in_memory)]
    rows, everything = (trainer.loop.rows for trainer in trainers)
    assert isinstance(rows, StoredRows)
    assert isinstance(everything, DeviceRows)
    order = np.random.default_rng(0).permutation(1437).astype(np.int32)[:1380].reshape(23, 60)
    segments = list(rows.segments(order))
    assert max(data.features.shape[0] * 64 for _, data in segments) <= 15_000
    found = [backend.to_host(data.features)[backend.to_host(numbers)] for numbers, data in segments]
    np.testing.assert_array_equal(np.concatenate(found), in_memory.features[order])
    found = [backend.to_host(data.targets)[backend.to_host(numbers)] for numbers, data in segments]
    np.testing.assert_array_equal(np.concatenate(found), in_memory.targets[order])
    ((numbers, data),) = everything.segments(order)
    assert data is everything.data
    np.testing.assert_array_equal(backend.to_host(numbers), order)


def test_a_device_that_works_by_itself_is_not_given_all_segments_at_once(
    tmp_path: Path, numpy_backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, waited = [0], [0]
    trainer = Trainer(SETTINGS, digits(tmp_path)[0].train, numpy_backend)
    scan, to_host = numpy_backend.scan, numpy_backend.to_host

    def counted_scan(*arguments: Any) -> Any:
        given[0] += 1
        assert given[0] - waited[0] <= 2
        return scan(*arguments)

    def counted_to_host(array: Any) -> Any:
        waited[0] += 1
        return to_host(array)

    monkeypatch.setattr(numpy_backend, "scan", counted_scan)
    monkeypatch.setattr(numpy_backend, "to_host", counted_to_host)
    trainer.run_epoch(0)
    assert given[0] > 2


def test_a_file_that_changes_stops_the_training(tmp_path: Path, numpy_backend: Backend) -> None:
    stored, _ = digits(tmp_path)
    epochs = train(SETTINGS, stored, numpy_backend)
    next(epochs)
    os.truncate(tmp_path / "t.npz", 50_000)
    with pytest.raises(DataError, match=r"t\.npz: has been changed or replaced since it was opened; leave it"):
        next(epochs)


@pytest.mark.parametrize("part", ["train", "test"])
def test_features_beyond_the_dtype_are_refused_at_once(tmp_path: Path, numpy_backend: Backend, part: str) -> None:
    features = np.random.default_rng(0).normal(size=(100, 5))
    order = np.random.RandomState(2020).permutation(100)
    features[order[50 if part == "train" else 5], 2] = 1e300
    stored, _ = both(write(tmp_path, features, np.arange(100) % 2))
    settings = replace(SETTINGS, batch_size=10)
    with pytest.raises(DataError, match=r"a feature \(column 2, .*1e\+300, which float32 cannot hold; use --dtype f"):
        train(settings, stored, numpy_backend)
    train(replace(settings, dtype="float64"), stored, numpy_backend)


def test_a_column_that_exact_arithmetic_erases_is_warned_of(tmp_path: Path, numpy_backend: Backend) -> None:
    features = np.random.default_rng(0).uniform(size=(40, 3))
    features[:, 2] = 2.0**30 * np.arange(40)
    settings, texts = replace(ARITHMETICS["exact"], batch_size=8), []
    for data in both(write(tmp_path, features, np.arange(40) % 2)):
        with pytest.warns(UserWarning, match=r"t\.npz: column 0, .* varies by 0\.\d+.*standardise") as caught:
            train(settings, data, numpy_backend)
        texts.append(str(caught[0].message))
    assert texts[0] == texts[1]


def test_a_run_on_a_file_is_recorded_and_verified_as_one_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, options = write(tmp_path, load("digits").features, load("digits").targets), ["--hidden", "8", "--epochs", "2"]
    runs = [tmp_path / "stored", tmp_path / "in memory"]

    def limit(largest: int) -> None:
        monkeypatch.setattr("mlp_xp.datasets.source.load", partial(load, largest_in_memory=largest))

    for run, largest in zip(runs, (0, 1 << 30), strict=True):
        limit(largest)
        arguments = ["train", "--data", str(path), "--arithmetic", "exact", "--out", str(run), *options]
        assert main(arguments) == 0
    descriptions = [json.loads((run / "run.json").read_text()) for run in runs]
    for name in ("settings", "data", "sha256_start"):
        assert descriptions[0][name] == descriptions[1][name]
    for name in ("steps.csv", "weights.safetensors"):
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes()
    assert main(["verify", str(runs[0])]) == 0
    tables = [tmp_path / "stored.csv", tmp_path / "in memory.csv"]
    for table, largest in zip(tables, (0, 1 << 30), strict=True):
        monkeypatch.setattr("mlp_xp.cli.predict.load_features", partial(load_features, largest_in_memory=largest))
        assert main(["predict", str(runs[0]), "--input", str(path), "--output", str(table)]) == 0
    assert tables[0].read_bytes() == tables[1].read_bytes()
    limit(0)
    assert main(["verify", str(runs[1]), "--epochs", "1"]) == 0


def test_backends_are_compared_on_a_file_that_is_digested_once(
    tmp_path: Path, numpy_backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, _ = digits(tmp_path)
    computed = []
    compute = Dataset._compute_digest
    monkeypatch.setattr(Dataset, "_compute_digest", lambda self: computed.append(self) or compute(self))  # type: ignore[func-returns-value]
    comparison = compare(SETTINGS, stored, [numpy_backend, numpy_backend], replicas=2)
    assert comparison.within_tolerance
    assert computed == [stored.train, stored.test]


def test_rows_in_memory_are_copied_once(numpy_backend: Backend) -> None:
    data = load("digits")
    rows = open_rows(data, numpy_backend, "float32", Trainer(SETTINGS, data, numpy_backend).arithmetic)
    (_, first), (_, second) = (next(iter(rows.segments(np.zeros((1, 2), np.int32)))) for _ in range(2))
    assert first.features is second.features


def test_pieces_begin_where_they_would_whichever_step_is_first() -> None:
    order = np.arange(14, dtype=np.int32)[:, None]
    lengths = {first: [len(piece) for piece in split_order(order, 5, first)] for first in (0, 3, 5, 9, 10, 13, 14)}
    assert lengths == {0: [5, 5, 4], 3: [2, 5, 4], 5: [5, 4], 9: [1, 4], 10: [4], 13: [1], 14: []}
    for first in lengths:
        np.testing.assert_array_equal(np.concatenate([order[:0], *split_order(order, 5, first)]), order[first:])
    assert [len(piece) for piece in split_order(order, 1, 0)] == [2] * 7
    assert [len(piece) for piece in split_order(order[:1], 5, 0)] == [1]
