"""``mlp-xp train --resume``: what it prints, what it refuses, and signals from outside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mlp_xp.cli import main
from mlp_xp.run_folder import how_to_go_on

QUICK = ["--hidden", "8", "--batch-size", "200"]


def shorten(run: Path, n: int) -> None:
    """Leave of a run what it had when the process was killed in the epoch after the first n."""
    for path in (run / "checkpoints").iterdir():
        if int(path.name[6:10]) >= n:
            path.unlink()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["train", *QUICK, "--epochs", "4", "--keep-checkpoints", "0", "--out", str(run)]) == 0
    return run


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    shorten(tmp_path / "run", 2)
    return tmp_path / "run"


def chain(run: Path) -> str:
    found: str = json.loads((run / "curve.jsonl").read_text().splitlines()[-1])["sha256_chain"]
    return found


def test_it_prints_the_epochs_that_were_missing(run: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", str(run)]) == 0
    output = capsys.readouterr()
    assert [line[:13] for line in output.out.splitlines()] == ["#summary:   2", "#summary:   3"]
    assert output.err == (
        f"mlp-xp: {run} goes on with epoch 2, step 0\n"
        "mlp-xp: digits: 1,437 + 360 rows of 64 features, 10 classes\n"
        "mlp-xp: each line: epoch, mean loss of its batches, test accuracy\n"
        f"mlp-xp: recorded in {run}\n"
    )
    assert chain(run) == chain(whole)
    assert main(["verify", str(run)]) == 0
    capsys.readouterr()
    assert main(["train", "--resume", str(run)]) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"mlp-xp: {run} is finished\n")


def test_more_epochs_can_be_asked_for(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", str(run), "--epochs", "5"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main(["train", "--resume", str(run), "--epochs", "4"]) == 2
    assert capsys.readouterr().err == "mlp-xp: error: epochs = 4: the run has 5 already; give that many at least\n"


def test_another_backend_is_remarked(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("jax", reason="needs JAX")
    assert main(["train", "--resume", str(run), "--backend", "jax"]) == 0
    assert "the run was on numpy; from here on the last bits are those of jax: only exact" in capsys.readouterr().err
    shorten(run, 3)
    assert main(["train", "--resume", str(run)]) == 0
    assert "the run was on" not in capsys.readouterr().err, "by default it goes on where it was last"
    backends = [each["backend"]["name"] for each in json.loads((run / "run.json").read_text())["resumed"]]
    assert backends == ["jax", "jax"]
    assert main(["verify", str(run), "--epochs", "0-1"]) == 0
    remark = "this run was trained on numpy and then on jax; in native arithmetic the bits can only be those of the epo"
    assert remark in capsys.readouterr().err


def test_data_that_were_moved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = np.column_stack([np.arange(60) % 3, np.random.default_rng(0).normal(size=(60, 4))])
    np.savetxt(tmp_path / "table.csv", table, delimiter=",")
    run = tmp_path / "run"
    options = ["--data", str(tmp_path / "table.csv"), "--batch-size", "10", "--hidden", "4", "--epochs", "3"]
    assert main(["train", *options, "--out", str(run)]) == 0
    expected = chain(run)
    shorten(run, 1)
    (tmp_path / "table.csv").rename(tmp_path / "moved.csv")
    capsys.readouterr()
    assert main(["train", "--resume", str(run)]) == 2
    assert capsys.readouterr().err.endswith("; if the data are elsewhere now, say where with --data\n")
    assert main(["train", "--resume", str(run), "--data", str(tmp_path / "moved.csv")]) == 0
    assert chain(run) == expected
    assert main(["train", "--resume", str(run), "--data", "mnist.csv"]) == 2
    np.savetxt(tmp_path / "moved.csv", table[:50], delimiter=",")
    assert main(["train", "--resume", str(run), "--data", str(tmp_path / "moved.csv")]) == 2
    assert f"error: {run}: the data are not those it was trained on: n_train is 40, but " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--hidden 9", "--hidden"),
        ("--learning-rate 0.2", "--learning-rate"),
        ("--out elsewhere", "--out"),
        ("--overwrite", "--overwrite"),
        ("--replicas 3", "--replicas"),
        ("--preset lab", "--preset"),
        ("--test-size 0.5", "--test-size"),
        ("--checkpoint-every 3", "--checkpoint-every"),
        ("--checkpoint-every 1", "--checkpoint-every"),  # the default, of a run that may have been given another
        ("--split-seed 2020", "--split-seed"),
    ],
)
def test_how_it_is_trained_cannot_change(
    options: str, named: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--resume", str(run), *options.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mlp-xp: error: {named} does not go with --resume: {run} says how it is trained and recor")
    assert error.count("\n") == 1


def test_data_that_are_the_default_are_taken_at_their_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = np.random.default_rng(0).integers(0, 2, (50, 4))
    np.savetxt(tmp_path / "t.csv", table, fmt="%d", delimiter=",")
    options = ["--hidden", "4", "--batch-size", "10", "--epochs", "1"]
    assert main(["train", *options, "--data", str(tmp_path / "t.csv"), "--out", str(tmp_path / "run")]) == 0
    assert main(["train", "--resume", str(tmp_path / "run"), "--data", "digits", "--epochs", "2"]) == 2
    assert "the data are not those it was trained on: n_train is 1437, but " in capsys.readouterr().err


def test_what_is_no_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        assert main(["train", "--resume", str(folder)]) == 2
        assert f"error: {folder} holds no run (run.json is missing); make one with: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_rollback_is_a_remark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--hidden= --loss squared_error --batch-size 200 --learning-rate 0.26 --epochs 3"
    assert main(["train", *options.split(), "--out", str(tmp_path)]) == 2
    capsys.readouterr()
    assert main(["train", "--resume", str(tmp_path), "--on-divergence", "rollback"]) == 0
    output = capsys.readouterr()
    assert [line[:13] for line in output.out.splitlines()] == ["#summary:   1", "#summary:   2"]
    (remark,) = [line for line in output.err.splitlines() if "explodes" in line]
    assert remark.startswith("mlp-xp: epoch 1, step 0: the loss explodes: ")
    assert remark.endswith("; began epoch 1 again with the learning rate 0.13")
    shorten(tmp_path, 1)
    assert main(["train", "--resume", str(tmp_path)]) == 0, "what was chosen last is what the run says"
    assert remark in capsys.readouterr().err
    shorten(tmp_path, 1)
    assert main(["train", "--resume", str(tmp_path), "--on-divergence", "stop"]) == 2


@pytest.mark.parametrize("more", [[], ["--replicas", "2"]], ids=["alone", "replicas"])
def test_a_loss_may_be_let_grow(more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path)
    options = "--hidden= --loss squared_error --batch-size 200 --learning-rate 0.26 --epochs 3"
    assert main(["train", *options.split(), "--out", run, *more]) == 2
    way_out = f"mlp-xp: if such a loss is to be expected: mlp-xp train --resume {run} --largest-growth inf\n"
    assert way_out in capsys.readouterr().err
    assert main(["train", "--resume", run, "--largest-growth", "inf"]) == 0
    assert main(["train", *options.split(), "--out", run, "--overwrite", "--largest-growth", "inf", *more]) == 0


COMMAND = [
    sys.executable,
    "-c",
    # Tests may be run in the background, where Ctrl-C is ignored, and what is ignored is inherited.
    """
import signal, sys, time
import mlp_xp.cli.train
from mlp_xp.cli import main

def load_split(source):
    print("loading", flush=True)
    time.sleep(60)

signal.signal(signal.SIGINT, signal.default_int_handler)
if "slowly" in sys.argv:
    mlp_xp.cli.train.load_split = load_split
sys.exit(main([word for word in sys.argv[1:] if word != "slowly"]))
""",
]


@pytest.mark.skipif(os.name != "posix", reason="POSIX's signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_before_there_is_anything_to_save_is_not_waited_on(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    pipe = subprocess.PIPE
    command = [*COMMAND, "slowly", "train", "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"loading\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (code, b"mlp-xp: interrupted\n" if number == signal.SIGINT else b"")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(os.name != "posix", reason="POSIX's signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    ("kept", "times"), [(True, 1), (False, 1), (True, 2)], ids=["kept", "not kept", "twice at once"]
)
def test_a_signal_finishes_the_step_and_saves(
    kept: bool, times: int, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """Also one that comes to the process and to its group, as ``timeout`` sends it."""
    run = tmp_path / "run"
    out = ["--out", str(run)] if kept else []
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, "train", *QUICK, "--epochs", "100000", *out], stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.005)
        lines, errors = process.communicate(timeout=60)
    said = errors.decode()
    assert process.returncode == code
    assert f"mlp-xp: {number.name}: finishing the step, and saving if asked to; once more stops at once\n" in said
    n_epochs = 1 + len(lines.splitlines())
    what = (
        f"what it has learnt is kept; go on with: mlp-xp train --resume {run}" if kept else "nothing is kept, for want"
    )
    assert f"mlp-xp: interrupted after {n_epochs} epochs; {what}" in said
    if kept:
        assert main(["train", "--resume", str(run), "--epochs", str(n_epochs + 1)]) == 0
        assert len((run / "curve.jsonl").read_text().splitlines()) == n_epochs + 1
        assert main(["verify", str(run)]) == 0


@pytest.mark.skipif(os.name != "posix", reason="POSIX's signals")
@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_signal_that_ends_the_reader_too_saves_all_the_same(closed: str, tmp_path: Path) -> None:
    """As Ctrl-C does in ``mlp-xp train … 2>&1 | tee log``."""
    run, pipe = tmp_path / "run", subprocess.PIPE
    options = ["--hidden", "512,512", "--epochs", "100000", "--checkpoint-every", "0", "--out", str(run)]
    with subprocess.Popen([*COMMAND, "train", *options], stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()
        getattr(process, closed).close()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    assert len(list((run / "checkpoints").iterdir())) >= 1
    assert main(["train", "--resume", str(run), "--epochs", "2"]) == (2 if len(steps(run)) > 2 else 0)


def steps(run: Path) -> list[str]:
    return (run / "curve.jsonl").read_text().splitlines()


def test_what_to_type_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "my run"
    options = "--hidden= --loss squared_error --batch-size 200 --learning-rate 0.26 --epochs 3"
    assert main(["train", *options.split(), "--out", str(run)]) == 2
    assert f"mlp-xp train --resume '{run}' --on-divergence rollback\n" in capsys.readouterr().err
    assert main(["train", "--out", str(run)]) == 2
    assert f"or go on with it: mlp-xp train --resume '{run}'\n" in capsys.readouterr().err


def test_what_has_no_epoch_yet_is_begun_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--hidden", "8", "--learning-rate", "1e6", "--epochs", "2", "--out", str(tmp_path)]
    assert main(["train", *options]) == 2
    way = f"mlp-xp: to go on with half the learning rate: mlp-xp train --resume {tmp_path} --on-divergence rollback\n"
    assert way in capsys.readouterr().err
    assert how_to_go_on(tmp_path) == f"it has no checkpoint yet; begin it again with: mlp-xp train --resume {tmp_path}"
    assert main(["train", "--resume", str(tmp_path), "--on-divergence", "rollback"]) == 2
    error = capsys.readouterr().err
    assert error.endswith("; the learning rate was halved 10 times already\n")
    assert "--on-divergence" not in error


def test_other_versions_are_a_remark(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    description = json.loads((run / "run.json").read_text())
    description["versions"] |= {"mlp_xp": "0.0.1", "python": "3.0", "numpy": "1.0"}
    description["backend"]["numpy"] = "1.0"
    (run / "run.json").write_text(json.dumps(description))
    assert main(["train", "--resume", str(run)]) == 0
    remark = "mlp-xp: the run was with mlp_xp 0.0.1, numpy 1.0; from here on the last bits may be others\n"
    assert remark in capsys.readouterr().err
    shorten(run, 1)
    assert main(["train", "--resume", str(run)]) == 0
    assert "the run was with" not in capsys.readouterr().err, "what was done last counts"


def test_other_versions_are_a_remark_only_where_they_train(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", str(run)]) == 0
    description = json.loads((run / "run.json").read_text())
    description["resumed"][-1]["versions"]["mlp_xp"] = "0.0.1"
    (run / "run.json").write_text(json.dumps(description))
    for more, said in (([], False), (["--epochs", "5"], True)):
        capsys.readouterr()
        assert main(["train", "--resume", str(run), *more]) == 0
        assert ("mlp-xp: the run was with mlp_xp 0.0.1; from here on" in capsys.readouterr().err) == said


def test_without_a_checkpoint_no_resume_is_advised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--hidden= --loss squared_error --batch-size 200 --learning-rate 0.26 --epochs 3 --checkpoint-every 0"
    arguments = ["train", *options.split(), "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert (
        "half the learning rate: train again, with --overwrite and --on-divergence rollback\n"
        in capsys.readouterr().err
    )
    assert main([*arguments, "--overwrite", "--on-divergence", "rollback"]) == 0


@pytest.mark.parametrize("command", ["verify", "predict"])
def test_where_going_on_mends_a_run_it_is_said(command: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "weights.safetensors").unlink()
    with (run / "curve.jsonl").open("a") as file:
        file.write('{"epoch": ')
    options = ["--input", "rows.csv"] if command == "predict" else []
    assert main([command, str(run), *options]) == 2
    assert capsys.readouterr().err.endswith(f"; if it was interrupted, go on with: mlp-xp train --resume {run}\n")
    assert main(["train", "--resume", str(run)]) == 0
    capsys.readouterr()
    assert main(["verify", str(run)]) == 0


@pytest.mark.parametrize(
    "options",
    [
        "--hidden 64,64 --pretrain layerwise --pretrain-epochs 3 --learning-rate 1e30 --activation relu",
        "--hidden 64,64 --learning-rate 1e300 --dtype float64 --on-divergence rollback",
    ],
    ids=["in pre-training", "rolled back in vain"],
)
def test_no_rollback_is_advised_where_none_helps(
    options: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *options.split(), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "the loss is" in error
    assert "--on-divergence" not in error
    assert "--largest-growth" not in error
