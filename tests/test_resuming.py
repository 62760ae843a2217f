"""A training that goes on is the one that never stopped, to the last bit; what it goes on from is looked at first."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

import mlp_xp.resuming
import mlp_xp.tensor_files
import mlp_xp.trainer
from faults import FaultyDisk
from mlp_xp import disk
from mlp_xp.backend import Backend
from mlp_xp.checkpoint import Position
from mlp_xp.datasets import Dataset, Split, load
from mlp_xp.datasets.source import DataSource
from mlp_xp.errors import RunError, SettingsError, TrainingDiverged, TrainingInterrupted
from mlp_xp.initializers import initial_parameters
from mlp_xp.pretraining import Pretrained
from mlp_xp.replica_runs import record_replicas
from mlp_xp.replicas import ReplicatedEpoch, train_replicas
from mlp_xp.resuming import RecordedTraining, resume
from mlp_xp.runs import record
from mlp_xp.settings import Settings
from mlp_xp.training import Epoch, train
from mlp_xp.verification import RecordedRun, verify
from recorded_runs import edit_json

NATIVE = Settings(hidden_layer_sizes=(8, 8), batch_size=100, epochs=4, momentum=0.9, dropout=0.1, batch_norm=True)
SETTINGS = {
    "native": NATIVE,
    "exact": replace(NATIVE, arithmetic="exact", dtype="float64", optimizer="adam", momentum=0.0, learning_rate=0.01),
}
N = 2


@pytest.fixture(scope="module")
def digits() -> Split:
    return load("digits").split()


pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch of 14 steps has pieces of 5, 5 and 4."""
    monkeypatch.setattr(mlp_xp.trainer, "PIECE", 55 * mlp_xp.trainer.CALLS // 10)


class After:
    """Wants to stop when it is asked for the n-th time."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self) -> bool:
        self.n -= 1
        return self.n < 0


def start(
    folder: Path, settings: Settings, data: Split, backend: Backend, n: int | None, **how: Any
) -> Iterator[Epoch | ReplicatedEpoch]:
    """Return a recorded training of one network, or of n."""
    recording = {name: how.pop(name) for name in ("checkpoint_every", "source", "overwrite") if name in how}
    if n is None:
        epochs = train(settings, data, backend, **how)
        return record(folder, settings, data, backend, epochs, **recording)
    many = train_replicas(settings, data, backend, n, **how)
    return record_replicas(folder, settings, data, backend, many, n, **recording)


def stop_early(folder: Path, settings: Settings, data: Split, backend: Backend, after: int, **how: Any) -> str:
    """Record a training that stops, and return what is said of it."""
    with pytest.raises(TrainingInterrupted) as caught:
        list(start(folder, settings, data, backend, how.pop("n", None), stop=After(after), **how))
    return str(caught.value)


def contents(folder: Path) -> dict[str, Any]:
    """Return all that a training decides: not when and how fast it was."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            found[name] = {key: tensor.tobytes() for key, tensor in safetensors.numpy.load_file(path).items()}
        elif path.name == "curve.jsonl":
            lines = map(json.loads, path.read_text().splitlines())
            found[name] = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
        elif path.name in ("run.json", "replicas.json"):
            run = json.loads(path.read_text())
            found[name] = {key: run[key] for key in run if key not in ("id", "created", "resumed")}
        elif path.name == "loss.png":
            found[name] = b""
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize("n", [None, N], ids=["alone", "replicas"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_training_goes_on_to_the_same_bits(
    name: str, n: int | None, tmp_path: Path, backend: Backend, digits: Split
) -> None:
    """Wherever it stopped: before the first step, within an epoch, at its end, and again and again."""
    settings = SETTINGS[name]
    *_, last = start(tmp_path / "whole", settings, digits, backend, n)
    for after in (0, 2, 3):
        folder = tmp_path / str(after)
        said = stop_early(folder, settings, digits, backend, after, n=n)
        assert (
            said
            == {
                0: "interrupted after 0 epochs",
                2: "interrupted in epoch 0, after 10 of its steps",
                3: "interrupted after 1 epochs",
            }[after]
        )
        with pytest.raises(TrainingInterrupted):
            list(resume(folder, backend, digits, stop=After(4)))
        *_, again = resume(folder, backend, digits)
        assert [_.chain for _ in digests(again)] == [_.chain for _ in digests(last)]
        assert contents(folder) == contents(tmp_path / "whole")
    assert list(resume(folder, backend, digits)) == [], "it was over"
    assert contents(folder) == contents(tmp_path / "whole")


PRETRAINED = {name: replace(each, pretrain="layerwise", pretrain_epochs=2) for name, each in SETTINGS.items()}


@pytest.mark.parametrize("n", [None, N], ids=["alone", "replicas"])
@pytest.mark.parametrize("name", PRETRAINED)
def test_a_pretraining_goes_on_to_the_same_bits(
    name: str, n: int | None, tmp_path: Path, backend: Backend, digits: Split
) -> None:
    """Two stages of two epochs of three pieces each: within a stage, between two, and at the end."""
    settings = replace(PRETRAINED[name], epochs=1)
    *_, last = start(tmp_path / "whole", settings, digits, backend, n)
    for after, done in ((4, 1), (5, 2), (11, 4)):
        folder = tmp_path / str(after)
        said = stop_early(folder, settings, digits, backend, after, n=n)
        assert said == f"interrupted after {done} epochs of pre-training"
        recorded = RecordedTraining(folder)
        recorded.release()
        assert recorded.position == Position(0, 0, done)
        told: list[Pretrained] = []
        *_, again = resume(folder, backend, digits, on_pretrained=told.append)
        assert [one[:2] for one in told] == [(0, 0), (0, 1), (1, 0), (1, 1)][done:]
        assert [_.chain for _ in digests(again)] == [_.chain for _ in digests(last)]
        assert contents(folder) == contents(tmp_path / "whole")


def test_a_pretraining_of_given_parameters_goes_on(numpy_backend: Backend, digits: Split) -> None:
    """The layers that are still to be pre-trained are in the checkpoint, too: no settings would draw them again."""
    settings = replace(PRETRAINED["exact"], epochs=1)
    sizes = (64, 8, 8, 10)
    initial = initial_parameters(sizes, "he", 7, batch_norm=True)
    *_, last = train(settings, digits, numpy_backend, initial=initial)
    for after in range(12):
        with pytest.raises(TrainingInterrupted) as caught:
            list(train(settings, digits, numpy_backend, initial=initial, stop=After(after)))
        *_, again = train(settings, digits, numpy_backend, start=caught.value.checkpoints[0])
        assert again.digests == last.digests


def test_a_pretraining_goes_on_again_and_again(tmp_path: Path, numpy_backend: Backend, digits: Split) -> None:
    list(start(tmp_path / "whole", PRETRAINED["exact"], digits, numpy_backend, None))
    said = [stop_early(tmp_path / "run", PRETRAINED["exact"], digits, numpy_backend, 0)]
    while True:
        try:
            list(resume(tmp_path / "run", numpy_backend, digits, stop=After(4)))
            break
        except TrainingInterrupted as error:
            said.append(str(error))
    assert said[:5] == [
        "interrupted after 0 epochs",
        "interrupted after 1 epochs of pre-training",
        "interrupted after 2 epochs of pre-training",
        "interrupted after 3 epochs of pre-training",
        "interrupted in epoch 0, after 5 of its steps",
    ]
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


@pytest.mark.parametrize("field", ["-1", "x", "1"])
def test_a_checkpoint_that_does_not_know_its_moment_is_refused(
    field: str, tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    run = tmp_path / "run"
    stop_early(run, NATIVE, digits, numpy_backend, 2)
    (run / "checkpoints" / "interrupted-0-0-0.safetensors").unlink()
    path = run / "checkpoints" / "interrupted-0-10-0.safetensors"
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata() | {"pretrained": field}
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), path, metadata)
    with pytest.raises(RunError, match=r"no checkpoint .* can be used: .*0-10-0.safetensors: not a checkpoint of"):
        RecordedTraining(run)


def digests(epoch: Epoch | ReplicatedEpoch) -> list[Any]:
    each = epoch.replicas if isinstance(epoch, ReplicatedEpoch) else (epoch,)
    return [one.digests for one in each]


@pytest.mark.parametrize("n", [None, N], ids=["alone", "replicas"])
def test_in_exact_arithmetic_it_goes_on_anywhere(
    n: int | None, tmp_path: Path, backend: Backend, numpy_backend: Backend, digits: Split
) -> None:
    settings = SETTINGS["exact"]
    *_, last = start(tmp_path / "whole", settings, digits, numpy_backend, n)
    stop_early(tmp_path / "run", settings, digits, numpy_backend, 5, n=n)
    *_, again = resume(tmp_path / "run", backend, digits)
    assert digests(again) == digests(last)
    runs = [tmp_path / "run"] if n is None else list((tmp_path / "run").glob("seed-*"))
    for run in runs:
        (resumed,) = json.loads((run / "run.json").read_text())["resumed"]
        assert resumed["backend"] == {"name": backend.name, **backend.describe()}
        assert (resumed["epoch"], resumed["step"]) == (1, 10)
        assert len(list(verify(RecordedRun(run), digits, numpy_backend))) == 4


def test_more_epochs_are_those_of_a_longer_training(tmp_path: Path, numpy_backend: Backend, digits: Split) -> None:
    list(start(tmp_path / "long", replace(NATIVE, epochs=6), digits, numpy_backend, None))
    list(start(tmp_path / "run", NATIVE, digits, numpy_backend, None))
    assert [epoch.epoch for epoch in resume(tmp_path / "run", numpy_backend, digits, epochs=6)] == [4, 5]
    assert contents(tmp_path / "run") == contents(tmp_path / "long")
    with pytest.raises(SettingsError, match=r"epochs = 5: the run has 6 already; give that many at least"):
        resume(tmp_path / "run", numpy_backend, digits, epochs=5)


def test_the_data_are_loaded_from_where_they_were(tmp_path: Path, numpy_backend: Backend, digits: Split) -> None:
    stop_early(tmp_path / "run", NATIVE, digits, numpy_backend, 3, source=DataSource("digits"))
    assert [epoch.epoch for epoch in resume(tmp_path / "run", numpy_backend)] == [1, 2, 3]


@pytest.mark.parametrize("n", [None, N], ids=["alone", "replicas"])
def test_before_the_first_checkpoint_it_begins_anew(
    n: int | None, tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    list(start(tmp_path / "whole", NATIVE, digits, numpy_backend, n, checkpoint_every=3))
    epochs = start(tmp_path / "run", NATIVE, digits, numpy_backend, n, checkpoint_every=3)
    next(epochs)
    epochs.close()  # type: ignore[attr-defined]
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert [epoch.epoch for epoch in resume(tmp_path / "run", numpy_backend, digits)] == [0, 1, 2, 3]
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


@pytest.mark.parametrize("n", [None, N], ids=["alone", "replicas"])
@pytest.mark.parametrize("every", [0, 1, 10])
def test_what_has_no_checkpoint_is_not_lost(
    every: int, n: int | None, tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    list(start(tmp_path / "run", NATIVE, digits, numpy_backend, n, checkpoint_every=every))
    for checkpoints in (tmp_path / "run").rglob("checkpoints"):
        shutil.rmtree(checkpoints)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=r"run(/seed-0)? has 4 epochs, but no checkpoint to go on from: .*--overwrite"):
        resume(tmp_path / "run", numpy_backend, digits)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_lines_of_a_run_that_was_replaced_are_not_missed(tmp_path: Path, numpy_backend: Backend, digits: Split) -> None:
    """The process was killed when it had written the new run.json, and nothing else."""
    list(start(tmp_path / "run", replace(NATIVE, seed=1), digits, numpy_backend, None, checkpoint_every=0))
    old = (tmp_path / "run" / "curve.jsonl").read_bytes()
    epochs = start(tmp_path / "new", NATIVE, digits, numpy_backend, None)
    epochs.close()  # type: ignore[attr-defined]
    (tmp_path / "new" / "curve.jsonl").write_bytes(old)
    assert [epoch.epoch for epoch in resume(tmp_path / "new", numpy_backend, digits)] == [0, 1, 2, 3]


def failing_at(name: str, n: int) -> FaultyDisk:
    """Return a disk that is full when a file of such a name is made for the n-th time."""

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    class Full(FaultyDisk):
        def create(self, path: Path) -> int:
            nonlocal n
            if name in path.name and (n := n - 1) < 0:
                full()
            return super().create(path)

    return Full(-1, full)


@pytest.mark.parametrize(("failing", "left"), [("epoch-0000", Position(0, 10)), ("interrupted-1-10", Position(1, 0))])
def test_a_stop_that_cannot_be_saved_leaves_the_one_before(
    failing: str, left: Position, tmp_path: Path, numpy_backend: Backend, digits: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two replicas, the first has the new checkpoint; both still have the old one."""
    *_, last = start(tmp_path / "whole", NATIVE, digits, numpy_backend, N, checkpoint_every=0)
    stop_early(tmp_path / "run", NATIVE, digits, numpy_backend, 2, n=N, checkpoint_every=0)
    monkeypatch.setattr(disk, "DISK", failing_at(failing, 1))
    with pytest.raises(RunError, match="No space left on device; what it has learnt is kept; when that is mended, go"):
        list(resume(tmp_path / "run", numpy_backend, digits, stop=After(3)))
    monkeypatch.setattr(disk, "DISK", disk.Disk())
    assert len(list((tmp_path / "run").rglob("interrupted-1-10-0.safetensors"))) == 1
    recorded = RecordedTraining(tmp_path / "run")
    recorded.release()
    assert recorded.position == left
    *_, again = resume(tmp_path / "run", numpy_backend, digits)
    assert digests(again) == digests(last)
    assert not list((tmp_path / "run").rglob("interrupted-*"))


@pytest.mark.parametrize("error", [errno.EMFILE, errno.EIO, errno.EACCES])
def test_a_checkpoint_that_cannot_be_read_now_is_not_removed(
    error: int, tmp_path: Path, numpy_backend: Backend, digits: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    list(start(run, NATIVE, digits, numpy_backend, None))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def failing(path: Path) -> Any:
        raise OSError(error, os.strerror(error), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(mlp_xp.tensor_files, "open_regular", failing)
        text = rf"epoch-0003\.safetensors: cannot be read: {os.strerror(error)}; mend that, then go on"
        with pytest.raises(RunError, match=text):
            resume(run, numpy_backend, digits)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_weights_are_those_of_the_last_line(tmp_path: Path, numpy_backend: Backend, digits: Split) -> None:
    """Gone back to a checkpoint within an epoch, when a later epoch's weights were written already."""
    run = tmp_path / "run"
    stop_early(run, NATIVE, digits, numpy_backend, 4, checkpoint_every=0)
    epochs = resume(run, numpy_backend, digits)
    next(epochs)
    epochs.close()  # type: ignore[attr-defined]
    with pytest.raises(TrainingInterrupted, match="in epoch 1, after 5 of its steps"):
        list(resume(run, numpy_backend, digits, stop=After(0)))
    assert len(list(verify(RecordedRun(run), digits, numpy_backend))) == 1


def test_a_link_in_the_place_of_a_replica_is_not_written_through(
    tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    stop_early(tmp_path / "run", NATIVE, digits, numpy_backend, 3, n=N)
    shutil.move(tmp_path / "run" / "seed-1", tmp_path / "mine")
    (tmp_path / "run" / "seed-1").symlink_to(tmp_path / "mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="seed-1 is a link to another place, which is not written to"):
        resume(tmp_path / "run", numpy_backend, digits)
    with pytest.raises(RunError, match=r"seed-1.*: cannot be written: seed-1 in it is a link to another place"):
        start(tmp_path / "run", NATIVE, digits, numpy_backend, N, overwrite=True)
    for path in (tmp_path / "mine").rglob("*"):
        assert path.is_dir() or path.read_bytes() == before[path]


def test_a_rollback_that_came_after_the_checkpoint_happens_again(
    tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    """It stopped within an epoch, went on, rolled back, ended that epoch, and was killed before the next checkpoint."""
    settings = replace(GROWING, batch_size=100, learning_rate=0.195)
    list(
        start(tmp_path / "whole", settings, digits, numpy_backend, None, checkpoint_every=10, on_divergence="rollback")
    )
    run = tmp_path / "run"
    said = stop_early(run, settings, digits, numpy_backend, 4, checkpoint_every=10)
    assert said == "interrupted in epoch 1, after 5 of its steps"
    epochs = resume(run, numpy_backend, digits, on_divergence="rollback")
    next(epochs)
    epochs.close()  # type: ignore[attr-defined]
    assert len(json.loads((run / "run.json").read_text())["rollbacks"]) == 1
    list(resume(run, numpy_backend, digits, on_divergence="rollback"))
    assert contents(run) == contents(tmp_path / "whole")


def test_a_stop_at_the_same_step_of_another_try_is_saved_anew(
    tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    settings = replace(GROWING, batch_size=100, learning_rate=0.195)
    list(start(tmp_path / "whole", settings, digits, numpy_backend, None, on_divergence="rollback"))
    run = tmp_path / "run"
    stop_early(run, settings, digits, numpy_backend, 4)
    with pytest.raises(TrainingInterrupted, match="in epoch 1, after 5 of its steps"):
        list(resume(run, numpy_backend, digits, on_divergence="rollback", stop=After(3)))
    (rollback,) = json.loads((run / "run.json").read_text())["rollbacks"]
    assert rollback["epoch"] == 1
    list(resume(run, numpy_backend, digits))  # with the smaller learning rate, without being told again
    assert contents(run) == contents(tmp_path / "whole")


def test_checkpoints_of_another_run_are_not_gone_on_from(tmp_path: Path, numpy_backend: Backend, digits: Split) -> None:
    """They are there if a process was killed while it began to replace that run."""
    stop_early(tmp_path, NATIVE, digits, numpy_backend, 9)
    edit_json(lambda description: description.update(id="0"))(tmp_path)
    assert [epoch.epoch for epoch in resume(tmp_path, numpy_backend, digits)] == [0, 1, 2, 3]


def test_a_name_that_no_checkpoint_has_is_nobodys_business(
    tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    stop_early(tmp_path, NATIVE, digits, numpy_backend, 9)
    strays = [
        tmp_path / "checkpoints" / f"interrupted-{name}.safetensors" for name in ("1-0-1", "01-0-1", "1", "x-0-0")
    ]
    for stray in strays:
        stray.touch()
    assert len(list(resume(tmp_path, numpy_backend, digits))) == 1
    assert all(stray.exists() for stray in strays)
    assert (tmp_path / "checkpoints" / "epoch-0001.safetensors").exists()


def test_all_checkpoints_stay_if_all_are_to(tmp_path: Path, numpy_backend: Backend, digits: Split) -> None:
    settings = replace(SETTINGS["exact"], epochs=3)
    list(start(tmp_path, settings, digits, numpy_backend, None, checkpoint_every=2))
    list(resume(tmp_path, numpy_backend, digits, epochs=6))
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == [
        f"epoch-{epoch:04d}.safetensors" for epoch in (1, 2, 3, 5)
    ]


def test_a_finished_training_notes_no_more_work(tmp_path: Path, numpy_backend: Backend, digits: Split) -> None:
    stop_early(tmp_path, NATIVE, digits, numpy_backend, 3)
    list(resume(tmp_path, numpy_backend, digits))
    before = (tmp_path / "run.json").read_bytes()
    assert list(resume(tmp_path, numpy_backend, digits)) == []
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_run_that_is_resumed_for_ever_stays_readable(
    tmp_path: Path, numpy_backend: Backend, digits: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlp_xp.resuming, "MOST_RESUMED", 2)
    stop_early(tmp_path, NATIVE, digits, numpy_backend, 3)
    edit_json(lambda run: run["resumed"].append({"backend": {"name": "other", "device": "cpu"}, "epoch": -1}))(tmp_path)
    for after in (1, 1, 1, 2):
        with pytest.raises(TrainingInterrupted):
            list(resume(tmp_path, numpy_backend, digits, stop=After(after)))
    resumed = json.loads((tmp_path / "run.json").read_text())["resumed"]
    assert [(each["backend"]["name"], each["epoch"]) for each in resumed] == [("other", -1), ("numpy", 1), ("numpy", 2)]


def test_it_can_stop_after_a_step_that_takes_long(
    tmp_path: Path, numpy_backend: Backend, digits: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlp_xp.trainer, "PIECE", 1)
    for after, what in ((1, "in epoch 0, after 2 of its steps"), (5, "in epoch 0, after 10 of its steps")):
        assert stop_early(tmp_path / str(after), NATIVE, digits, numpy_backend, after) == f"interrupted {what}"


def test_a_name_that_no_folder_has(numpy_backend: Backend) -> None:
    with pytest.raises(RunError, match=r"x{300} cannot be read: File name too long; give a run's folder"):
        resume("x" * 300, numpy_backend)


def test_a_file_of_a_run_is_not_the_run(tmp_path: Path, numpy_backend: Backend, digits: Split) -> None:
    stop_early(tmp_path, NATIVE, digits, numpy_backend, 3)
    with pytest.raises(RunError, match=r"run.json is not a run's folder, but a file; give the folder"):
        resume(tmp_path / "run.json", numpy_backend)


def test_what_is_no_backend_is_said(digits: Split) -> None:
    with pytest.raises(SettingsError, match=r"backend is a str: give what mlp_xp.open_backend returns"):
        train(NATIVE, digits, "numpy")  # type: ignore[arg-type]


@pytest.fixture
def stopped(tmp_path: Path, numpy_backend: Backend, digits: Split) -> Path:
    """A run of three epochs, with what the fourth has left when the process was killed."""
    run = tmp_path / "run"
    stop_early(run, NATIVE, digits, numpy_backend, 9)
    with (run / "curve.jsonl").open("a") as file:
        file.write('{"epoch": 3, "loss": 0.')
    with (run / "steps.csv").open("a") as file:
        file.write("3,0,0.5\n3,1,")
    for name in ("checkpoints/.epoch-0003.safetensors", ".weights.safetensors", ".probe"):
        (run / f"{name}.0123456789abcdef.mlp_xp").write_bytes(b"half")
    return run


def test_what_comes_after_the_checkpoint_is_replaced(
    stopped: Path, tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    list(start(tmp_path / "whole", NATIVE, digits, numpy_backend, None))
    assert [epoch.epoch for epoch in resume(stopped, numpy_backend, digits)] == [3]
    assert contents(stopped) == contents(tmp_path / "whole")
    assert not list(stopped.rglob(".*"))


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_makes_it_go_on_from_the_one_before(
    stopped: Path, tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    damage(stopped / "checkpoints" / "epoch-0002.safetensors")
    list(start(tmp_path / "whole", NATIVE, digits, numpy_backend, None))
    recorded = RecordedTraining(stopped)
    (remark,) = recorded.remarks
    assert remark.startswith(f"{stopped / 'checkpoints' / 'epoch-0002.safetensors'}: not a checkpoint of this run: sha")
    assert recorded.position == Position(2, 0)
    assert [epoch.epoch for epoch in recorded.resume(digits, numpy_backend)] == [2, 3]
    assert contents(stopped) == contents(tmp_path / "whole")


def damage_all(run: Path) -> None:
    for path in (run / "checkpoints").glob("epoch-*"):
        damage(path)


def drop_line(name: str, number: int) -> Callable[[Path], None]:
    def alter(run: Path) -> None:
        lines = (run / name).read_text().splitlines(keepends=True)
        del lines[number]
        (run / name).write_text("".join(lines))

    return alter


def replace_chains(run: Path) -> None:
    curve = (run / "curve.jsonl").read_text()
    (run / "curve.jsonl").write_text(re.sub(r'("sha256_chain": )"[0-9a-f]+"', rf'\1"{"0" * 64}"', curve))


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no run": (shutil.rmtree, r"holds no run \(run.json is missing\); make one with: mlp-xp train --out"),
    "every checkpoint damaged": (damage_all, "no checkpoint of .* can be used: .*epoch-0002.safetensors: not a check"),
    "no id": (edit_json(lambda d: d.pop("id")), "not the description of a run that can go on: 'id' is missing"),
    "no checkpoints": (edit_json(lambda d: d.pop("checkpoints")), "run that can go on: 'checkpoints' is missing"),
    "checkpoints in words": (
        edit_json(lambda d: d["checkpoints"].update(every="1")),
        "'every' of 'checkpoints' is '1'",
    ),
    "no rollbacks": (edit_json(lambda d: d.pop("rollbacks")), "run that can go on: 'rollbacks' is missing"),
    "rollbacks of nothing": (edit_json(lambda d: d.update(rollbacks=[3])), "not a run's description: "),
    "resumed in words": (edit_json(lambda d: d.update(resumed="often")), "not a run's description: "),
    "other settings": (
        edit_json(lambda d: d["settings"].update(learning_rate=0.2)),
        "its settings are not those it was",
    ),
    "other data": (
        edit_json(lambda d: d["data"].update(sha256_test="0")),
        "the data are not those .*: sha256_test is ",
    ),
    "a line of the curve lost": (drop_line("curve.jsonl", 0), "no checkpoint of .*: .*curve.jsonl, line 3: "),
    "a curve that leads elsewhere": (
        replace_chains,
        "no checkpoint of .* can be used: .*curve.jsonl: it does not lead to the checkpoint epoch-0002.safetensors",
    ),
    "a step lost": (drop_line("steps.csv", 3), "no checkpoint .*steps.csv: the losses of epoch 0 are not those of cur"),
    "one of replicas": (
        edit_json(lambda d: d.update(replicas=2)),
        "is one of 2 replicas, .*; go on with all of them: mlp-xp train --re",
    ),
    "two runs in one": (
        lambda run: (run / "replicas.json").write_text("{}"),
        "has run.json and replicas.json: one run",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_go_on_is_said_and_left_alone(
    name: str, stopped: Path, numpy_backend: Backend, digits: Split
) -> None:
    alter, message = REFUSED[name]
    alter(stopped)
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=message):
        resume(stopped, numpy_backend, digits)
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["curve.jsonl", "steps.csv", "checkpoints"])
def test_links_in_a_strangers_run_lead_nowhere(
    name: str, stopped: Path, tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    """What is behind a link is not written to, not even if it is a run's own file that was moved there."""
    elsewhere = tmp_path / "elsewhere"
    (stopped / name).rename(elsewhere)
    (stopped / name).symlink_to(elsewhere)
    before = {path: path.read_bytes() for path in [elsewhere, *elsewhere.rglob("*")] if path.is_file()}
    with pytest.raises(RunError, match=f"cannot be written: {name} in it is a link to another place; "):
        resume(stopped, numpy_backend, digits)
    assert {path: path.read_bytes() for path in before} == before


SEEDS: dict[str, tuple[Any, str]] = {
    "none": ([], r"'seeds' is \[\], not a list of whole numbers; "),
    "in words": (["0", "1"], r"'seeds' is \['0', '1'\], not a list of whole numbers; "),
    "of nothing": ([None], r"'seeds' is \[None\], not a list of whole numbers; "),
    "fractional": ([0.5, 1.5], r"'seeds' is \[0.5, 1.5\], not a list of whole numbers; "),
    "no list": (2, "'seeds' is 2, not a list of whole numbers; "),
    "with a gap": ([0, 2], r"'seeds' is \[0, 2\], which do not follow each other; "),
    "too many": ([*range(4097)], "it has 4,097 seeds, more than 4,096; "),
}


def test_a_seed_too_long_for_a_folders_name_is_refused(tmp_path: Path, numpy_backend: Backend, digits: Split) -> None:
    folder, last = tmp_path / "run", replace(NATIVE, epochs=1, seed=2**128 - 1)
    with pytest.raises(SettingsError, match=f"seed = {2**128}: must be a whole number < {2**128}"):
        start(folder, last, digits, numpy_backend, 2)
    assert not folder.exists()
    list(start(folder, replace(last, seed=2**128 - 2), digits, numpy_backend, 2))
    path = folder / "replicas.json"
    path.write_text(
        path.read_text().replace(f'"seed": {2**128 - 2}', f'"seed": {"1" * 300}')
    )  # longer than any name of a folder
    with pytest.raises(RunError, match=r"replicas\.json: not a run's description: seed = 1{300}: must be a whole num"):
        RecordedTraining(folder)


@pytest.mark.parametrize("name", SEEDS)
def test_seeds_that_are_none_are_refused(name: str, tmp_path: Path) -> None:
    seeds, message = SEEDS[name]
    (tmp_path / "replicas.json").write_text(json.dumps({"format": 1, "seeds": seeds}))
    with pytest.raises(RunError, match=rf"replicas\.json: {message}"):
        RecordedTraining(tmp_path)


def test_a_folder_is_free_after_a_refusal(stopped: Path, numpy_backend: Backend, digits: Split) -> None:
    other = Dataset("other", digits.train.features, digits.train.targets, 10).split()
    with pytest.raises(RunError, match="the data are not those it was trained on: n_train is "):
        resume(stopped, numpy_backend, other)
    list(resume(stopped, numpy_backend, digits))


# A linear model of digits whose loss grows beyond all bounds in the second epoch.
GROWING = Settings((), loss="squared_error", batch_size=200, learning_rate=0.26, epochs=3)


@pytest.mark.parametrize("n", [None, N], ids=["alone", "replicas"])
def test_a_rollback_is_recorded_and_verified(tmp_path: Path, backend: Backend, digits: Split, n: int | None) -> None:
    list(start(tmp_path / "whole", GROWING, digits, backend, n, on_divergence="rollback"))
    runs = [tmp_path / "whole"] if n is None else list((tmp_path / "whole").glob("seed-*"))
    for run in runs:
        (rollback,) = json.loads((run / "run.json").read_text())["rollbacks"]
        assert (rollback["epoch"], rollback["learning_rate"]) == (1, pytest.approx(0.13))
        assert "epoch 1, step 0: the loss explodes: " in rollback["reason"]
        if n is None:  # of replicas, alone the last bits are others
            assert len(list(verify(RecordedRun(run), digits, backend))) == 3
            assert len(list(verify(RecordedRun(run), digits, backend, first=2))) == 1


@pytest.mark.parametrize("every", [0, 1, 2])
@pytest.mark.parametrize(
    ("settings", "epoch", "step"),
    [
        (GROWING, 1, 0),
        (replace(GROWING, batch_size=100, learning_rate=0.195), 1, 5),
        (replace(GROWING, batch_size=100, learning_rate=0.215), 0, 11),
    ],
    ids=["between epochs", "within an epoch", "within the first"],
)
def test_a_training_that_stops_before_or_after_a_rollback_goes_on(
    settings: Settings, epoch: int, step: int, every: int, tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    """The checkpoint in an epoch that was begun again has the smaller learning rate, and run.json says why."""
    how: dict[str, Any] = {"on_divergence": "rollback"}
    list(start(tmp_path / "whole", settings, digits, numpy_backend, None, checkpoint_every=every, **how))
    (rollback,) = json.loads((tmp_path / "whole" / "run.json").read_text())["rollbacks"]
    assert rollback["reason"].startswith(f"epoch {epoch}, step {step}: the loss explodes: ")
    for after in range(1, 8):
        folder = tmp_path / str(after)
        stop_early(folder, settings, digits, numpy_backend, after, checkpoint_every=every, **how)
        list(resume(folder, numpy_backend, digits, on_divergence="rollback"))
        assert contents(folder)["run.json"] == contents(tmp_path / "whole")["run.json"]
        assert contents(folder) == contents(tmp_path / "whole")


def test_a_stop_after_a_rollback_records_it_with_the_checkpoint(
    tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    """The checkpoint within the epoch has the smaller learning rate, so run.json must say since when."""
    settings = Settings((32, 32), batch_size=100, learning_rate=2.0, epochs=2, init="he")
    how: dict[str, Any] = {"on_divergence": "rollback", "largest_growth": 1.05}
    said = stop_early(tmp_path, settings, digits, numpy_backend, 5, **how)
    assert said == "interrupted in epoch 0, after 4 of its steps"
    assert len(list(resume(tmp_path, numpy_backend, digits))) == 2
    (rollback,) = json.loads((tmp_path / "run.json").read_text())["rollbacks"]
    assert (rollback["epoch"], rollback["learning_rate"]) == (0, 1.0)
    assert len(list(verify(RecordedRun(tmp_path), digits, numpy_backend))) == 2


def test_what_was_not_urgent_is_on_the_disk_before_a_checkpoint(
    tmp_path: Path, numpy_backend: Backend, digits: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = FaultyDisk(-1, lambda: None)
    monkeypatch.setattr(disk, "DISK", counting)
    stop_early(tmp_path, NATIVE, digits, numpy_backend, 4, checkpoint_every=10)
    first = next(i for i, name in enumerate(counting.operations) if ".epoch-0000" in name)
    assert counting.operations[first - 6 : first] == [
        *("open_end steps.csv", "sync", "open_end curve.jsonl", "sync"),
        *("make_folder checkpoints", f"sync_folder {tmp_path.name}"),
    ]
    # A rollback in the epoch that is not over would go back to its beginning, so that is kept, too.
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {
        "epoch-0000.safetensors",
        "interrupted-1-5-0.safetensors",
    }


def test_rolling_back_has_an_end(numpy_backend: Backend, digits: Split) -> None:
    with pytest.raises(TrainingDiverged, match=r"now 9\.7656\de\+26\)"):
        list(train(replace(GROWING, learning_rate=1e30), digits, numpy_backend, on_divergence="rollback"))
    with pytest.raises(SettingsError, match="on_divergence = 'hope': must be stop or rollback"):
        train(GROWING, digits, numpy_backend, on_divergence="hope")


def test_interrupted_replicas_that_were_hardly_begun_go_on(
    tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    *_, last = start(tmp_path / "whole", NATIVE, digits, numpy_backend, N)
    stop_early(tmp_path / "run", NATIVE, digits, numpy_backend, 5, n=N)
    shutil.rmtree(tmp_path / "run" / "seed-1")
    *_, again = resume(tmp_path / "run", numpy_backend, digits)
    assert digests(again) == digests(last)
