"""A folder of replicas: a run per seed like any other, and above them what they have in common."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import mlp_xp.run_writer
from mlp_xp.backend import Backend
from mlp_xp.datasets import Split
from mlp_xp.digests import digest_arrays
from mlp_xp.errors import RunError, SettingsError
from mlp_xp.recorded import load_model
from mlp_xp.replica_runs import record_replicas
from mlp_xp.replicas import ReplicatedEpoch, train_replicas
from mlp_xp.runs import record
from mlp_xp.settings import Settings
from mlp_xp.training import train
from mlp_xp.verification import RecordedRun, verify

SETTINGS = Settings(hidden_layer_sizes=(8,), momentum=0.5, batch_size=200, epochs=2, seed=3, arithmetic="exact")
RUN_FILES = {"run.json", "curve.jsonl", "steps.csv", "weights.safetensors", "loss.png"}
N = 2


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def make(folder: Path, data: Split, backend: Backend, n: int = N, **options: Any) -> list[ReplicatedEpoch]:
    epochs = train_replicas(SETTINGS, data, backend, n)
    return list(record_replicas(folder, SETTINGS, data, backend, epochs, n, **options))


def test_every_seed_has_a_run_of_its_own_that_is_the_one_it_makes_alone(
    backend: Backend, tmp_path: Path, digits: Split
) -> None:
    epochs = make(tmp_path / "many", digits, backend)
    assert names(tmp_path / "many") == {"replicas.json", "curve.jsonl", "loss.png", "seed-3", "seed-4"}
    for i, seed in enumerate((3, 4)):
        settings, run, alone = replace(SETTINGS, seed=seed), tmp_path / "many" / f"seed-{seed}", tmp_path / str(seed)
        list(record(alone, settings, digits, backend, train(settings, digits, backend)))
        assert names(alone) == RUN_FILES | {"checkpoints"}
        assert names(run) == names(alone) - {"loss.png"}, "the picture is that of all together"
        for name in ("steps.csv", "weights.safetensors"):
            assert (run / name).read_bytes() == (alone / name).read_bytes()
        name = "checkpoints/epoch-0001.safetensors"
        ours, theirs = (digest_arrays(safetensors.numpy.load_file(folder / name)) for folder in (run, alone))
        assert ours == theirs
        described, expected = (json.loads((folder / "run.json").read_text()) for folder in (run, alone))
        anew = {"created": "", "id": ""}
        assert described | anew == expected | anew | {"replicas": 2}
        expected = epochs[-1].replicas[i].model.predict(digits.test.features)
        np.testing.assert_array_equal(load_model(run, backend).predict(digits.test.features).values, expected.values)
        assert len(list(verify(RecordedRun(run), digits, backend))) == SETTINGS.epochs


def test_above_them_is_what_they_have_in_common(numpy_backend: Backend, tmp_path: Path, digits: Split) -> None:
    epochs = make(tmp_path, digits, numpy_backend)
    rows = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert rows == [epoch.row() for epoch in epochs]
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    above, below = (json.loads((tmp_path / name).read_text()) for name in ("replicas.json", "seed-3/run.json"))
    assert above.pop("seeds") == [3, 4]
    del below["sha256_start"]
    assert below.pop("replicas") == N
    assert above == below


def test_checkpoints_are_kept_as_often_as_asked(numpy_backend: Backend, tmp_path: Path, digits: Split) -> None:
    make(tmp_path, digits, numpy_backend, checkpoint_every=2)
    assert [path.name for path in tmp_path.glob("seed-*/checkpoints/*")] == ["epoch-0001.safetensors"] * N
    with pytest.raises(SettingsError, match="checkpoint_every = -1: must be a whole number ≥ 0"):
        make(tmp_path / "below", digits, numpy_backend, checkpoint_every=-1)
    assert not (tmp_path / "below").exists()


class Never(Iterator[ReplicatedEpoch]):
    """A training that must not begin."""

    def __next__(self) -> ReplicatedEpoch:
        raise AssertionError("training has begun")


@pytest.mark.parametrize("name", ["replicas.json", "curve.jsonl", "run.json", "seed-4/run.json", "seed-3/checkpoints"])
def test_a_folder_with_a_run_in_it_is_refused(name: str, tmp_path: Path, digits: Split, numpy_backend: Backend) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("precious")
    with pytest.raises(RunError, match=r"already holds a run; choose another --out, or replace it with --overwrite"):
        record_replicas(tmp_path, SETTINGS, digits, numpy_backend, Never(), N)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]


def test_more_seeds_than_can_be_read_again_are_refused(numpy_backend: Backend, tmp_path: Path, digits: Split) -> None:
    with pytest.raises(RunError, match=r"cannot hold 4,097 seeds, but 4,096; train fewer at once"):
        record_replicas(tmp_path / "many", SETTINGS, digits, numpy_backend, Never(), 4097)
    assert not (tmp_path / "many").exists()


def test_fewer_replicas_leave_nothing_of_more(numpy_backend: Backend, tmp_path: Path, digits: Split) -> None:
    make(tmp_path, digits, numpy_backend, 4)
    (tmp_path / "seed-6" / "notes.txt").touch()
    make(tmp_path, digits, numpy_backend, overwrite=True)
    assert names(tmp_path) == {"replicas.json", "curve.jsonl", "loss.png", "seed-3", "seed-4", "seed-6"}
    assert names(tmp_path / "seed-6") == {"notes.txt"}
    assert len((tmp_path / "curve.jsonl").read_text().splitlines()) == SETTINGS.epochs


def test_a_run_and_replicas_replace_one_another(numpy_backend: Backend, tmp_path: Path, digits: Split) -> None:
    make(tmp_path, digits, numpy_backend)
    epochs = train(SETTINGS, digits, numpy_backend)
    list(record(tmp_path, SETTINGS, digits, numpy_backend, epochs, overwrite=True, checkpoint_every=1))
    assert names(tmp_path) == RUN_FILES | {"checkpoints"}
    make(tmp_path, digits, numpy_backend, overwrite=True)
    assert names(tmp_path) == {"replicas.json", "curve.jsonl", "loss.png", "seed-3", "seed-4"}


def test_other_runs_beside_are_not_replicas(numpy_backend: Backend, tmp_path: Path, digits: Split) -> None:
    """A folder of a user's own naming stays, where no replicas were."""
    (tmp_path / "seed-9").mkdir()
    (tmp_path / "seed-9" / "run.json").write_text("precious")
    make(tmp_path, digits, numpy_backend, overwrite=True)
    assert (tmp_path / "seed-9" / "run.json").read_text() == "precious"


def test_another_run_that_is_called_like_a_replica_stays(numpy_backend: Backend, tmp_path: Path, digits: Split) -> None:
    make(tmp_path, digits, numpy_backend)
    list(record(tmp_path / "other", SETTINGS, digits, numpy_backend, train(SETTINGS, digits, numpy_backend)))
    (tmp_path / "other").rename(tmp_path / "seed-99")
    make(tmp_path, digits, numpy_backend, overwrite=True)
    assert names(tmp_path / "seed-99") == RUN_FILES | {"checkpoints"}


def test_a_replicas_folder_is_not_trained_into(numpy_backend: Backend, tmp_path: Path, digits: Split) -> None:
    make(tmp_path, digits, numpy_backend)
    for name in ("seed-3", "seed-99"):
        with pytest.raises(RunError, match=rf"{name} belongs to the replicas of {tmp_path}; choose another --out"):
            record(tmp_path / name, SETTINGS, digits, numpy_backend, [], overwrite=True)


def test_what_only_begins_like_a_replica_stays(numpy_backend: Backend, tmp_path: Path, digits: Split) -> None:
    make(tmp_path, digits, numpy_backend)
    shutil.copytree(tmp_path / "seed-3", tmp_path / "seed-3-best")
    before = {path.name: path.read_bytes() for path in (tmp_path / "seed-3-best").iterdir() if path.is_file()}
    make(tmp_path, digits, numpy_backend, overwrite=True)
    assert {p.name: p.read_bytes() for p in (tmp_path / "seed-3-best").iterdir() if p.is_file()} == before


def test_a_file_in_the_place_of_a_replica_is_seen_before_anything_is_written(
    numpy_backend: Backend, tmp_path: Path, digits: Split
) -> None:
    (tmp_path / "seed-4").write_text("precious")
    with pytest.raises(RunError, match="seed-4: cannot be written: it is a file, not a folder; choose another --out"):
        record_replicas(tmp_path, SETTINGS, digits, numpy_backend, Never(), N, overwrite=True)
    assert names(tmp_path) == {"seed-4"}


def test_old_replicas_stay_when_new_ones_cannot_begin(
    numpy_backend: Backend, tmp_path: Path, digits: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path, _content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    make(tmp_path, digits, numpy_backend)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(mlp_xp.run_writer, "write_atomically", full)
    with pytest.raises(RunError, match="cannot be written: No space left on device; choose another --out"):
        record_replicas(tmp_path, SETTINGS, digits, numpy_backend, Never(), N, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_was_saved_stays_when_training_stops(numpy_backend: Backend, tmp_path: Path, digits: Split) -> None:
    epochs = record_replicas(
        tmp_path, SETTINGS, digits, numpy_backend, train_replicas(SETTINGS, digits, numpy_backend, N), N
    )
    next(epochs)
    epochs.close()  # type: ignore[attr-defined]
    for folder in (tmp_path, tmp_path / "seed-3", tmp_path / "seed-4"):
        assert len((folder / "curve.jsonl").read_text().splitlines()) == 1
    assert (tmp_path / "loss.png").exists()


def test_who_takes_the_folder_for_a_run_is_told_where_the_runs_are(
    numpy_backend: Backend, tmp_path: Path, digits: Split
) -> None:
    make(tmp_path, digits, numpy_backend)
    with pytest.raises(RunError, match=r"holds a run per seed; give one of them, such as .*seed-3$"):
        load_model(tmp_path, numpy_backend)
