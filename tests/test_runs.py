"""A run folder: all of it, readable without this project, never half written, usable on any backend."""

from __future__ import annotations

import csv
import errno
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import mlp_xp.run_writer
from mlp_xp.backend import Backend, open_backend
from mlp_xp.datasets import Split
from mlp_xp.errors import RunError, SettingsError
from mlp_xp.recorded import load_model
from mlp_xp.runs import record
from mlp_xp.settings import Settings
from mlp_xp.training import Epoch, train
from mlp_xp_numpy import NumPyBackend

SETTINGS = Settings(hidden_layer_sizes=(16,), epochs=3, batch_size=100)
FILES = {"run.json", "curve.jsonl", "steps.csv", "weights.safetensors", "loss.png"}
ALL = FILES | {"checkpoints"}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, digits: Split) -> tuple[Path, list[Epoch]]:
    """A folder that NumPy's training was recorded in, and its epochs."""
    folder = tmp_path_factory.mktemp("runs") / "below" / "run"
    backend = open_backend("numpy")
    return folder, list(record(folder, SETTINGS, digits, backend, train(SETTINGS, digits, backend)))


def test_all_files_are_there_and_no_others(recorded: tuple[Path, list[Epoch]]) -> None:
    assert {path.name for path in recorded[0].iterdir()} == ALL
    assert (recorded[0] / "loss.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_run_json_says_what_was_trained_on_what(recorded: tuple[Path, list[Epoch]], digits: Split) -> None:
    run = json.loads((recorded[0] / "run.json").read_text())
    assert set(run) == {
        *("format", "id", "created", "versions", "backend", "settings", "data", "checkpoints", "sha256_start"),
        *("on_divergence", "largest_growth", "rollbacks", "resumed"),
    }
    assert run["checkpoints"] == {"every": 1, "newest": 3}
    assert (run["rollbacks"], run["resumed"]) == ([], [])
    assert Settings.from_dict(run["settings"]) == SETTINGS
    assert run["backend"]["name"] == "numpy"
    assert run["backend"]["numpy"] == run["versions"]["numpy"] == np.__version__
    assert run["data"] == {
        "name": "digits",
        "source": None,
        "n_train": 1437,
        "n_test": 360,
        "n_features": 64,
        "n_classes": 10,
        "scale": 1 / 16,
        "sha256_train": digits.train.digest(),
        "sha256_test": digits.test.digest(),
    }


def test_the_curve_has_a_line_per_epoch(recorded: tuple[Path, list[Epoch]]) -> None:
    folder, epochs = recorded
    rows = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    names = ["epoch", "loss", "test_loss", "accuracy", "seconds"]
    digests = ["sha256_losses", "sha256_layers", "sha256_optimizer", "sha256_chain"]
    assert [list(row) for row in rows] == [names + digests] * 3
    assert rows == [epoch.row() for epoch in epochs]


def test_the_steps_are_the_losses_to_the_last_bit(recorded: tuple[Path, list[Epoch]]) -> None:
    folder, epochs = recorded
    with (folder / "steps.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["epoch"]), int(row["step"])) for row in rows] == [(e, s) for e in range(3) for s in range(14)]
    assert [float(row["loss"]) for row in rows] == np.concatenate([epoch.step_losses for epoch in epochs]).tolist()


def test_safetensors_alone_reads_the_weights(recorded: tuple[Path, list[Epoch]]) -> None:
    folder, epochs = recorded
    tensors = safetensors.numpy.load_file(folder / "weights.safetensors")
    assert set(tensors) == {f"layers.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")}
    for i, layer in enumerate(epochs[-1].model.host_parameters()):
        for kind, array in layer._asdict().items():
            np.testing.assert_array_equal(tensors[f"layers.{i}.{kind}"], array)
            assert tensors[f"layers.{i}.{kind}"].dtype == np.float32


def test_strided_arrays_are_written_rightly(tmp_path: Path, digits: Split, numpy_backend: Backend) -> None:
    """Safetensors would write a transposed array's memory as it lies."""

    def strided(epoch: Epoch) -> Epoch:
        layers = tuple(layer._replace(weight=np.asfortranarray(layer.weight)) for layer in epoch.model.parameters)
        return replace(epoch, model=replace(epoch.model, parameters=layers))

    epochs = list(
        record(tmp_path, SETTINGS, digits, numpy_backend, map(strided, train(SETTINGS, digits, numpy_backend)))
    )
    for layer, (weight, *_) in zip(
        load_model(tmp_path, numpy_backend).parameters, epochs[-1].model.parameters, strict=True
    ):
        np.testing.assert_array_equal(layer.weight, weight)


def test_a_recorded_run_predicts_on_every_backend(
    recorded: tuple[Path, list[Epoch]], backend: Backend, digits: Split
) -> None:
    folder, epochs = recorded
    expected = epochs[-1].model.predict(digits.test.features)
    labels, probabilities = load_model(folder, backend).predict(digits.test.features)
    np.testing.assert_array_equal(labels, expected.labels)
    # Sums of 64 and of 16 products, then exp: some dozens of roundings.
    np.testing.assert_allclose(probabilities, expected.values, atol=64 * float(np.finfo(np.float32).eps), rtol=0)


def test_penalty_and_scale_come_back(tmp_path: Path, digits: Split, numpy_backend: Backend) -> None:
    settings = replace(SETTINGS, l2=0.25, learning_rate=1e-3)
    data = Split(*(replace(rows, scale=2.0) for rows in digits))
    *_, last = record(tmp_path, settings, data, numpy_backend, train(settings, data, numpy_backend))
    model = load_model(tmp_path, numpy_backend)
    assert (model.objective, model.scale) == (last.model.objective, 2.0)
    assert model.objective.l2 == 0.25
    expected, values = (which.predict(digits.test.features).values for which in (last.model, model))
    np.testing.assert_array_equal(values, expected)
    assert not np.allclose(values, replace(model, scale=1.0).predict(digits.test.features).values)


EXACT = replace(SETTINGS, arithmetic="exact", dtype="float64", momentum=0.9)


@pytest.mark.parametrize(
    ("settings", "every", "kept"),
    [(EXACT, 1, [0, 1, 2]), (EXACT, 0, []), (EXACT, 2, [1, 2]), (SETTINGS, 0, []), (SETTINGS, 5, [2])],
)
def test_checkpoints_are_kept_as_often_as_asked(
    settings: Settings, every: int, kept: list[int], tmp_path: Path, digits: Split, numpy_backend: Backend
) -> None:
    epochs = list(
        record(
            tmp_path,
            settings,
            digits,
            numpy_backend,
            train(settings, digits, numpy_backend),
            checkpoint_every=every,
        )
    )
    assert {path.name for path in tmp_path.iterdir()} == (FILES | {"checkpoints"} if kept else FILES)
    assert sorted(tmp_path.glob("checkpoints/*")) == [
        tmp_path / "checkpoints" / f"epoch-{epoch:04d}.safetensors" for epoch in kept
    ]
    for epoch in kept:
        tensors = safetensors.numpy.load_file(tmp_path / "checkpoints" / f"epoch-{epoch:04d}.safetensors")
        expected = epochs[epoch].checkpoint().tensors
        assert set(tensors) == set(expected)
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(tensor, expected[name], strict=True)


def test_old_checkpoints_go_and_other_files_stay(tmp_path: Path, digits: Split, numpy_backend: Backend) -> None:
    def again(every: int) -> set[str]:
        epochs = train(EXACT, digits, numpy_backend)
        list(record(tmp_path, EXACT, digits, numpy_backend, epochs, checkpoint_every=every, overwrite=True))
        return {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} - FILES

    assert len(again(1)) == 1 + 3
    assert again(3) == {"checkpoints", "checkpoints/epoch-0002.safetensors"}
    assert again(0) == set()
    again(1)
    (tmp_path / "checkpoints" / "notes.txt").touch()
    assert again(0) == {"checkpoints", "checkpoints/notes.txt"}


def test_less_than_no_checkpoints_are_refused_before_anything_is_written(
    tmp_path: Path, digits: Split, numpy_backend: Backend
) -> None:
    with pytest.raises(SettingsError, match="checkpoint_every = -1: must be a whole number ≥ 0"):
        record(tmp_path / "run", SETTINGS, digits, numpy_backend, Never(), checkpoint_every=-1)
    assert not (tmp_path / "run").exists()


class SlowBackend(NumPyBackend):
    """Takes 20 ms and more for a loop, of which every epoch has at least one."""

    def scan(self, *arguments: Any) -> Any:
        time.sleep(0.02)
        return super().scan(*arguments)


def test_the_seconds_are_those_of_the_training_alone(tmp_path: Path, digits: Split) -> None:
    """They lie between what the backend needs at least and the wall time; a slow reader's time is not in them."""
    backend = SlowBackend()
    epochs = record(tmp_path, SETTINGS, digits, backend, train(SETTINGS, digits, backend))
    wall = []
    for _ in range(SETTINGS.epochs):
        start = time.perf_counter()
        next(epochs)
        wall.append(time.perf_counter() - start)
        time.sleep(0.1)
    rows = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    for row, most in zip(rows, wall, strict=True):
        assert 0.02 <= row["seconds"] <= most


def test_every_backend_can_record(backend: Backend, tmp_path: Path, digits: Split) -> None:
    settings = replace(SETTINGS, epochs=1)
    (epoch,) = record(tmp_path, settings, digits, backend, train(settings, digits, backend))
    assert {path.name for path in tmp_path.iterdir()} == ALL
    description = json.loads((tmp_path / "run.json").read_text())["backend"]
    assert description == {"name": backend.name, **backend.describe()}
    again = load_model(tmp_path, backend).host_parameters()
    for layer, expected in zip(again, epoch.model.host_parameters(), strict=True):
        np.testing.assert_array_equal(layer.weight, expected.weight)


class Never(Iterator[Epoch]):
    """A training that must not begin."""

    def __next__(self) -> Epoch:
        raise AssertionError("training has begun")


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_folder_with_any_of_a_runs_files_is_refused(
    name: str, tmp_path: Path, digits: Split, numpy_backend: Backend
) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(RunError, match=r"already holds a run; choose another --out, or replace it with --overwrite"):
        record(tmp_path, SETTINGS, digits, numpy_backend, Never())
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "precious"


def test_overwriting_leaves_nothing_of_the_old_run(
    recorded: tuple[Path, list[Epoch]], tmp_path: Path, digits: Split, numpy_backend: Backend
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(recorded[0], folder)
    settings = replace(SETTINGS, epochs=1)
    list(record(folder, settings, digits, numpy_backend, train(settings, digits, numpy_backend), overwrite=True))
    assert {path.name for path in folder.iterdir()} == ALL
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["epoch-0000.safetensors"]
    assert len((folder / "curve.jsonl").read_text().splitlines()) == 1
    assert len((folder / "steps.csv").read_text().splitlines()) == 1 + 14


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def full(_path: Path, _content: bytes) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_old_run_stays_when_the_new_one_cannot_begin(
    recorded: tuple[Path, list[Epoch]],
    tmp_path: Path,
    digits: Split,
    numpy_backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(recorded[0], folder)
    monkeypatch.setattr(mlp_xp.run_writer, "write_atomically", full)
    with pytest.raises(RunError, match="cannot be written: No space left on device; choose another --out"):
        record(folder, SETTINGS, digits, numpy_backend, Never(), overwrite=True)
    assert contents(folder) == contents(recorded[0])


@pytest.mark.parametrize("below", ["", "below"])
def test_a_folder_that_cannot_be_written_is_found_before_training(
    below: str, tmp_path: Path, digits: Split, numpy_backend: Backend
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file.*: cannot be written: .*; choose another --out"):
        record(tmp_path / "file" / below, SETTINGS, digits, numpy_backend, Never())


def test_settings_that_are_not_the_epochs_own_are_refused(
    tmp_path: Path, digits: Split, numpy_backend: Backend
) -> None:
    other = replace(SETTINGS, hidden_layer_sizes=(5,))
    with pytest.raises(SettingsError, match="settings are not those that the epochs are trained with"):
        record(tmp_path / "run", other, digits, numpy_backend, train(SETTINGS, digits, numpy_backend))
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_disk_that_fills_up_is_said(
    tmp_path: Path, digits: Split, numpy_backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = record(tmp_path, SETTINGS, digits, numpy_backend, train(SETTINGS, digits, numpy_backend))
    monkeypatch.setattr(mlp_xp.run_writer, "write_atomically", full)
    with pytest.raises(
        RunError,
        match=r"cannot be written: No space left on device; it has no checkpoint yet .* again, with --overwr",
    ):
        next(epochs)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("the device is lost")])
def test_what_was_saved_stays_when_training_stops(
    error: BaseException, tmp_path: Path, digits: Split, numpy_backend: Backend
) -> None:
    def stopping() -> Iterator[Epoch]:
        yield next(train(SETTINGS, digits, numpy_backend))
        raise error

    epochs = record(tmp_path, SETTINGS, digits, numpy_backend, stopping())
    first = next(epochs)
    with pytest.raises(type(error)):
        next(epochs)
    assert {path.name for path in tmp_path.iterdir()} == ALL
    assert len((tmp_path / "curve.jsonl").read_text().splitlines()) == 1
    saved = load_model(tmp_path, numpy_backend).host_parameters()
    np.testing.assert_array_equal(saved[0].weight, first.model.host_parameters()[0].weight)


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Return a function that changes a folder's run.json."""

    def apply(folder: Path) -> None:
        description = json.loads((folder / "run.json").read_text())
        change(description)
        (folder / "run.json").write_text(json.dumps(description))

    return apply


def retensor(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Return a function that changes a folder's weights."""

    def apply(folder: Path) -> None:
        tensors = safetensors.numpy.load_file(folder / "weights.safetensors")
        change(tensors)
        (folder / "weights.safetensors").write_bytes(safetensors.numpy.save(tensors))

    return apply


def truncate(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def retype(folder: Path) -> None:
    """Say that a tensor holds numbers of a type that NumPy does not have."""
    path = folder / "weights.safetensors"
    changed = path.read_bytes().replace(b'"F32","shape":[16]', b'"F8_E4M3","shape":[64]')
    size = int.from_bytes(changed[:8], "little") + len("F8_E4M3") - len("F32")  # of the header
    path.write_bytes(size.to_bytes(8, "little") + changed[8:])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, r"holds no run \(run.json is missing\); make one with: mlp-xp train --out"),
    "no json": (lambda f: (f / "run.json").write_text("{"), "run.json: cannot be read: Expecting"),
    "no text": (lambda f: (f / "run.json").write_bytes(b"\xff\xfe{"), "run.json: cannot be read: 'utf-8'"),
    "a list": (lambda f: (f / "run.json").write_text("[]"), "not a run's description of format 1"),
    "a later format": (edit(lambda d: d.update(format=2)), "not a run's description of format 1"),
    "deeper than Python reads": (
        lambda f: (f / "run.json").write_text("[" * 10**5),
        "run.json: cannot be read: maximum",
    ),
    "no settings": (edit(lambda d: d.pop("settings")), "not a run's description: 'settings' is missing"),
    "settings of text": (edit(lambda d: d.update(settings="lab")), "not a run's description: "),
    "an unknown setting": (edit(lambda d: d["settings"].update(magic=1)), "unknown setting 'magic'"),
    "a bad setting": (edit(lambda d: d["settings"].update(activation="rel")), "must be one of"),
    "a setting that is a whole book": (
        edit(lambda d: d["settings"].update(activation="a" * 10**5)),
        "run.json: not a run's description: activation = 'a{40,500}…; restore the file",
    ),
    "a setting beyond the floats": (
        edit(lambda d: d["settings"].update(learning_rate=10**400)),
        "not a run's description: ",
    ),
    "data of text": (edit(lambda d: d.update(data="digits")), "not a run's description: "),
    "no scale": (edit(lambda d: d["data"].pop("scale")), "not a run's description: 'scale' is missing"),
    "a scale of nothing": (edit(lambda d: d["data"].update(scale=None)), "scale = None: must be a finite number > 0"),
    "an infinite scale": (edit(lambda d: d["data"].update(scale=float("inf"))), "scale = inf: must be a finite number"),
    "infinite features": (edit(lambda d: d["data"].update(n_features=float("inf"))), "not a run's description: cannot"),
    "negative features": (edit(lambda d: d["data"].update(n_features=-64)), "not a run's description: "),
    "a class less": (edit(lambda d: d["data"].update(n_classes=9)), r"layer 1 .* run.json says \(16, 9\) and \(9,\)"),
    "classes of text": (edit(lambda d: d["data"].update(n_classes="10")), "n_classes = '10': must be a whole number"),
    "infinite classes": (edit(lambda d: d["data"].update(n_classes=float("inf"))), "n_classes = inf: must be a whole"),
    "no classes": (edit(lambda d: d["data"].update(n_classes=None)), "a regression needs 'squared_error'"),
    "features of text": (edit(lambda d: d["data"].update(n_features="many")), "not a run's description: invalid"),
    "other features": (edit(lambda d: d["data"].update(n_features=65)), r"layer 0 has shapes \(64, 16\) and \(16,\)"),
    "other layers": (edit(lambda d: d["settings"].update(hidden_layer_sizes=[16, 8])), "'layers.2.weight' is missing"),
    "no weights": (lambda f: (f / "weights.safetensors").unlink(), "is missing: no epoch of this run was finished"),
    "cut weights": (truncate, "weights.safetensors: cannot be read: "),
    "empty weights": (lambda f: (f / "weights.safetensors").write_bytes(b""), "cannot be read: "),
    "a tensor less": (retensor(lambda t: t.pop("layers.1.bias")), "the tensor 'layers.1.bias' is missing"),
    "another bias": (retensor(lambda t: t.update({"layers.0.bias": np.zeros((4, 4))})), "layer 0 has shapes"),
    "weights in a type that NumPy has not": (retype, "weights.safetensors: cannot be read: "),
    "weights of another type": (edit(lambda d: d["settings"].update(dtype="float64")), "layer 0 does not hold finite"),
    "a weight that is no number": (
        retensor(lambda t: t["layers.1.weight"].put(7, np.nan)),
        "layer 1 does not hold finite numbers of float32; train again",
    ),
    "an infinite bias": (retensor(lambda t: t["layers.0.bias"].put(0, np.inf)), "layer 0 does not hold finite numbers"),
    "a scalar bias": (retensor(lambda t: t.update({"layers.1.bias": np.zeros(())})), "layer 1 has shapes"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_refused(
    damage: str, recorded: tuple[Path, list[Epoch]], tmp_path: Path, numpy_backend: Backend
) -> None:
    change, message = DAMAGES[damage]
    shutil.copytree(recorded[0], tmp_path / "run")
    change(tmp_path / "run")
    with pytest.raises(RunError, match=message):
        load_model(tmp_path / "run", numpy_backend)


UNFINISHED = """
import sys
import mlp_xp
from mlp_xp.replica_runs import record_replicas

settings = mlp_xp.Settings(hidden_layer_sizes=(2,), batch_size=700, epochs=3)
data, backend = mlp_xp.load("digits").split(), mlp_xp.open_backend("numpy")
if sys.argv[2] == "alone":
    epochs = mlp_xp.record(sys.argv[1], settings, data, backend, mlp_xp.train(settings, data, backend))
else:
    trained = mlp_xp.train_replicas(settings, data, backend, 2)
    epochs = record_replicas(sys.argv[1], settings, data, backend, trained, 2)
for epoch in epochs:
    break
"""


@pytest.mark.parametrize("kind", ["alone", "replicas"])
def test_a_program_that_ends_with_epochs_left_is_silent(kind: str, tmp_path: Path) -> None:
    """They are closed when Python ends and can import no library to draw with."""
    command = [sys.executable, "-c", UNFINISHED, str(tmp_path / "run"), kind]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")
    assert len((tmp_path / "run" / "curve.jsonl").read_text().splitlines()) == 1
    assert not (tmp_path / "run" / "loss.png").exists()
    assert not list((tmp_path / "run").glob("*lock*"))
