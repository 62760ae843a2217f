"""Every operation on a run's files is made to fail in turn: nothing saved is lost, and the error says what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.numpy

from faults import FaultyDisk
from mlp_xp import disk
from mlp_xp.backend import Backend
from mlp_xp.datasets import Split, load
from mlp_xp.errors import RunError
from mlp_xp.replica_runs import record_replicas
from mlp_xp.replicas import ReplicatedEpoch, train_replicas
from mlp_xp.resuming import resume
from mlp_xp.runs import record
from mlp_xp.settings import Settings
from mlp_xp.training import Epoch, train

SETTINGS = Settings(hidden_layer_sizes=(3,), batch_size=400, epochs=3, momentum=0.5)
ERRORS = ("ENOSPC", "EIO", "EACCES")
N = 2


@pytest.fixture(scope="module")
def digits() -> Split:
    return load("digits").split()


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than all the rest."""
    for name in ("plot_run", "plot_replicas"):
        monkeypatch.setattr(f"mlp_xp.plots.{name}", lambda *_: None)
    monkeypatch.setattr("mlp_xp.plots.png", lambda _: b"a picture")


def begin(folder: Path, data: Split, backend: Backend, *, of_replicas: bool) -> Iterator[Epoch | ReplicatedEpoch]:
    """Return a training of two sparse checkpoints and of pruning, recorded."""
    if of_replicas:
        many = train_replicas(SETTINGS, data, backend, N)
        return record_replicas(folder, SETTINGS, data, backend, many, N, keep_checkpoints=1)
    return record(folder, SETTINGS, data, backend, train(SETTINGS, data, backend), keep_checkpoints=1)


def chains(epoch: Epoch | ReplicatedEpoch) -> list[str]:
    each = epoch.replicas if isinstance(epoch, ReplicatedEpoch) else (epoch,)
    return [one.digests.chain for one in each]


def go_on(folder: Path, data: Split, backend: Backend, *, of_replicas: bool) -> list[Epoch | ReplicatedEpoch]:
    """Go on with a run, or begin it if it is not there."""
    if any((folder / name).exists() for name in ("run.json", "replicas.json")):
        return list(resume(folder, backend, data))
    return list(begin(folder, data, backend, of_replicas=of_replicas))


def check_readable(folder: Path) -> int:
    """See that no file of tensors is half written, and return how many there are."""
    paths = list(folder.rglob("[!.]*.safetensors"))
    for path in paths:
        safetensors.numpy.load_file(path)
    return len(paths)


def last_checkpoint(folder: Path) -> int:
    """Return the last epoch of which every network has a checkpoint; -1 if there is none."""
    folders = list(folder.glob("seed-*")) or [folder]
    epochs = [{int(path.name[6:10]) for path in each.glob("checkpoints/epoch-*.safetensors")} for each in folders]
    return max(set.intersection(*epochs), default=-1) if len(folders) in (1, N) else -1


def fail(name: str) -> None:
    raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))


@pytest.mark.parametrize("of_replicas", [False, True], ids=["alone", "replicas"])
@pytest.mark.parametrize("error", ERRORS)
def test_after_any_fault_the_run_goes_on_to_the_same_bits(
    error: str,
    of_replicas: bool,
    tmp_path: Path,
    digits: Split,
    numpy_backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    *_, last = begin(tmp_path / "whole", digits, numpy_backend, of_replicas=of_replicas)
    at = 0
    while True:
        folder = tmp_path / str(at)
        failing = FaultyDisk(at, lambda: fail(error))
        monkeypatch.setattr(disk, "DISK", failing)
        try:
            list(begin(folder, digits, numpy_backend, of_replicas=of_replicas))
        except RunError as caught:
            assert f": cannot be written: {os.strerror(getattr(errno, error))}; " in str(caught), failing.operations[at]
            assert str(folder) in str(caught)
            if check_readable(folder):
                assert f"go on with: mlp-xp train --resume {folder}" in str(caught), failing.operations[at]
        monkeypatch.setattr(disk, "DISK", disk.Disk())
        if at >= len(failing.operations):
            break
        last_kept = last_checkpoint(folder)
        epochs = go_on(folder, digits, numpy_backend, of_replicas=of_replicas)
        assert [epoch.epoch for epoch in epochs] == list(range(last_kept + 1, 3)), failing.operations[at]
        assert last_checkpoint(folder) == 2
        if epochs:
            assert chains(epochs[-1]) == chains(last), failing.operations[at]
        assert (folder / "loss.png").read_bytes() == b"a picture"
        check_readable(folder)
        at += 1
    print(f"{at} points")
    assert at > 80
