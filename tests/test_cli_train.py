"""``mlp-xp train``: the lab's lines, a run folder, and errors that say what to do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlp_xp.cli import main
from mlp_xp.datasets import load
from mlp_xp.datasets.source import DataSource
from mlp_xp.settings import PRESETS, Settings

QUICK = ["--hidden", "8", "--epochs", "2", "--batch-size", "200"]


def settings_of(run: Path) -> Settings:
    return Settings.from_dict(json.loads((run / "run.json").read_text())["settings"])


def test_it_prints_the_labs_lines_and_records_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", *QUICK, "--out", str(run)]) == 0
    output = capsys.readouterr()
    curve = [json.loads(line) for line in (run / "curve.jsonl").read_text().splitlines()]
    expected = ["#summary:% 4d %.4f %.2f%%" % (row["epoch"], row["loss"], 100 * row["accuracy"]) for row in curve]
    assert output.out.splitlines() == expected
    assert len(expected) == 2
    assert output.err == (
        "mlp-xp: digits: 1,437 + 360 rows of 64 features, 10 classes\n"
        "mlp-xp: each line: epoch, mean loss of its batches, test accuracy\n"
        f"mlp-xp: recorded in {run}\n"
    )


def test_without_out_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *QUICK]) == 0
    assert re.fullmatch(r"(#summary:   \d \d\.\d{4} \d+\.\d\d%\n){2}", capsys.readouterr().out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [("--optimizer adam", ("adam", 0.01, 0.0, False)), ("--momentum 0.5 --nesterov", ("sgd", 0.01, 0.5, True))],
)
def test_every_option_reaches_the_run(tmp_path: Path, optimizer: str, expected: tuple[str, float, float, bool]) -> None:
    options = (
        f"--hidden 5,5 --activation tanh --loss squared_error {optimizer} --learning-rate 0.01 "
        "--beta-1 0.8 --beta-2 0.95 --epsilon 1e-6 --l2 0.001 --dropout 0.25 --max-gradient-norm 2 "
        "--residual --batch-norm --pretrain layerwise --pretrain-epochs 2 --batch-size 300 "
        "--epochs 1 --init he "
        "--seed 7 --dtype float64 --arithmetic native --device cpu --backend numpy --test-size 0.5 --scale 1/32"
    )
    assert main(["train", *options.split(), "--out", str(tmp_path / "run")]) == 0
    assert settings_of(tmp_path / "run") == Settings(
        (5, 5),
        "tanh",
        "squared_error",
        *expected,
        beta_1=0.8,
        beta_2=0.95,
        epsilon=1e-6,
        l2=0.001,
        dropout=0.25,
        max_gradient_norm=2.0,
        residual=True,
        batch_norm=True,
        pretrain="layerwise",
        pretrain_epochs=2,
        batch_size=300,
        epochs=1,
        init="he",
        seed=7,
        dtype="float64",
    )
    data = json.loads((tmp_path / "run" / "run.json").read_text())["data"]
    assert (data["n_train"], data["n_test"], data["scale"]) == (898, 899, 1 / 32)


def data_of(run: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((run / "run.json").read_text())["data"]
    return data


def test_the_split_is_the_labs_unless_another_seed_is_given(tmp_path: Path) -> None:
    for arguments, seed in (([], 2020), (["--split-seed", "7"], 7)):
        assert main(["train", *QUICK, *arguments, "--out", str(tmp_path / str(seed))]) == 0
        expected = load("digits").split(0.2, seed)
        digests = {key: value for key, value in data_of(tmp_path / str(seed)).items() if key.startswith("sha256")}
        assert digests == {"sha256_train": expected.train.digest(), "sha256_test": expected.test.digest()}
    assert data_of(tmp_path / "2020")["sha256_test"] != data_of(tmp_path / "7")["sha256_test"]


def test_the_run_says_how_to_load_its_data_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(500, 3))
    np.savetxt(tmp_path / "rows.csv", np.column_stack([rows, np.arange(500) % 3]), delimiter=",", header="a,b,c,y")
    monkeypatch.chdir(tmp_path)
    options = "--data rows.csv --label-column -1 --header --classes 4 --scale 1/8 --test-size 0.3 --split-seed 5"
    assert main(["train", *QUICK, *options.split(), "--out", "run"]) == 0
    assert (
        main(["train", *QUICK, "--data", "rows.csv", "--label-column", "-1", "--task", "regression", "--out", "r"]) == 0
    )
    monkeypatch.chdir("/")
    assert data_of(tmp_path / "run")["source"] == {
        "name": str(tmp_path / "rows.csv"),
        "label_column": -1,
        "header": True,
        "n_classes": 4,
        "regression": False,
        "scale": 1 / 8,
        "test_size": 0.3,
        "split_seed": 5,
    }
    for run in ("run", "r"):
        data = data_of(tmp_path / run)
        again = DataSource.from_dict(data["source"]).load()
        assert (again.train.digest(), again.test.digest()) == (data["sha256_train"], data["sha256_test"])


def test_a_preset_is_where_the_options_start_from(tmp_path: Path) -> None:
    for extra, expected in (
        (["--epochs", "1"], {"epochs": 1}),
        (["--epochs", "1", "--hidden", "", "--seed", "3"], {"epochs": 1, "hidden_layer_sizes": [], "seed": 3}),
    ):
        assert main(["train", "--preset", "lab", *extra, "--overwrite", "--out", str(tmp_path / "run")]) == 0
        assert settings_of(tmp_path / "run").to_dict() == {**PRESETS["lab"].to_dict(), **expected}


def test_replicas_print_mean_and_deviation_and_leave_a_run_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", *QUICK, "--replicas", "3", "--seed", "7", "--out", str(run)]) == 0
    output = capsys.readouterr()
    expected = []
    for row in (json.loads(line) for line in (run / "curve.jsonl").read_text().splitlines()):
        (loss, loss_sd, *_), (share, share_sd, *_) = row["loss"].values(), row["accuracy"].values()
        numbers = (row["epoch"], loss, loss_sd, 100 * share, 100 * share_sd)
        expected.append("#summary:% 4d %.4f ± %.4f %.2f%% ± %.2f%%" % numbers)
    assert output.out.splitlines() == expected
    assert len(expected) == 2
    assert output.err.splitlines()[1:] == [
        "mlp-xp: each line: epoch, mean loss of its batches, test accuracy; mean ± standard deviation of 3 seeds",
        f"mlp-xp: recorded in {run}",
    ]
    assert [settings_of(run / f"seed-{seed}").seed for seed in (7, 8, 9)] == [7, 8, 9]
    np.save(tmp_path / "rows.npy", np.ones((3, 64)))
    assert main(["predict", str(run / "seed-8"), "--input", str(tmp_path / "rows.npy")]) == 0
    assert main(["verify", str(run / "seed-8")]) == 0
    capsys.readouterr()
    assert main(["train", *QUICK, "--replicas", "3", "--out", str(run)]) == 2
    assert "already holds a run; choose another --out" in capsys.readouterr().err
    assert main(["predict", str(run), "--input", str(tmp_path / "rows.npy")]) == 2
    assert f"{run} holds a run per seed; give one of them, such as {run / 'seed-7'}" in capsys.readouterr().err


def test_replicas_need_not_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *QUICK, "--replicas", "2"]) == 0
    assert re.fullmatch(r"(#summary:   \d \d\.\d{4} ± 0\.\d{4} \d+\.\d\d% ± \d+\.\d\d%\n){2}", capsys.readouterr().out)
    assert list(tmp_path.iterdir()) == []


def test_a_seed_that_diverges_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--learning-rate", "1e6", "--replicas", "2", "--seed", "5"]) == 2
    assert re.search(
        r"^mlp-xp: error: seed [56]: epoch 0, step \d+: the loss is", capsys.readouterr().err, re.MULTILINE
    )


def test_more_replicas_than_the_memory_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--hidden", "4096", "--replicas", "999999999"]) == 2
    assert re.search(r"^mlp-xp: error: the memory .*; give fewer --replicas, less data, ", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ([], 4),  # the newest three, and the best
        (["--arithmetic", "exact"], 6),
        (["--keep-checkpoints", "1"], 2),
        (["--keep-checkpoints", "0"], 6),
        (["--checkpoint-every", "2"], 3),
        (["--checkpoint-every", "7"], 1),
    ],
)
def test_checkpoints_are_kept_as_often_as_asked(tmp_path: Path, options: list[str], kept: int) -> None:
    # As it is, the test loss is the least after the first epoch.
    settings = ["--hidden", "8", "--epochs", "6", "--batch-size", "200", "--learning-rate", "3"]
    assert main(["train", *settings, *options, "--out", str(tmp_path)]) == 0
    assert len(list(tmp_path.glob("checkpoints/epoch-*.safetensors"))) == kept


def test_no_checkpoints_are_kept_if_told(tmp_path: Path) -> None:
    options = ["--arithmetic", "exact", "--checkpoint-every", "0"]
    assert main(["train", *QUICK, *options, "--out", str(tmp_path)]) == 0
    assert not (tmp_path / "checkpoints").exists()


def test_a_run_is_only_replaced_when_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", *QUICK, "--out", str(tmp_path)]
    assert main(arguments) == 0
    before = (tmp_path / "weights.safetensors").read_bytes()
    capsys.readouterr()
    assert main([*arguments, "--seed", "1"]) == 2
    output = capsys.readouterr()
    assert output.out == ""  # not even trained
    assert output.err == (
        f"mlp-xp: error: {tmp_path} already holds a run; choose another --out, or replace it with --overwrite, or go "
        f"on with it: mlp-xp train --resume {tmp_path}\n"
    )
    assert (tmp_path / "weights.safetensors").read_bytes() == before
    assert main([*arguments, "--seed", "1", "--overwrite"]) == 0
    assert (tmp_path / "weights.safetensors").read_bytes() != before


def test_an_output_that_cannot_be_written_is_found_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("long" * 100)):
        assert main(["train", *QUICK, "--out", str(out)]) == 2
        output = capsys.readouterr()
        assert output.out == ""
        assert f"mlp-xp: error: {out}: cannot be written: " in output.err
        assert output.err.endswith("; choose another --out\n")


def test_a_loss_that_stops_being_finite_says_where_and_what_to_try(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--learning-rate", "1e6"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert re.search(
        r"^mlp-xp: error: epoch 0, step \d+: the loss is (nan|inf); .*; try a smaller --learning-rate \(now 1e\+06\), "
        r"or scale the features \(and the numbers of a regression\) to magnitudes near 1 \(--scale\)\n\Z",
        output.err,
        flags=re.MULTILINE,
    )
    assert "--largest-growth" not in output.err, "which would not help"


def test_a_loss_that_explodes_says_how_to_let_it(capsys: pytest.CaptureFixture[str]) -> None:
    options = "--hidden= --loss squared_error --batch-size 200 --learning-rate 0.26 --epochs 2"
    arguments = ["train", *options.split()]
    assert main(arguments) == 2
    advice, error = capsys.readouterr().err.splitlines()[-2:]
    assert advice == "mlp-xp: if such a loss is to be expected: train again, with --largest-growth inf"
    assert error.startswith("mlp-xp: error: epoch 1, step 0: the loss explodes: ")
    assert main([*arguments, "--largest-growth", "inf"]) == 0


def test_what_was_saved_before_a_divergence_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--hidden= --loss squared_error --batch-size 200 --learning-rate 0.26 --epochs 5"
    assert main(["train", *options.split(), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f"to go on with half the learning rate: mlp-xp train --resume {tmp_path} --on-divergence rollback\n" in error
    assert "mlp-xp: error: epoch 1, step 0: the loss explodes: " in error
    assert len((tmp_path / "curve.jsonl").read_text().splitlines()) == 1
    assert len((tmp_path / "steps.csv").read_text().splitlines()) == 1 + 7
    assert (tmp_path / "loss.png").exists()
    test = tmp_path / "rows.npy"
    np.save(test, np.ones((3, 64)))
    assert main(["predict", str(tmp_path), "--input", str(test)]) == 0


def test_weights_that_are_no_numbers_are_never_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The one step of the epoch has a finite loss, and what it leaves behind has not."""
    options = "--hidden= --loss squared_error --batch-size 1437 --learning-rate 1e30 --epochs 1"
    assert main(["train", *options.split(), "--out", str(tmp_path)]) == 2
    assert "epoch 0, after the last step: the test loss is inf; " in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "steps.csv"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--backend jaxx", "unknown backend 'jaxx'; known, closest first: jax, "),
        ("--device cuda:7", "backend 'numpy' has no device 'cuda:7' here; it has cpu"),
        ("--batch-size 1438", "batch_size = 1438: there are only 1437 rows to train on; choose at most 1437"),
        ("--activation rel", "sigmoid, tanh (did you mean 'relu'?)"),
        ("--nesterov", "nesterov = True: must be False unless momentum > 0"),
        ("--data nowhere.csv", "nowhere.csv: there is no such file"),
        ("--data digit", "did you mean digits?"),
        ("--classes 9", "label 9 is not below 9"),
        ("--task regression --loss cross_entropy", "a regression needs 'squared_error', or 'poisson' for numbers ≥ 0"),
        ("--loss poisson", "loss = 'poisson': takes numbers ≥ 0 to predict, not classes; choose 'cross_entropy', or"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    options: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *options.split(), "--out", str(tmp_path / "run")]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("mlp-xp: error: ")
    assert message in output.err
    assert output.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--hidden", "8;8", "'8;8' is not a list of whole numbers such as 256,256"),
        ("--scale", "1/0", "'1/0' is neither a number nor a fraction such as 1/256"),
        ("--scale", "1e400", "'1e400' is neither a number nor a fraction such as 1/256"),
        ("--scale", "0", "0 would leave nothing of the features"),
        ("--test-size", "1", "'1' is not a number between 0 and 1"),
        ("--test-size", "x", "'x' is not a number between 0 and 1"),
        ("--split-seed", "4294967296", "'4294967296' is not a whole number from 0 to 4294967295"),
        ("--split-seed", "x", "'x' is not a whole number"),
        ("--preset", "lap", "invalid choice: 'lap'"),
        ("--epochs", "few", "invalid int value: 'few'"),
        ("--checkpoint-every", "-1", "'-1' is not a whole number such as 1, or 0"),
        ("--checkpoint-every", "few", "'few' is not a whole number such as 1, or 0"),
        ("--largest-growth", "1", "'1' is not a number > 1 such as 1000, or inf"),
        ("--largest-growth", "nan", "'nan' is not a number > 1"),
        ("--largest-growth", "never", "'never' is not a number > 1"),
        ("--replicas", "1", "'1' is not a number of seeds such as 8, and at least 2"),
        ("--replicas", "-4", "'-4' is not a number of seeds"),
        ("--replicas", "2.5", "'2.5' is not a number of seeds"),
        ("--replicas", "many", "'many' is not a number of seeds"),
    ],
)
def test_an_option_that_cannot_be_read_is_named(
    option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", option, value])
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"mlp-xp train: error: argument {option}: ")
    assert message in error


def test_a_regression_from_a_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    features = np.random.default_rng(0).normal(size=(200, 3))
    table = np.column_stack([features, features @ [1.0, -2.0, 0.5]])
    np.savetxt(tmp_path / "line.csv", table, delimiter=",", header="a,b,c,y", comments="")
    run = tmp_path / "run"
    arguments = ["--data", str(tmp_path / "line.csv"), "--label-column", "-1", "--task", "regression"]
    assert main(["train", *arguments, "--hidden", "", "--epochs", "30", "--batch-size", "20", "--out", str(run)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    row = json.loads((run / "curve.jsonl").read_text().splitlines()[-1])
    assert row["accuracy"] is None
    assert row["test_loss"] < 1e-6
    assert last == f"#summary:  29 {row['loss']:.4f} {row['test_loss']:.4f}"
    assert main(["predict", str(run), "--input", str(tmp_path / "line.csv"), "--label-column", "-1"]) == 0
    header, *values = capsys.readouterr().out.splitlines()
    assert header == "value_0"
    np.testing.assert_allclose([float(value) for value in values], table[:, 3], atol=1e-3)


def test_a_warning_is_a_remark(tmp_path: Path) -> None:
    """A column next to numbers that dwarf it, of which exact arithmetic leaves nothing."""
    rng = np.random.default_rng(0)
    table = np.column_stack([np.arange(60) % 2, rng.uniform(size=60), 2.0**30 * np.arange(60)])
    np.savetxt(tmp_path / "table.csv", table, delimiter=",")
    options = ["--data", str(tmp_path / "table.csv"), "--arithmetic", "exact", "--hidden=4", "--epochs=1"]
    command = [sys.executable, "-m", "mlp_xp", "train", *options, "--batch-size=8", "--learning-rate=1e-20"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert all(line.startswith("mlp-xp: ") for line in result.stderr.splitlines())
    assert "table.csv: column 0, counted from 0, varies by 0.9" in result.stderr
