"""Every operation on a run's files is made to fail in turn: nothing saved is lost, and the error says what to do."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

import mlp_xp.trainer
from faults import FaultyDisk
from mlp_xp import disk
from mlp_xp.backend import Backend
from mlp_xp.datasets import Split
from mlp_xp.errors import RunError, TrainingInterrupted
from mlp_xp.replica_runs import record_replicas
from mlp_xp.replicas import ReplicatedEpoch, train_replicas
from mlp_xp.resuming import resume
from mlp_xp.runs import record
from mlp_xp.settings import Settings
from mlp_xp.training import Epoch, train

SETTINGS = Settings(hidden_layer_sizes=(3,), batch_size=280, epochs=3, momentum=0.5)
N = 2
TIDY = ("remove .lock",)
"""What may fail without a word: what it leaves keeps nobody out."""
pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch of 5 steps has pieces of 3 and 2."""
    monkeypatch.setattr(mlp_xp.trainer, "PIECE", 1)


@dataclass
class Trainings:
    """What the trials have in common: one network, or replicas."""

    data: Split
    backend: Backend
    of_replicas: bool

    def begin(self, folder: Path, seed: int = 0, *, stop: int = 1000, overwrite: bool = False) -> Iterator[Any]:
        """Return a recorded training of three epochs, of which it keeps the newest and the best checkpoint."""
        settings = replace(SETTINGS, seed=seed)
        how: dict[str, Any] = {"stop": itertools.chain([False] * stop, [True]).__next__}
        kept: dict[str, Any] = {"keep_checkpoints": 1, "overwrite": overwrite}
        if self.of_replicas:
            many = train_replicas(settings, self.data, self.backend, N, **how)
            return record_replicas(folder, settings, self.data, self.backend, many, N, **kept)
        alone = train(settings, self.data, self.backend, **how)
        return record(folder, settings, self.data, self.backend, alone, **kept)

    def go_on(self, folder: Path) -> list[Epoch | ReplicatedEpoch]:
        """Go on with a run, or begin it if it is not there."""
        if any((folder / name).exists() for name in ("run.json", "replicas.json")):
            return list(resume(folder, self.backend, self.data))
        return list(self.begin(folder))

    def kept(self, operations: list[str]) -> int:
        """Return the last epoch of which, after these operations, every network has a checkpoint; -1 for none."""
        renamed = [re.match(r"rename \.epoch-([0-9]+)\.safetensors\.", name) for name in operations]
        epochs = [int(found[1]) for found in renamed if found]
        return max((epoch for epoch in epochs if epochs.count(epoch) >= (N if self.of_replicas else 1)), default=-1)


@pytest.fixture(params=[False, True], ids=["alone", "replicas"])
def trainings(request: pytest.FixtureRequest, digits: Split, numpy_backend: Backend) -> Trainings:
    return Trainings(digits, numpy_backend, request.param)


def chains(epoch: Epoch | ReplicatedEpoch) -> list[str]:
    each = epoch.replicas if isinstance(epoch, ReplicatedEpoch) else (epoch,)
    return [one.digests.chain for one in each]


def fail(name: str) -> None:
    raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))


def try_faults(
    folder: Path,
    work: Callable[[Path], None],
    error: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    lasting: bool = False,
    silent: str | None = None,
) -> Iterator[tuple[Path, list[str]]]:
    """Do work again and again, each time with a fault at the next operation; yield its folder and what was done.

    A fault that lasts is there from that operation on, until the work ends. From the ``silent`` operation on, nothing
    need be said.
    """
    for at in itertools.count():
        trial, message = folder / str(at), None
        failing = FaultyDisk(at, lambda: fail(error), lasting=lasting)
        with monkeypatch.context() as patch:
            patch.setattr(disk, "DISK", failing)
            try:
                work(trial)
            except RunError as caught:
                message = str(caught)
            except TrainingInterrupted:
                pass
        if at >= len(failing.operations):
            return
        *before, failed = failing.operations[: at + 1]
        # One may be allowed to write into a folder, but not to open it, so as to see that the disk has what is new.
        is_new_folder = failed.startswith("sync_folder") and before[-1].startswith("make_folder")
        if failed in TIDY or (is_new_folder and error == "EACCES"):
            assert message is None
        elif silent is None or not any(name.startswith(silent) for name in (*before, failed)):
            assert message is not None, f"nothing was said of {failed}"
            check_message(message, trial, error)
        yield trial, failing.operations if message is None else before


def check_message(message: str, folder: Path, error: str) -> None:
    """See that a message says what failed, why, and what to do."""
    what = (
        rf"{re.escape(str(folder))}\S*: cannot be (written|read): (\[Errno \d+\] )?{os.strerror(getattr(errno, error))}"
    )
    kept = f"what it has learnt is kept; when that is mended, go on with: mlp-xp train --resume {folder}"
    remedies = [
        *("choose another --out", "restore the file from a copy, or train again", "mend that, then try again"),
        *(
            "it must be writable to go on",
            "it has no checkpoint yet to go on from; when that is mended, train again, with --overwrite",
            re.escape(
                f"it has no checkpoint yet; when that is mended, begin it again with: mlp-xp train --resume {folder}"
            ),
        ),
    ]
    assert re.fullmatch(f"{what}.*; ({'|'.join([re.escape(kept), *remedies])})", message), message
    if "; what it has learnt" in message or "; it has no checkpoint" in message:
        assert any(folder.rglob("checkpoints/[!.]*.safetensors")) == ("; what it has learnt" in message)


def check_end(trainings: Trainings, folder: Path, whole: Path, last: Any, first: int, beside: str = "") -> None:
    """See that a run goes on with an epoch, and ends as one that met no fault, but for a folder beside."""
    check_readable(folder)
    epochs = trainings.go_on(folder)
    assert [epoch.epoch for epoch in epochs] == list(range(first, 3))
    assert [chains(epoch) for epoch in epochs[-1:]] in ([chains(last)], [])
    assert (folder / "loss.png").read_bytes() == b"a picture"
    for path in whole.rglob("*"):
        if path.name in ("steps.csv", "weights.safetensors"):
            assert (folder / path.relative_to(whole)).read_bytes() == path.read_bytes()
    names = {path.relative_to(whole) for path in whole.rglob("*")}
    found = {path.relative_to(folder) for path in folder.rglob("*")}
    assert {path for path in found if path.parts[0] != beside} == names, "something is left over"
    check_readable(folder)


def check_readable(folder: Path) -> None:
    """See that no file that is replaced as a whole is half written."""
    for path in folder.rglob("[!.]*.safetensors"):
        safetensors.numpy.load_file(path)
    for path in folder.rglob("[!.]*.json"):
        json.loads(path.read_text())


POINTS = {"alone": 84, "replicas": 177}
"""Of a training that is recorded; the README says how many."""


def n_points(trainings: Trainings) -> int:
    return POINTS["replicas" if trainings.of_replicas else "alone"]


@pytest.mark.parametrize(
    ("error", "lasting"), [("ENOSPC", False), ("EIO", False), ("EACCES", False), ("EIO", True)], ids=str
)
def test_after_any_fault_the_run_goes_on_to_the_same_bits(
    error: str, lasting: bool, trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, last = trainings.begin(tmp_path / "whole")

    def work(folder: Path) -> None:
        list(trainings.begin(folder))

    found = 0
    for folder, before in try_faults(tmp_path, work, error, monkeypatch, lasting=lasting):
        found += 1
        check_end(trainings, folder, tmp_path / "whole", last, trainings.kept(before) + 1)
    assert found == n_points(trainings), "the README says how many"


@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EACCES"])
def test_after_any_fault_in_going_on_it_goes_on_again(
    error: str, trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, last = trainings.begin(tmp_path / "whole")
    epochs = trainings.begin(tmp_path / "begun")
    next(epochs)
    epochs.close()  # type: ignore[attr-defined]

    def work(folder: Path) -> None:
        shutil.copytree(tmp_path / "begun", folder)
        list(resume(folder, trainings.backend, trainings.data))

    found = 0
    for folder, before in try_faults(tmp_path, work, error, monkeypatch):
        found += 1
        check_end(trainings, folder, tmp_path / "whole", last, max(0, trainings.kept(before)) + 1)
    assert found > 0.7 * n_points(trainings)


def test_after_any_fault_in_a_stop_it_goes_on(
    trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the second epoch, where all that the first one left is still there."""
    *_, last = trainings.begin(tmp_path / "whole")

    def work(folder: Path) -> None:
        list(trainings.begin(folder, stop=3))

    found = set()
    # Of what comes after the checkpoint, the picture, nothing is said: that the training was interrupted is.
    for folder, before in try_faults(tmp_path, work, "ENOSPC", monkeypatch, silent="create .loss.png"):
        found.add(any("rename .interrupted-1-3-0." in name for name in before))
        check_end(trainings, folder, tmp_path / "whole", last, trainings.kept(before) + 1)
    assert found == {False, True}


def test_after_any_fault_in_replacing_a_run_one_of_them_is_there(
    trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one as it was, or the new one, which goes on."""
    *_, last = trainings.begin(tmp_path / "whole")
    list(trainings.begin(tmp_path / "old", seed=1))
    name = "replicas.json" if trainings.of_replicas else "run.json"
    old = {path.relative_to(tmp_path / "old"): path for path in (tmp_path / "old").rglob("*") if path.is_file()}

    def work(folder: Path) -> None:
        shutil.copytree(tmp_path / "old", folder)
        list(trainings.begin(folder, overwrite=True))

    found = set()
    for folder, before in try_faults(tmp_path, work, "ENOSPC", monkeypatch):
        is_old = (folder / name).read_bytes() == old[Path(name)].read_bytes()
        found.add(is_old)
        if is_old:
            for relative, path in old.items():
                assert (folder / relative).read_bytes() == path.read_bytes()
        else:  # what would remove an old replica may have been what failed
            check_end(trainings, folder, tmp_path / "whole", last, trainings.kept(before) + 1, f"seed-{N}")
    assert found == {False, True}
