"""``mlp-xp verify``: exit code 0 for a run that is what its files say, 1 for any other, 2 for what is no run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mlp_xp.cli.verify
from mlp_xp.backend import Backend, open_backend
from mlp_xp.cli import main
from mlp_xp.datasets import Dataset, Split
from mlp_xp.lock import FolderLock
from mlp_xp.runs import record
from mlp_xp.training import train
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

STEPS = 7
"""Of an epoch."""
EXACT = ["--arithmetic", "exact", "--hidden", "4", "--batch-size", "10", "--epochs", "2"]

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, digits: Split) -> Path:
    """A run of three epochs, all as they were recorded."""
    return make_run(tmp_path_factory.mktemp("honest") / "run", digits, open_backend("numpy"))


@pytest.fixture
def run(honest: Path, tmp_path: Path) -> Path:
    """A copy of it, to be altered."""
    return Path(shutil.copytree(honest, tmp_path / "run"))


def chains(folder: Path) -> list[str]:
    found: list[str] = []
    edit_curve(lambda rows: found.extend(row["sha256_chain"] for row in rows))(folder)
    return found


def test_every_backend_says_yes_to_an_honest_run(run: Path, backend: Backend, capsys: Captured) -> None:
    device = str(backend.describe()["device"])
    assert main(["verify", str(run), "--backend", backend.name, "--device", device]) == 0
    output = capsys.readouterr()
    expected = [f"epoch {epoch}: 7 steps agree, chain {chain}" for epoch, chain in enumerate(chains(run))]
    assert output.out.splitlines() == [*expected, f"verified: all 3 epochs, 21 steps trained again on {backend.name}"]
    assert output.err == f"mlp-xp: the files agree: 3 epochs, chain {chains(run)[-1]}\n"


@pytest.mark.parametrize(
    ("span", "begin", "last"), [("1", 1, 1), ("1-2", 1, 2), ("0-0", 0, 0), ("2-2", 2, 2), ("0-1", 0, 1)]
)
def test_some_epochs_cost_their_own_steps(run: Path, span: str, begin: int, last: int, capsys: Captured) -> None:
    assert main(["verify", str(run), "--epochs", span]) == 0
    output = capsys.readouterr()
    *lines, verdict = output.out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"epoch {epoch}" for epoch in range(begin, last + 1)]
    steps = STEPS * (last - begin + 1)
    assert verdict == f"verified: epochs {begin}-{last} of 0-2, {steps} steps trained again on numpy"
    trust = f"trained again from checkpoints/epoch-{begin - 1:04d}.safetensors, which is taken on trust\n"
    assert output.err.endswith(trust) == (begin > 0)


def test_dropout_and_shortened_gradients(
    tmp_path: Path, digits: Split, numpy_backend: Backend, capsys: Captured
) -> None:
    make_run(tmp_path, digits, numpy_backend, replace(SETTINGS, dropout=0.3, max_gradient_norm=0.25))
    assert main(["verify", str(tmp_path), "--epochs", "1-1"]) == 0
    assert capsys.readouterr().out.endswith("verified: epochs 1-1 of 0-2, 7 steps trained again on numpy\n")


def test_epochs_between_checkpoints_are_said(run: Path, capsys: Captured) -> None:
    (run / "checkpoints/epoch-0001.safetensors").unlink()
    assert main(["verify", str(run), "--epochs", "2"]) == 0
    output = capsys.readouterr()
    assert output.out.endswith("verified: epochs 1-2 of 0-2, 14 steps trained again on numpy\n")
    assert "from checkpoints/epoch-0000.safetensors, which" in output.err


def test_one_of_twenty_epochs_is_a_twentieth_of_the_steps(
    tmp_path: Path, digits: Split, numpy_backend: Backend, capsys: Captured
) -> None:
    make_run(tmp_path, digits, numpy_backend, replace(SETTINGS, epochs=20))
    assert main(["verify", str(tmp_path), "--epochs", "5-5"]) == 0
    assert capsys.readouterr().out.endswith("verified: epochs 5-5 of 0-19, 7 steps trained again on numpy\n")


def test_a_run_that_is_still_written_is_not_judged(honest: Path, capsys: Captured) -> None:
    for folder in (honest, honest.parent):
        lock = FolderLock(folder)
        assert main(["verify", str(honest)]) == 2
        lock.release()
        assert capsys.readouterr().err.startswith(f"mlp-xp: error: {folder}: another process is at work in this folder")


def test_an_unfinished_run_is_called_so(run: Path, capsys: Captured) -> None:
    edit_settings({"epochs": 5})(run)
    assert main(["verify", str(run)]) == 0
    output = capsys.readouterr()
    assert "mlp-xp: the run is unfinished: 3 of 5 epochs are there\n" in output.err
    assert output.out.endswith("verified: all 3 epochs, 21 steps trained again on numpy\n")


WEIGHTS = "weights.safetensors"
ALTERATIONS: dict[str, tuple[Alteration, str]] = {
    "a weight": (edit_tensors(WEIGHTS, last_bit("layers.0.weight", 1, 2)), "weights.safetensors does not hold the"),
    "a checkpoint": (
        edit_tensors("checkpoints/epoch-0001.safetensors", last_bit("layers.0.bias", 0)),
        "curve.jsonl, line 2: sha256_layers is not that of the tensors 'layers' in checkpoints/epoch-0001.safetensors",
    ),
    "a velocity": (
        edit_tensors("checkpoints/epoch-0000.safetensors", last_bit("optimizer.velocity.0.bias", 0)),
        "curve.jsonl, line 1: sha256_optimizer is not that of the tensors 'optimizer' in checkpoints/epoch-0000",
    ),
    "a loss": (edit_curve(lambda rows: rows[1].update(loss=2.0)), "curve.jsonl, line 2: the loss is 2.0, but"),
    "a line": (edit_curve(lambda rows: rows.pop(1)), "curve.jsonl, line 2: epoch 2 where epoch 1 belongs"),
    "a step": (edit_steps(lambda lines: lines.pop(5)), "steps.csv, line 6: step 5 of epoch 0 where, by curve.jsonl"),
    "data": (edit_json(lambda run: run["data"].update(sha256_test="0" * 64)), "the data: sha256_test is '"),
    "a split": (edit_json(lambda run: run["data"]["source"].update(split_seed=1)), "the data: sha256_train is '"),
    **{
        name: (edit_settings(changes), "curve.jsonl has 3 lines" if name == "epochs" else "run.json: sha256_start is")
        for name, changes in OTHER_SETTINGS.items()
    },
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_an_alteration_is_one_line_and_exit_code_1(name: str, run: Path, capsys: Captured) -> None:
    alter, message = ALTERATIONS[name]
    alter(run)
    assert main(["verify", str(run)]) == 1
    output = capsys.readouterr()
    assert output.out == ""  # nothing was trained
    assert output.err.startswith(f"mlp-xp: DISAGREES: {message}")
    assert output.err.count("\n") == 1


def test_a_forgery_is_found_after_what_agrees(run: Path, capsys: Captured) -> None:
    last = "checkpoints/epoch-0002.safetensors"
    both(*(edit_tensors(name, last_bit("layers.1.weight", 3, 4)) for name in (last, WEIGHTS)))(run)
    forge(run)
    assert main(["verify", str(run), "--epochs", "0-1"]) == 0
    capsys.readouterr()
    assert main(["verify", str(run)]) == 1
    output = capsys.readouterr()
    assert [line.partition(":")[0] for line in output.out.splitlines()] == ["epoch 0", "epoch 1"]  # and no verdict
    assert (
        "mlp-xp: DISAGREES: epoch 2, after its last step: the tensors 'layers' are not those recorded: " in output.err
    )
    assert "layers.1.weight[3, 4] is " in output.err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 3}, "epoch 0, step 0: the loss is "),
        ({"l2": 1e-9}, "epoch 0, step 0: the loss is "),
        ({"momentum": 0.25}, "epoch 0, step 2: the loss is "),
    ],
)
def test_a_forged_setting_is_found_at_its_first_step(
    run: Path, changes: dict[str, float], message: str, capsys: Captured
) -> None:
    both(edit_settings(changes), forge)(run)
    assert main(["verify", str(run)]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert f"mlp-xp: DISAGREES: {message}" in output.err


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Sixty rows of three features and a label, as a CSV."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 3))
    rows = np.column_stack([features, np.argmax(features, axis=1)])
    np.savetxt(tmp_path / "table.csv", rows, fmt=["%.3f"] * 3 + ["%d"], delimiter=",", header="a,b,c,y", comments="")
    return tmp_path / "table.csv"


@pytest.fixture
def of_table(table: Path, tmp_path: Path, capsys: Captured) -> Path:
    """A run that was trained on the table."""
    run = tmp_path / "of_table"
    assert main(["train", *EXACT, "--data", str(table), "--label-column", "-1", "--out", str(run)]) == 0
    capsys.readouterr()
    return run


def change_feature(rows: list[str]) -> None:
    cells = rows[17].split(",")
    rows[17] = ",".join([cells[0], f"{float(cells[1]) + 0.001:.3f}", *cells[2:]])


def change_label(rows: list[str]) -> None:
    rows[17] = rows[17][:-1] + str((int(rows[17][-1]) + 1) % 3)


def swap_rows(rows: list[str]) -> None:
    rows[17], rows[18] = rows[18], rows[17]


@pytest.mark.parametrize("change", [change_feature, change_label, swap_rows])
def test_another_table_is_not_the_runs(
    change: Callable[[list[str]], None], table: Path, of_table: Path, capsys: Captured
) -> None:
    assert main(["verify", str(of_table)]) == 0
    capsys.readouterr()
    rows = table.read_text().splitlines()
    change(rows)
    table.write_text("\n".join(rows))
    assert main(["verify", str(of_table)]) == 1
    assert capsys.readouterr().err.startswith("mlp-xp: DISAGREES: the data: sha256_t")


def test_data_that_moved_are_asked_for(table: Path, of_table: Path, tmp_path: Path, capsys: Captured) -> None:
    moved = table.rename(tmp_path / "moved.csv")
    assert main(["verify", str(of_table)]) == 2
    output = capsys.readouterr()
    assert output.err.startswith(f"mlp-xp: error: {table}: there is no such file")
    assert output.err.endswith("; if the data are elsewhere now, say where with --data\n")
    assert output.err.count("\n") == 1
    assert main(["verify", str(of_table), "--data", str(moved)]) == 0
    assert capsys.readouterr().out.endswith("verified: all 2 epochs, 8 steps trained again on numpy\n")


def test_other_data_are_not_the_runs(of_table: Path, capsys: Captured) -> None:
    assert main(["verify", str(of_table), "--data", "digits"]) == 1
    assert "mlp-xp: DISAGREES: the data: n_train is 1437, but run.json says 48\n" in capsys.readouterr().err


def test_data_that_are_not_where_they_are_said_to_be(of_table: Path, capsys: Captured) -> None:
    assert main(["verify", str(of_table), "--data", "nowhere.csv"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mlp-xp: error: nowhere.csv: there is no such file")
    assert "--data" not in error


def test_a_run_on_a_programs_arrays_is_verified_there(tmp_path: Path, numpy_backend: Backend, capsys: Captured) -> None:
    features = np.random.default_rng(0).normal(size=(60, 3))
    data = Dataset("mine", features, np.argmax(features, axis=1), 3).split()
    settings = replace(SETTINGS, hidden_layer_sizes=(4,), batch_size=10)
    list(record(tmp_path, settings, data, numpy_backend, train(settings, data, numpy_backend)))
    for extra in ([], ["--data", "digits"]):
        assert main(["verify", str(tmp_path), *extra]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"mlp-xp: error: {tmp_path}: the run does not say where its data are from")
        assert error.endswith("; verify it there, with mlp_xp.verification.verify\n")


def test_a_native_run_is_verified_on_its_own_backend_and_device(
    tmp_path: Path, backend: Backend, digits: Split, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path, digits, backend, replace(SETTINGS, arithmetic="native", dtype="float32"))
    opened: list[str | None] = []

    def watch(name: str, device: str | None) -> Backend:
        opened.append(device)
        return open_backend(name, device)

    monkeypatch.setattr(mlp_xp.cli.verify, "open_backend", watch)
    assert main(["verify", str(tmp_path)]) == 0
    assert opened == [backend.describe()["device"]]
    output = capsys.readouterr()
    assert output.out.endswith(f"verified: all 3 epochs, 21 steps trained again on {backend.name}\n")
    assert "mlp-xp: native arithmetic promises nothing across libraries, versions or machines: " in output.err
    assert f"elsewhere than where {backend.name} trained this run, other bits may be rounding" in output.err


@pytest.mark.usefixtures("wrong_backends")
def test_a_native_run_on_another_library_may_disagree_and_says_why(
    tmp_path: Path, digits: Split, numpy_backend: Backend, capsys: Captured
) -> None:
    """Even where that library is off by no more than rounding."""
    make_run(tmp_path, digits, numpy_backend, replace(SETTINGS, arithmetic="native"))
    assert main(["verify", str(tmp_path), "--backend", "emulated"]) == 1
    promise, disagreement = capsys.readouterr().err.splitlines()[-2:]
    assert promise.startswith("mlp-xp: native arithmetic promises nothing across libraries")
    assert disagreement.startswith("mlp-xp: DISAGREES: epoch ")


@pytest.mark.usefixtures("wrong_backends")
def test_a_device_that_does_not_compute_exactly_verifies_nothing(run: Path, capsys: Captured) -> None:
    assert main(["verify", str(run), "--backend", "emulated"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("mlp-xp: error: backend 'emulated' on cpu does not compute exactly")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("nowhere", "nowhere holds no run (run.json is missing)"),
        ("{run} --epochs 3", "epochs 3-3: give a span of 0-2, which the run has"),
        ("{run} --epochs 1-9", "epochs 1-9: give a span of 0-2, which the run has"),
        ("{run} --backend jx", "unknown backend 'jx'; known, closest first: jax"),
        ("{run} --device cuda:7", "backend 'numpy' has no device 'cuda:7' here; it has cpu"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(options: str, message: str, honest: Path, capsys: Captured) -> None:
    assert main(["verify", *(option.format(run=honest) for option in options.split())]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"mlp-xp: error: {message}")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ("4-2", "'4-2' ends before it begins; did you mean 2-4?"),
        *((span, f"'{span}' is neither an epoch nor a span") for span in ("-1", "2-", "x", "1-2-3", "1_0", "", "1.0")),
        ("9" * 5000, "is neither an epoch nor a span of epochs such as 0-4"),
    ],
)
def test_a_span_that_cannot_be_read(span: str, message: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["verify", "run", "--epochs", span])
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("mlp-xp verify: error: argument --epochs: ")
    assert message in error


def test_the_help_says_what_is_taken_on_trust_and_what_the_exit_codes_mean(capsys: Captured) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["verify", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for statement in (
        "taken on trust",
        "0 if all agrees, 1 if anything disagrees, 2 if the run or its data cannot be read",
        "A run in exact arithmetic can be verified on any backend, one in native arithmetic on the backend, versions",
    ):
        assert statement in text


def test_a_native_replica_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["--replicas", "2"], []):
        run = tmp_path / str(len(options))
        assert main(["train", "--epochs", "1", "--hidden", "8", "--out", str(run), *options]) == 0
        main(["verify", str(run / "seed-0" if options else run)])
        said = capsys.readouterr().err
        assert ("one of 2 replicas that were trained in one computation" in said) == bool(options)
