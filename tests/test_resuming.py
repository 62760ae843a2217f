"""A training that goes on is the one that never stopped, to the last bit."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mlp_xp.description
import mlp_xp.trainer
from faults import FaultyDisk
from mlp_xp import disk
from mlp_xp.backend import Backend
from mlp_xp.checkpoint import Position
from mlp_xp.datasets import Split
from mlp_xp.datasets.source import DataSource
from mlp_xp.errors import RunError, SettingsError, TrainingInterrupted
from mlp_xp.initializers import initial_parameters
from mlp_xp.pretraining import Pretrained
from mlp_xp.replicas import train_replicas
from mlp_xp.resuming import RecordedTraining, resume
from mlp_xp.training import train
from mlp_xp.verification import RecordedRun, verify
from recorded_runs import edit_json
from stopped_runs import NATIVE, SETTINGS, After, N, contents, damage, digests, leave_killed, start, stop_early

pytestmark = pytest.mark.usefixtures("no_pictures", "short_pieces")


@pytest.fixture
def stopped(tmp_path: Path, numpy_backend: Backend, digits: Split) -> Path:
    return leave_killed(tmp_path / "run", digits, numpy_backend)


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


@pytest.mark.parametrize("every", [0, 1, 3])
@pytest.mark.parametrize("pretrain", ["none", "layerwise"])
def test_given_parameters_are_not_forgotten(
    pretrain: str, every: int, tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    """Stopped before the first step, killed in the first epoch, and before the first checkpoint."""
    settings = replace(SETTINGS["exact"], pretrain=pretrain)
    how: dict[str, Any] = {
        "initial": initial_parameters((64, 8, 8, 10), "he", 7, batch_norm=True),
        "checkpoint_every": every,
    }
    list(start(tmp_path / "whole", settings, digits, numpy_backend, None, **how))
    stop_early(tmp_path / "stopped", settings, digits, numpy_backend, 0, **how)
    killed = start(tmp_path / "killed", settings, digits, numpy_backend, None, **how)
    killed.close()  # type: ignore[attr-defined]
    late = start(tmp_path / "late", settings, digits, numpy_backend, None, **how)
    next(late)
    late.close()  # type: ignore[attr-defined]
    if every == 0:
        with pytest.raises(RunError, match="has 1 epochs, but no checkpoint to go on from"):
            resume(tmp_path / "late", numpy_backend, digits)
    for run in ("stopped", "killed", "late")[: 2 if every == 0 else 3]:
        list(resume(tmp_path / run, numpy_backend, digits))
        assert contents(tmp_path / run) == contents(tmp_path / "whole"), run


def test_a_run_begins_with_epoch_0(tmp_path: Path, numpy_backend: Backend, digits: Split) -> None:
    first, *_ = train(NATIVE, digits, numpy_backend)
    with pytest.raises(SettingsError, match=r"epochs begin with epoch 1, but a run with epoch 0; .*mlp_xp\.resume"):
        start(tmp_path / "run", NATIVE, digits, numpy_backend, None, start=first.checkpoint())
    assert not (tmp_path / "run").exists()
    many, *_ = train_replicas(NATIVE, digits, numpy_backend, N)
    with pytest.raises(SettingsError, match="epochs begin with epoch 1"):
        start(tmp_path / "run", NATIVE, digits, numpy_backend, N, start=[one.checkpoint() for one in many.replicas])
    assert not (tmp_path / "run").exists()


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


def test_checkpoints_of_another_run_are_not_gone_on_from(tmp_path: Path, numpy_backend: Backend, digits: Split) -> None:
    """They are there if a process was killed while it began to replace that run."""
    stop_early(tmp_path, NATIVE, digits, numpy_backend, 9)
    edit_json(lambda description: description.update(id="0"))(tmp_path)
    assert [epoch.epoch for epoch in resume(tmp_path, numpy_backend, digits)] == [0, 1, 2, 3]


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
    monkeypatch.setattr(mlp_xp.description, "MOST_RESUMED", 2)
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


def test_what_comes_after_the_checkpoint_is_replaced(
    stopped: Path, tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    list(start(tmp_path / "whole", NATIVE, digits, numpy_backend, None))
    assert [epoch.epoch for epoch in resume(stopped, numpy_backend, digits)] == [3]
    assert contents(stopped) == contents(tmp_path / "whole")
    assert not list(stopped.rglob(".*"))


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


def test_interrupted_replicas_that_were_hardly_begun_go_on(
    tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    *_, last = start(tmp_path / "whole", NATIVE, digits, numpy_backend, N)
    stop_early(tmp_path / "run", NATIVE, digits, numpy_backend, 5, n=N)
    shutil.rmtree(tmp_path / "run" / "seed-1")
    *_, again = resume(tmp_path / "run", numpy_backend, digits)
    assert digests(again) == digests(last)
