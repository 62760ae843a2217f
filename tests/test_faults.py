"""Every operation on a run's files is made to fail in turn: nothing saved is lost, and the error says what to do."""

from __future__ import annotations

import errno
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator
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
pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def digits() -> Split:
    return load("digits").split()


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


def hint(folder: Path) -> str:
    return f"go on with: mlp-xp train --resume {folder}"


def fail(name: str) -> None:
    raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))


def try_faults(
    folder: Path, work: Callable[[Path], None], error: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Path, str | None]]:
    """Do work again and again, each time with a fault at the next operation; yield its folder and what it said."""
    for at in itertools.count():
        failing, message = FaultyDisk(at, lambda: fail(error)), None
        monkeypatch.setattr(disk, "DISK", failing)
        try:
            work(folder / str(at))
        except RunError as caught:
            message = str(caught)
        finally:
            monkeypatch.setattr(disk, "DISK", disk.Disk())
        if at >= len(failing.operations):
            return
        yield folder / str(at), message


def check_message(message: str, folder: Path, error: str) -> None:
    assert re.match(rf"{folder}(/seed-.)?: cannot be written: {os.strerror(getattr(errno, error))}; ", message)
    check_readable(folder)
    if any(folder.rglob("checkpoints/[!.]*.safetensors")):
        assert message.endswith(f"; what it has learnt is kept; when that is mended, {hint(folder)}"), message
    else:
        assert re.search("; (choose another --out|it has no checkpoint yet .* train again, with --overwrite)$", message)


@pytest.mark.parametrize(("of_replicas", "n_points"), [(False, 82), (True, 175)], ids=["alone", "replicas"])
@pytest.mark.parametrize("error", ERRORS)
def test_after_any_fault_the_run_goes_on_to_the_same_bits(
    error: str,
    of_replicas: bool,
    n_points: int,
    tmp_path: Path,
    digits: Split,
    numpy_backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    *_, last = begin(tmp_path / "whole", digits, numpy_backend, of_replicas=of_replicas)

    def work(folder: Path) -> None:
        list(begin(folder, digits, numpy_backend, of_replicas=of_replicas))

    found = 0
    for folder, message in try_faults(tmp_path, work, error, monkeypatch):
        found += 1
        if message is not None:  # it may do without an operation that only tidies up
            check_message(message, folder, error)
        kept = last_checkpoint(folder)
        epochs = go_on(folder, digits, numpy_backend, of_replicas=of_replicas)
        assert [epoch.epoch for epoch in epochs] == list(range(kept + 1, 3))
        assert last_checkpoint(folder) == 2
        assert [chains(epoch) for epoch in epochs[-1:]] in ([chains(last)], [])
        assert (folder / "loss.png").read_bytes() == b"a picture"
        for path in (tmp_path / "whole").rglob("steps.csv"):
            assert (folder / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()
        check_readable(folder)
    assert found == n_points, "the README says how many"


def test_after_any_fault_in_going_on_it_goes_on_again(
    tmp_path: Path, digits: Split, numpy_backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, last = begin(tmp_path / "whole", digits, numpy_backend, of_replicas=False)
    epochs = begin(tmp_path / "begun", digits, numpy_backend, of_replicas=False)
    next(epochs)
    epochs.close()  # type: ignore[attr-defined]

    def work(folder: Path) -> None:
        shutil.copytree(tmp_path / "begun", folder)
        list(resume(folder, numpy_backend, digits))

    found = 0
    for folder, message in try_faults(tmp_path, work, "ENOSPC", monkeypatch):
        found += 1
        if message is not None and "it must be writable to go on" not in message:
            check_message(message, folder, "ENOSPC")
        kept = last_checkpoint(folder)
        assert kept >= 0, "a checkpoint is lost"
        again = list(resume(folder, numpy_backend, digits))
        assert [epoch.epoch for epoch in again] == list(range(kept + 1, 3))
        assert [chains(epoch) for epoch in again[-1:]] in ([chains(last)], [])
        check_readable(folder)
    assert found > 50
