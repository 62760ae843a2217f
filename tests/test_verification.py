"""Verifying a recorded run: any backend says yes to an honest one, and every alteration and forgery is found."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from mlp_xp.backend import Backend, open_backend
from mlp_xp.datasets import Dataset, Split
from mlp_xp.digests import ADDED, digest_arrays, first_link
from mlp_xp.errors import Disagreement, RunError, SettingsError
from mlp_xp.settings import Settings
from mlp_xp.step import TrainingStep
from mlp_xp.training import Epoch
from mlp_xp.verification import RecordedRun, check_files, verify
from mlp_xp_numpy import NumPyBackend
from recorded_runs import (
    OTHER_SETTINGS,
    SETTINGS,
    Alteration,
    both,
    edit_curve,
    edit_json,
    edit_settings,
    edit_steps,
    edit_tensors,
    forge,
    last_bit,
    make_run,
)

LAST = "checkpoints/epoch-0002.safetensors"
MIDDLE = "checkpoints/epoch-0001.safetensors"
WEIGHTS = "weights.safetensors"


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, digits: Split) -> Path:
    """A run of three epochs of seven steps, all as they were recorded."""
    return make_run(tmp_path_factory.mktemp("honest") / "run", digits, open_backend("numpy"))


@pytest.fixture
def run(honest: Path, tmp_path: Path) -> Path:
    """A copy of it, to be altered."""
    return Path(shutil.copytree(honest, tmp_path / "run"))


def trained(folder: Path, data: Split, backend: Backend, **span: int) -> list[Epoch]:
    return list(verify(RecordedRun(folder), data, backend, **span))


def test_every_backend_verifies_an_honest_run(backend: Backend, honest: Path, digits: Split) -> None:
    check_files(RecordedRun(honest), digits)
    epochs = trained(honest, digits, backend)
    rows = [json.loads(line) for line in (honest / "curve.jsonl").read_text().splitlines()]
    assert [epoch.digests.chain for epoch in epochs] == [row["sha256_chain"] for row in rows]
    assert len(epochs) == 3


def test_whatever_trained_it(backend: Backend, numpy_backend: Backend, tmp_path: Path, digits: Split) -> None:
    make_run(tmp_path, digits, backend, replace(SETTINGS, optimizer="adam", momentum=0.0, l2=0.01))
    assert len(trained(tmp_path, digits, numpy_backend)) == 3


def test_dropout_and_shortened_gradients_whatever_trained_them(
    backend: Backend, numpy_backend: Backend, tmp_path: Path, digits: Split
) -> None:
    """Also from a checkpoint on: an epoch's masks do not depend on those before."""
    make_run(tmp_path, digits, backend, replace(SETTINGS, dropout=0.3, max_gradient_norm=0.25))
    assert len(trained(tmp_path, digits, numpy_backend)) == 3
    assert len(trained(tmp_path, digits, backend, first=2)) == 1


def test_a_run_from_before_a_setting_existed(run: Path, digits: Split, numpy_backend: Backend) -> None:
    edit_json(lambda description: [description["settings"].pop(name) for name in ADDED])(run)
    description = json.loads((run / "run.json").read_text())
    settings = {name: value for name, value in description["settings"].items() if name != "epochs"}
    start = json.dumps([settings, *sha256(description)], sort_keys=True, separators=(",", ":"))  # as it was then
    assert description["sha256_start"] == hashlib.sha256(start.encode()).hexdigest()
    assert len(trained(run, digits, numpy_backend)) == 3


def test_a_regression_and_two_classes_with_one_output(backend: Backend, numpy_backend: Backend, tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(60, 3))
    small = replace(SETTINGS, hidden_layer_sizes=(4,), batch_size=20)
    line = Dataset("line", features, features @ np.asarray([[1.0], [-2.0], [0.5]]), None).split()
    make_run(tmp_path / "line", line, backend, replace(small, loss="squared_error"))
    assert len(trained(tmp_path / "line", line, numpy_backend)) == 3
    halves = Dataset("halves", features, (features[:, 0] > 0).astype(np.int32), 2).split()
    make_run(tmp_path / "halves", halves, backend, replace(small, loss="binary_cross_entropy"))
    assert len(trained(tmp_path / "halves", halves, numpy_backend)) == 3


def test_a_native_run_verifies_where_it_was_made(backend: Backend, tmp_path: Path, digits: Split) -> None:
    make_run(tmp_path, digits, backend, replace(SETTINGS, arithmetic="native", dtype="float32"))
    assert len(trained(tmp_path, digits, backend)) == 3


class CountingBackend(NumPyBackend):
    """NumPy that counts the steps of training."""

    steps = 0

    def scan(self, step: Any, carry: Any, xs: tuple[Any, ...], constants: Any = ()) -> Any:
        self.steps += len(xs[0]) if isinstance(step, TrainingStep) else 0
        return super().scan(step, carry, xs, constants)


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory, digits: Split) -> Path:
    """Twenty epochs of seven steps, a checkpoint after every one."""
    return make_run(
        tmp_path_factory.mktemp("long"), digits, open_backend("numpy"), replace(SETTINGS, epochs=20, momentum=0.0)
    )


@pytest.mark.parametrize(
    ("span", "kept", "epochs"),
    [
        ({}, range(20), range(20)),
        ({"first": 5, "last": 5}, range(20), [5]),
        ({"first": 5, "last": 7}, range(20), [5, 6, 7]),
        ({"first": 19}, range(20), [19]),
        ({"last": 1}, range(20), [0, 1]),
        ({"first": 7, "last": 8}, [2, 4, 8, 12], [5, 6, 7, 8]),
        ({"first": 3, "last": 4}, [4, 9], [0, 1, 2, 3, 4]),
    ],
)
def test_a_span_costs_its_own_steps_and_those_from_the_checkpoint_before(
    long_run: Path, tmp_path: Path, digits: Split, span: dict[str, int], kept: list[int], epochs: list[int]
) -> None:
    folder = Path(shutil.copytree(long_run, tmp_path / "run"))
    for epoch in set(range(20)) - set(kept):
        (folder / f"checkpoints/epoch-{epoch:04d}.safetensors").unlink()
    trained(folder, digits, NumPyBackend(), last=0)  # so that the device's self-test is over and not counted
    backend = CountingBackend()
    assert [epoch.epoch for epoch in trained(folder, digits, backend, **span)] == list(epochs)
    assert backend.steps == 7 * len(epochs)


@pytest.mark.parametrize(("first", "last"), [(0, 3), (3, 3), (2, 1), (-1, 1)])
def test_a_span_that_the_run_has_not_is_refused_at_once(
    honest: Path, digits: Split, numpy_backend: Backend, first: int, last: int
) -> None:
    with pytest.raises(SettingsError, match=f"epochs {first}-{last}: give a span of 0-2, which the run has"):
        verify(RecordedRun(honest), digits, numpy_backend, first=first, last=last)


def test_a_run_that_was_stopped_verifies_as_far_as_it_went(
    long_run: Path, tmp_path: Path, digits: Split, numpy_backend: Backend
) -> None:
    folder = Path(shutil.copytree(long_run, tmp_path / "run"))
    edit_settings({"epochs": 25})(folder)
    assert len(trained(folder, digits, numpy_backend, first=18)) == 2


# What is altered by somebody who makes no new digests: the files disagree, and nothing need be trained.


def of_row(number: int, name: str, value: Any) -> Alteration:
    return edit_curve(lambda rows: rows[number].update({name: value}))


def of_data(name: str, value: Any) -> Alteration:
    return edit_json(lambda description: description["data"].update({name: value}))


def swap(rows: list[Any], one: int, other: int) -> None:
    rows[one], rows[other] = rows[other], rows[one]


def step_line(lines: list[str], number: int, loss: str) -> None:
    lines[number] = ",".join([*lines[number].split(",")[:2], loss])


def next_loss(lines: list[str]) -> None:
    """Change the last bit of a loss."""
    step_line(lines, 11, repr(float(np.nextafter(float(lines[11].split(",")[2]), 9.0))))


def renumber(rows: list[dict[str, Any]], *others: dict[str, Any]) -> None:
    """Put other rows in their place, numbered as they should be."""
    rows[:] = [{**row, "epoch": epoch} for epoch, row in enumerate(others)]


def swap_losses(lines: list[str], one: int, other: int) -> None:
    first, second = (lines[number].split(",")[2] for number in (one, other))
    step_line(lines, one, second)
    step_line(lines, other, first)


def swap_checkpoints(folder: Path) -> None:
    (folder / MIDDLE).rename(folder / "other")
    (folder / LAST).rename(folder / MIDDLE)
    (folder / "other").rename(folder / LAST)


ANOTHER = digest_arrays({})

ALTERATIONS: dict[str, tuple[Alteration, str]] = {
    "the last bit of a weight": (
        edit_tensors(WEIGHTS, last_bit("layers.1.weight", 3, 4)),
        r"weights.safetensors does not hold the parameters after epoch 2: layers.1.weight\[3, 4\] is (\S+), "
        r"but (?!\1 )\S+ in checkpoints/epoch-0002.safetensors; if the training was interrupted",
    ),
    "a tensor less": (
        edit_tensors(WEIGHTS, lambda tensors: tensors.pop("layers.0.bias")),
        "layers.0.bias is in checkpoints/epoch-0002.safetensors alone",
    ),
    "a tensor more": (
        edit_tensors(WEIGHTS, lambda tensors: tensors.update(a=np.zeros(1))),
        "a is not in checkpoints/epoch-0002.safetensors",
    ),
    "weights in less precision": (
        edit_tensors(WEIGHTS, lambda tensors: tensors.update({"layers.0.bias": np.zeros(8, np.float32)})),
        r"layers.0.bias is float32 of shape \(8,\), but float64 of shape \(8,\) in checkpoints/epoch-0002",
    ),
    "a weight without a checkpoint": (
        both(lambda folder: shutil.rmtree(folder / "checkpoints"), edit_tensors(WEIGHTS, last_bit("layers.0.bias", 0))),
        "weights.safetensors does not hold the parameters after epoch 2; if",
    ),
    "a weight in a checkpoint": (
        edit_tensors(MIDDLE, last_bit("layers.0.weight", 10, 2)),
        f"curve.jsonl, line 2: sha256_layers is not that of the tensors 'layers' in {MIDDLE}",
    ),
    "a weight in the last checkpoint": (
        edit_tensors(LAST, last_bit("layers.0.weight", 0, 0)),
        f"curve.jsonl, line 3: sha256_layers is not that of the tensors 'layers' in {LAST}",
    ),
    "the optimiser's state": (
        edit_tensors(MIDDLE, last_bit("optimizer.velocity.1.bias", 9)),
        f"curve.jsonl, line 2: sha256_optimizer is not that of the tensors 'optimizer' in {MIDDLE}",
    ),
    "the learning rate in a checkpoint": (
        edit_tensors(MIDDLE, last_bit("optimizer.learning_rate")),
        f"curve.jsonl, line 2: sha256_optimizer is not that of the tensors 'optimizer' in {MIDDLE}",
    ),
    "a tensor of nothing in a checkpoint": (
        edit_tensors(MIDDLE, lambda tensors: tensors.update(extra=np.zeros(1))),
        f"{MIDDLE}: the tensor 'extra' is not of a training",
    ),
    "two checkpoints swapped": (
        swap_checkpoints,
        "curve.jsonl, line 2: sha256_layers",
    ),
    "a checkpoint too many": (
        lambda folder: shutil.copy(folder / LAST, folder / "checkpoints/epoch-0003.safetensors"),
        "checkpoints/epoch-0003.safetensors is there, but curve.jsonl has no epoch 3; if the training was interrupted",
    ),
    "a loss": (of_row(1, "loss", 1.5), r"curve.jsonl, line 2: the loss is 1.5, but the mean of those in steps.csv is "),
    "a test loss": (of_row(1, "test_loss", 1.5), "curve.jsonl, line 2: sha256_chain does not cover this line"),
    "an accuracy": (of_row(0, "accuracy", 0.99), "curve.jsonl, line 1: sha256_chain does not cover this line"),
    "no accuracy": (of_row(0, "accuracy", None), "curve.jsonl, line 1: sha256_chain does not cover this line"),
    "the digest of losses": (
        of_row(2, "sha256_losses", ANOTHER),
        "curve.jsonl, line 3: sha256_losses is not that of the losses of epoch 2 in steps.csv",
    ),
    "the digest of layers": (of_row(2, "sha256_layers", ANOTHER), "curve.jsonl, line 3: sha256_layers is not that of"),
    "the digest of the optimiser": (of_row(0, "sha256_optimizer", ANOTHER), "curve.jsonl, line 1: sha256_optimizer"),
    "the chain": (of_row(0, "sha256_chain", ANOTHER), "curve.jsonl, line 1: sha256_chain does not cover this line"),
    "swapped lines": (edit_curve(lambda rows: swap(rows, 0, 1)), "curve.jsonl, line 1: epoch 1 where epoch 0 belongs"),
    "swapped contents": (
        edit_curve(lambda rows: renumber(rows, rows[1], rows[0], rows[2])),
        "curve.jsonl, line 1: sha256_losses is not that of the losses of epoch 0",
    ),
    "the first line dropped": (edit_curve(lambda rows: rows.pop(0)), "line 1: epoch 1 where epoch 0 belongs"),
    "a line dropped": (edit_curve(lambda rows: rows.pop(1)), "curve.jsonl, line 2: epoch 2 where epoch 1 belongs"),
    "the last line dropped": (
        edit_curve(lambda rows: rows.pop()),
        "steps.csv, line 16: step 0 of epoch 2 where, by curve.jsonl, nothing belongs",
    ),
    "a line twice": (edit_curve(lambda rows: rows.append(rows[2])), "curve.jsonl, line 4: epoch 2 where epoch 3"),
    "a line of nothing": (
        edit_curve(lambda rows: rows.append({**rows[2], "epoch": 3})),
        "curve.jsonl has 4 lines, but run.json asks for 3 epochs",
    ),
    "the last bit of a step's loss": (
        edit_steps(next_loss),
        "curve.jsonl, line 2: sha256_losses is not that of the losses of epoch 1 in steps.csv",
    ),
    "two steps' losses swapped": (
        edit_steps(lambda lines: swap_losses(lines, 3, 4)),
        "curve.jsonl, line 1: sha256_losses is not that of the losses of epoch 0 in steps.csv",
    ),
    "two steps swapped": (
        edit_steps(lambda lines: swap(lines, 3, 4)),
        "steps.csv, line 4: step 3 of epoch 0 where, by curve.jsonl, step 2 of epoch 0 belongs",
    ),
    "a step dropped": (
        edit_steps(lambda lines: lines.pop(9)),
        "steps.csv, line 10: step 2 of epoch 1 where, by curve.jsonl, step 1 of epoch 1 belongs",
    ),
    "the last step dropped": (
        edit_steps(lambda lines: lines.pop()),
        "steps.csv, line 22: nothing where, by curve.jsonl, step 6 of epoch 2 belongs",
    ),
    "a step more": (edit_steps(lambda lines: lines.append("2,7,1.0")), "steps.csv, line 23: step 7 of epoch 2 where"),
    "epochs interleaved": (
        edit_steps(lambda lines: lines.insert(3, lines.pop(8))),
        "steps.csv, line 4: step 0 of epoch 1 where, by curve.jsonl, step 2 of epoch 0 belongs",
    ),
    "another epoch in between": (
        edit_steps(lambda lines: lines.insert(3, "9,0,1.0")),
        "steps.csv, line 4: step 0 of epoch 9 where",
    ),
    **{
        f"{name} in run.json": (
            edit_settings(changes),
            "curve.jsonl has 3 lines, but run.json asks for 2 epochs"
            if name == "epochs"
            else "run.json: sha256_start is not that of these settings and data",
        )
        for name, changes in OTHER_SETTINGS.items()
    },
    "the start in run.json": (edit_json(lambda run: run.update(sha256_start=ANOTHER)), "run.json: sha256_start is not"),
    "no start in run.json": (edit_json(lambda run: run.update(sha256_start=None)), "run.json: sha256_start is not"),
    **{
        f"the {name} of the data in run.json": (
            of_data(name, value),
            rf"the data: {name} is \S+, but run.json says {re.escape(repr(value)[:10])}",
        )
        for name, value in {
            "n_train": 1438,
            "n_test": 0,
            "n_features": 63,
            "n_classes": 11,
            "scale": 0.125,
            "sha256_train": ANOTHER,
            "sha256_test": ["x"],
        }.items()
    },
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_an_alteration_is_found_in_the_files(name: str, run: Path, digits: Split, numpy_backend: Backend) -> None:
    alter, message = ALTERATIONS[name]
    alter(run)
    with pytest.raises(Disagreement, match=message):
        check_files(RecordedRun(run), digits)
    with pytest.raises(Disagreement, match=message):  # by the call itself: nothing is trained
        verify(RecordedRun(run), digits, numpy_backend)


@pytest.mark.parametrize("part", ["train", "test"])
def test_other_data_are_found(part: str, honest: Path, digits: Split) -> None:
    rows: Dataset = getattr(digits, part)
    features, order = rows.features.copy(), np.arange(rows.n_samples)
    features[3, 20] ^= 1
    order[[4, 5]] = [5, 4]
    labels = rows.targets.copy()
    labels[7] = (labels[7] + 1) % 10
    for other in (
        replace(rows, features=features),
        replace(rows, targets=labels),
        rows.take(order),
    ):
        with pytest.raises(Disagreement, match=f"the data: sha256_{part} is '[0-9a-f]{{64}}', but run.json says '"):
            check_files(RecordedRun(honest), digits._replace(**{part: other}))


# What is altered by somebody who makes all digests anew: the files agree, and only training finds it.


def rate(value: float) -> Alteration:
    """Return a function that changes the learning rate wherever a run holds it."""

    def change(tensors: dict[str, Any]) -> None:
        tensors["optimizer.learning_rate"] = np.asarray(value)

    return both(
        edit_settings({"learning_rate": value}),
        *(edit_tensors(f"checkpoints/epoch-{epoch:04d}.safetensors", change) for epoch in range(3)),
    )


def without_checkpoints(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoints")


FORGERIES: dict[str, tuple[Alteration, str]] = {
    "a weight": (
        both(*(edit_tensors(name, last_bit("layers.1.weight", 3, 4)) for name in (LAST, WEIGHTS))),
        r"epoch 2, after its last step: the tensors 'layers' are not those recorded: layers.1.weight\[3, 4\] is (\S+), "
        rf"but (?!\1 )\S+ in {LAST}$",
    ),
    "a weight without a checkpoint": (
        both(without_checkpoints, edit_tensors(WEIGHTS, last_bit("layers.0.bias", 5))),
        r"epoch 2, after its last step: the tensors 'layers' are not those recorded: layers.0.bias\[5\] is \S+, "
        r"but \S+ in weights.safetensors$",
    ),
    "a weight in a checkpoint": (
        edit_tensors(MIDDLE, last_bit("layers.0.weight", 10, 2)),
        rf"epoch 1, after its last step: the tensors 'layers' are not .*: layers.0.weight\[10, 2\] is .*{MIDDLE}$",
    ),
    "another shape in a checkpoint": (
        edit_tensors(MIDDLE, lambda tensors: tensors.update({"layers.0.bias": np.zeros((8, 1))})),
        r"layers.0.bias is float64 of shape \(8,\), but float64 of shape \(8, 1\) in",
    ),
    "the optimiser's state": (
        edit_tensors(MIDDLE, last_bit("optimizer.velocity.1.bias", 9)),
        rf"epoch 1, after its last step: the tensors 'optimizer' are not those recorded: "
        rf"optimizer.velocity.1.bias\[9\] is \S+, but \S+ in {MIDDLE}$",
    ),
    "the digest of parameters that were not kept": (
        both(lambda folder: (folder / MIDDLE).unlink(), of_row(1, "sha256_layers", ANOTHER)),
        "epoch 1, after its last step: the tensors 'layers' are not those recorded$",
    ),
    "a loss": (edit_steps(next_loss), r"epoch 1, step 3: the loss is (\S+), but steps.csv says (?!\1$)\S+$"),
    "a test loss": (of_row(1, "test_loss", 0.25), r"epoch 1: test_loss is \S+, but curve.jsonl says 0.25$"),
    "an accuracy": (of_row(2, "accuracy", 0.99), r"epoch 2: accuracy is \S+, but curve.jsonl says 0.99$"),
    "no accuracy": (of_row(2, "accuracy", None), r"epoch 2: accuracy is \S+, but curve.jsonl says None$"),
    "the seed": (edit_settings({"seed": 1}), r"epoch 0, step 0: the loss is \S+, but steps.csv says "),
    "the learning rate": (rate(0.125), r"epoch 0, step 1: the loss is \S+, but steps.csv says "),
    "the learning rate beyond bounds": (
        rate(1e300),
        r"epoch 0, step \d: the loss is (nan|inf), but the record goes on",
    ),
    "the learning rate of run.json alone": (
        edit_settings({"learning_rate": 0.125}),
        "checkpoints/epoch-0000.safetensors: the learning rate is not the 0.125 of run.json$",
    ),
    "the activation": (edit_settings({"activation": "tanh"}), "epoch 0, step 0: the loss is"),
    "the loss": (edit_settings({"loss": "squared_error"}), "epoch 0, step 0: the loss is"),
    "the momentum": (edit_settings({"momentum": 0.25}), "epoch 0, step 2: the loss is"),
    "nesterov": (edit_settings({"nesterov": True}), "epoch 0, step 1: the loss is"),
    "the penalty": (edit_settings({"l2": 1e-9}), "epoch 0, step 0: the loss is"),
    "dropout": (edit_settings({"dropout": 0.25}), "epoch 0, step 0: the loss is"),
    "the largest norm": (edit_settings({"max_gradient_norm": 2.0**-10}), "epoch 0, step 1: the loss is"),
    "the initialiser": (edit_settings({"init": "he"}), "epoch 0, step 0: the loss is"),
    "the layers": (edit_settings({"hidden_layer_sizes": [9]}), "epoch 0, step 0: the loss is"),
    "the arithmetic": (edit_settings({"arithmetic": "native"}), "epoch 0, step 0: the loss is"),
    "the optimiser": (edit_settings({"optimizer": "adam", "momentum": 0.0}), "epoch 0, step 1: the loss is"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_found_by_training_again(name: str, run: Path, digits: Split, numpy_backend: Backend) -> None:
    alter, message = FORGERIES[name]
    alter(run)
    forge(run)
    if "run.json alone" not in name:
        check_files(RecordedRun(run), digits)
    with pytest.raises(Disagreement, match=message):
        trained(run, digits, numpy_backend)


def test_forging_alone_changes_nothing(run: Path, honest: Path) -> None:
    """So what the test above finds is the alteration."""
    forge(run)
    descriptions = [json.loads((folder / "run.json").read_text()) for folder in (run, honest)]
    curves = [(folder / "curve.jsonl").read_text() for folder in (run, honest)]
    assert descriptions[0] == descriptions[1]
    assert curves[0] == curves[1]


@pytest.mark.parametrize(("name", "value"), [("beta_1", 0.8), ("beta_2", 0.9), ("epsilon", 1e-7)])
def test_adams_settings_are_no_more_easily_forged(
    name: str, value: float, tmp_path: Path, digits: Split, numpy_backend: Backend
) -> None:
    make_run(tmp_path, digits, numpy_backend, replace(SETTINGS, optimizer="adam", momentum=0.0))
    edit_settings({name: value})(tmp_path)
    forge(tmp_path)
    with pytest.raises(Disagreement, match=r"epoch 0, step [12]: the loss is \S+, but steps.csv says "):
        trained(tmp_path, digits, numpy_backend)


def test_every_backend_finds_a_forgery(backend: Backend, run: Path, digits: Split) -> None:
    both(*(edit_tensors(name, last_bit("layers.1.weight", 3, 4)) for name in (LAST, WEIGHTS)))(run)
    forge(run)
    with pytest.raises(Disagreement, match=r"epoch 2, after its last step: .*layers.1.weight\[3, 4\] is "):
        trained(run, digits, backend, first=2)


def test_what_is_not_trained_again_is_taken_on_trust(run: Path, digits: Split, numpy_backend: Backend) -> None:
    edit_tensors(MIDDLE, lambda tensors: tensors["layers.1.bias"].fill(0.5))(run)
    forge(run)
    assert len(trained(run, digits, numpy_backend, last=0)) == 1
    with pytest.raises(Disagreement, match="epoch 2, step"):  # which no longer follows from epoch 1
        trained(run, digits, numpy_backend, first=2)


def test_a_forged_checkpoint_that_does_not_fit_is_named(run: Path, digits: Split, numpy_backend: Backend) -> None:
    edit_tensors(MIDDLE, lambda tensors: tensors.update({"layers.0.bias": np.zeros((8, 1))}))(run)
    forge(run)
    message = rf"{MIDDLE} and run.json: the checkpoint's tensor 'layers.0.bias' is float64 of shape \(8, 1\), not"
    with pytest.raises(Disagreement, match=message):
        verify(RecordedRun(run), digits, numpy_backend, first=2)


def test_a_forged_batch_that_is_larger_than_the_data(run: Path, digits: Split) -> None:
    edit_settings({"batch_size": 1438})(run)
    edit_steps(lambda lines: lines.__delitem__(slice(1, None)))(run)
    edit_json(lambda d: d.update(sha256_start=first_link(Settings.from_dict(d["settings"]), *sha256(d))))(run)
    with pytest.raises(Disagreement, match=r"run.json: batch_size = 1438, of 1437 training rows"):
        check_files(RecordedRun(run), digits)


def test_forged_losses_whose_sum_is_beyond_the_floats(run: Path, digits: Split, numpy_backend: Backend) -> None:
    for step in range(7):
        edit_steps(lambda lines, number=step + 1: step_line(lines, number, "1.5e308"))(run)  # type: ignore[misc]
    forge(run)
    with pytest.raises(Disagreement, match=r"epoch 0, step 0: the loss is \S+, but steps.csv says 1.5e"):
        trained(run, digits, numpy_backend)


def sha256(description: dict[str, Any]) -> tuple[str, str]:
    return description["data"]["sha256_train"], description["data"]["sha256_test"]


# What is no run at all.


def line(name: str, number: int, text: str) -> Alteration:
    """Return a function that replaces a line of a file."""

    def alter(folder: Path) -> None:
        lines = (folder / name).read_text().splitlines()
        lines[number - 1] = text
        (folder / name).write_text("".join(f"{each}\n" for each in lines))

    return alter


def cut(name: str) -> Alteration:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


def drop(*names: str) -> Alteration:
    def change(description: dict[str, Any]) -> None:
        *path, last = names
        for name in path:
            description = description[name]
        del description[last]

    return edit_json(change)


def into_folder(name: str) -> Alteration:
    def alter(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return alter


def into_file(folder: Path) -> None:
    without_checkpoints(folder)
    (folder / "checkpoints").touch()


def into_pipe(name: str) -> Alteration:
    """Put a pipe to which nobody writes in a file's place: to open it would wait for ever."""

    def alter(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return alter


def header(change: Callable[[int], int]) -> Alteration:
    """Let the weights' file say another length of its header."""

    def alter(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        size = change(int.from_bytes(content[:8], "little"))
        (folder / WEIGHTS).write_bytes(size.to_bytes(8, "little") + content[8:])

    return alter


CURVE, STEPS = "curve.jsonl", "steps.csv"
UNUSABLE: dict[str, tuple[Alteration, str]] = {
    "no run": (shutil.rmtree, r"holds no run \(run.json is missing\); make one with: mlp-xp train --out"),
    "a run without digests": (drop("sha256_start"), "run.json: not the .* run with digests: 'sha256_start' is missing"),
    "no settings": (drop("settings"), "run.json: not the description of a run with digests: 'settings' is missing"),
    "no source": (drop("data", "source"), "run.json: not the description of a run with digests: 'source' is missing"),
    "no backend": (drop("backend", "name"), "run.json: not the description of a run with digests: 'name' is missing"),
    "settings in a list": (
        edit_json(lambda d: d.update(settings=[1])),
        r"run.json: .*'settings' is \[1\], not an object",
    ),
    "data in a text": (edit_json(lambda d: d.update(data="digits")), "run.json: .*'data' is 'digits', not an object"),
    "no backend at all": (edit_json(lambda d: d.update(backend=None)), "run.json: .*'backend' is None, not an object"),
    "a setting of no use": (edit_settings({"epochs": "3"}), "run.json: not a run's description: epochs = '3': must be"),
    "an unknown setting": (edit_settings({"epoch": 3}), "run.json: not a run's description: unknown setting 'epoch'"),
    "a setting that is no number": (
        edit_settings({"learning_rate": float("nan")}),
        "run.json: not a run's description: learning_rate = nan: must be a number > 0",
    ),
    "a source that is none": (
        edit_json(lambda d: d["data"].update(source=[])),
        "run.json: .*a data source has no name",
    ),
    "a source with more": (
        edit_json(lambda d: d["data"]["source"].update(url="x")),
        "run.json: not a run's description: unknown property of a data source: 'url'",
    ),
    "no curve": (lambda folder: (folder / CURVE).unlink(), "curve.jsonl is missing"),
    "an empty curve": (
        lambda folder: (folder / CURVE).write_text(""),
        "curve.jsonl is empty: no epoch of this run was",
    ),
    "a folder for a curve": (into_folder(CURVE), "curve.jsonl: cannot be read: "),
    "a curve of bytes": (
        lambda folder: (folder / CURVE).write_bytes(b"\xff\n"),
        "curve.jsonl: cannot be read: 'utf-8'",
    ),
    "no json": (line(CURVE, 2, "epoch 1"), "curve.jsonl, line 2: cannot be read: Expecting value .column 1.;"),
    "a blank line": (line(CURVE, 2, ""), "curve.jsonl, line 2: cannot be read: Expecting value"),
    "a line cut off": (cut(CURVE), "curve.jsonl, line 3: cannot be read: "),
    "a list": (line(CURVE, 1, "[0]"), "curve.jsonl, line 1: not an epoch's record"),
    "deeper than Python reads": (line(CURVE, 1, "[" * 10**4), "curve.jsonl, line 1: cannot be read: maximum recursion"),
    "a line without an end": (
        line(CURVE, 1, "[" * 10**5),
        "curve.jsonl, line 1: cannot be read: it has more than 65,536",
    ),
    "a digest of another length": (of_row(1, "sha256_chain", "ab"), "'sha256_chain' is 'ab', not 64 hexadecimal"),
    "a loss too short": (
        line(STEPS, 4, "0,2,1"),
        "steps.csv, line 4: not a step's record: the loss is '1', not a float",
    ),
    "a step beyond counting": (line(STEPS, 4, "0,9999999999,1.0"), "steps.csv, line 4: not a step's record: "),
    "a pipe for a curve": (into_pipe(CURVE), "curve.jsonl: cannot be read: it is a pipe or a device, not a"),
    "a pipe for weights": (into_pipe(WEIGHTS), "weights.safetensors: cannot be read: it is a pipe or a"),
    "a pipe for the run": (into_pipe("run.json"), "run.json: cannot be read: it is a pipe or a device, not"),
    "a run of a mebibyte": (
        lambda folder: (folder / "run.json").write_text(" " * (1 << 20) + "{}"),
        "run.json: cannot be read: it has more than 1,048,576 bytes",
    ),
    "a header longer than the file": (
        header(lambda size: size + 10**6),
        "weights.safetensors: cannot be read: its hea",
    ),
    "a header of exabytes": (header(lambda _: 2**63), "weights.safetensors: cannot be read: its header of 9,223,372"),
    "a header of more than a mebibyte": (
        lambda folder: (folder / WEIGHTS).write_bytes(
            safetensors.numpy.save({"layers.0.bias": np.zeros(2)}, {"much": "x" * (1 << 20)})
        ),
        "weights.safetensors: cannot be read: its header of 1,048,",
    ),
    "no header": (header(lambda _: 0), "weights.safetensors: cannot be read: its header of 0 bytes is not within the "),
    "longer than Python reads": (line(CURVE, 1, "9" * 5000), "curve.jsonl, line 1: cannot be read: Exceeds the limit"),
    "a column less": (edit_curve(lambda rows: rows[1].pop("test_loss")), "curve.jsonl, line 2: 'test_loss' is missing"),
    "a text for a number": (of_row(1, "loss", "0.5"), "line 2: 'loss' is '0.5', not a finite float"),
    "a whole number for a float": (of_row(1, "test_loss", 1), "line 2: 'test_loss' is 1, not a finite float"),
    "a huge number": (of_row(1, "loss", 10**4000), r"line 2: 'loss' is 10+\.\.\.0+, not a finite float"),
    "NaN": (of_row(0, "loss", float("nan")), "line 1: 'loss' is nan, not a finite float"),
    "Infinity": (of_row(0, "test_loss", float("-inf")), "line 1: 'test_loss' is -inf, not a finite float"),
    "an accuracy that is no number": (of_row(0, "accuracy", float("nan")), "line 1: 'accuracy' is nan, not a finite"),
    "no loss": (of_row(0, "loss", None), "line 1: 'loss' is None, not a finite float"),
    "an epoch of truth": (of_row(1, "epoch", True), "line 2: 'epoch' is True, not a whole number"),
    "an epoch beyond all": (of_row(1, "epoch", 10**4000), r"line 2: 'epoch' is 10+\.\.\.0+, not a whole number"),
    "a fraction of an epoch": (of_row(1, "epoch", 1.0), "line 2: 'epoch' is 1.0, not a whole number"),
    "a digest that is no text": (of_row(2, "sha256_chain", 7), "line 3: 'sha256_chain' is 7, not a text"),
    "a digest in a list": (of_row(2, "sha256_layers", ["x"]), r"line 3: 'sha256_layers' is \['x'\], not a text"),
    "no steps": (lambda folder: (folder / STEPS).unlink(), "steps.csv is missing"),
    "empty steps": (lambda folder: (folder / STEPS).write_text(""), "steps.csv, line 1: '' is not 'epoch,step,loss'"),
    "another header": (line(STEPS, 1, "step,epoch,loss"), "steps.csv, line 1: 'step,epoch,loss' is not 'epoch,step,l"),
    "a column more": (line(STEPS, 4, "0,2,1.0,1"), "steps.csv, line 4: not a step's record: 4 columns"),
    "a step in words": (line(STEPS, 4, "0,two,1.0"), "steps.csv, line 4: not a step's record: invalid literal"),
    "a loss in words": (line(STEPS, 4, "0,2,low"), "steps.csv, line 4: not a step's record: could not convert"),
    "a loss of NaN": (line(STEPS, 4, "0,2,nan"), "steps.csv, line 4: not a step's record: the loss is nan"),
    "an infinite loss": (line(STEPS, 4, "0,2,1e999"), "steps.csv, line 4: not a step's record: the loss is inf"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "weights.safetensors is missing: no epoch of this run"),
    "cut weights": (cut(WEIGHTS), "weights.safetensors: cannot be read: "),
    "a cut checkpoint": (cut(MIDDLE), "epoch-0001.safetensors: cannot be read: "),
    "a folder for a checkpoint": (into_folder(MIDDLE), "epoch-0001.safetensors: cannot be read: "),
    "a file for the checkpoints": (into_file, "checkpoints: cannot be read: Not a directory"),
}
REMEDY = re.compile(r"(; restore the file from a copy, or train again|make one with: .*)$")


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_run_that_cannot_be_read_says_where_and_what_to_do(name: str, run: Path, digits: Split) -> None:
    alter, message = UNUSABLE[name]
    alter(run)
    with pytest.raises(RunError, match=message) as caught:
        check_files(RecordedRun(run), digits)
    assert REMEDY.search(str(caught.value))
    assert str(run) in str(caught.value)
    assert len(str(caught.value)) < len(str(run)) + 250


def test_a_folder_of_checkpoints_that_is_closed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", closed)
    with pytest.raises(RunError, match="checkpoints: cannot be read: Permission denied; mend that, then try again"):
        RecordedRun(run)


def test_other_files_among_the_checkpoints_are_nobodys_business(run: Path, digits: Split) -> None:
    for name in ("notes.txt", "epoch-00001.safetensors", "epoch-7.safetensors", ".epoch-0001.safetensors.ab"):
        (run / "checkpoints" / name).touch()
    recorded = RecordedRun(run)
    assert recorded.checkpoints == [0, 1, 2]
    check_files(recorded, digits)
