"""``mlp-xp compare``: one table, one picture, and an exit code that a script can rely on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from mlp_xp.cli import main

QUICK = ["--hidden", "8", "--epochs", "2", "--batch-size", "100"]


def verdicts(table: str) -> list[str]:
    return [line.rsplit("  ", 1)[1] for line in table.splitlines()[1:]]


def test_two_libraries_draw_one_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--backends", "numpy, jax", *QUICK, "--out", str(tmp_path / "below" / "it")]) == 0
    output = capsys.readouterr()
    header, first, second = output.out.splitlines()
    columns = ["backend", "device", "final loss", "test accuracy", "seconds", "largest difference", "at"]
    assert [column.strip() for column in header.split("  ") if column] == columns
    assert first.split()[:2] == ["numpy", "cpu"]
    assert first.endswith("reference")
    assert second.split()[0] == "jax"
    assert " epoch " in second
    assert second.endswith("  ok")
    assert output.err.startswith("mlp-xp: digits: 1,437 + 360 rows of 64 features, 10 classes\n")
    assert output.err.endswith(f"mlp-xp: compare.json and compare.png are in {tmp_path / 'below' / 'it'}\n")
    assert {path.name for path in (tmp_path / "below" / "it").iterdir()} == {"compare.json", "compare.png"}
    assert (tmp_path / "below" / "it" / "compare.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    result = json.loads((tmp_path / "below" / "it" / "compare.json").read_text())
    assert set(result) == {"data", "settings", "tolerance", "within_tolerance", "backends"}
    assert result["within_tolerance"] is True
    curves = [np.asarray(backend["step_losses"]) for backend in result["backends"]]
    assert curves[0].shape == (2 * 14,)
    assert result["backends"][1]["difference"]["value"] == np.max(np.abs(curves[1] - curves[0]))


@pytest.mark.usefixtures("wrong_backends")
def test_a_wrong_library_is_told_by_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--backends", "numpy,tf32,readonly", *QUICK, "--out", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert verdicts(output.out) == ["reference", "OUTSIDE TOLERANCE from epoch 0, step 0", "same bits"]
    assert "a backend leaves the tolerance" in output.err
    assert "--dtype float64" in output.err
    result = json.loads((tmp_path / "compare.json").read_text())
    assert result["backends"][1]["difference"]["first_outside"] == {"epoch": 0, "step": 0}
    assert [backend["difference"]["within_tolerance"] for backend in result["backends"]] == [True, False, True]


@pytest.mark.usefixtures("wrong_backends")
def test_a_library_that_diverges_takes_no_curve_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--backends", "numpy,infinite,late,readonly", *QUICK, "--out", str(tmp_path)]) == 1
    output = capsys.readouterr()
    result = json.loads((tmp_path / "compare.json").read_text())
    _, at_once, late, _ = (backend["diverged"] for backend in result["backends"])
    assert verdicts(output.out) == ["reference", f"DIVERGED ({at_once})", f"DIVERGED ({late})", "same bits"]
    assert at_once == "epoch 0, step 0: the loss is nan"
    assert late.startswith("epoch 1, step ")
    assert output.out.splitlines()[2].split()[2:7] == ["-", "-", "0.00", "-", "-"]
    assert "a backend leaves the tolerance or diverges" in output.err
    assert {path.name for path in tmp_path.iterdir()} == {"compare.json", "compare.png"}
    assert [len(backend["step_losses"]) for backend in result["backends"]] == [28, 0, 14, 28]


def test_the_same_library_twice_repeats_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--backends", "numpy,numpy:cpu", *QUICK]) == 0
    assert "0.00e+00" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.usefixtures("wrong_backends")
def test_what_is_not_available_is_left_out_only_if_told(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compare", "--backends", "numpy,absent,readonly", *QUICK]
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    reason = "backend 'absent': the module 'no_such_library' is not installed"
    assert output.err.startswith(f"mlp-xp: error: {reason}")
    assert output.err.endswith(" (--available leaves such backends out)\n")
    assert main([*arguments, "--available"]) == 0
    output = capsys.readouterr()
    assert output.err.startswith(f"mlp-xp: left out: {reason}")
    assert len(output.out.splitlines()) == 3
    assert main(["compare", "--backends", "numpy,absent", "--available", *QUICK]) == 2
    assert "only 'numpy' of numpy, absent can be opened: nothing to compare" in capsys.readouterr().err
    assert main(["compare", "--backends", "absent,absent", "--available", *QUICK]) == 2
    assert "none of the backends absent, absent can be opened here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--backends numpy,jx --available", "unknown backend 'jx'; known, closest first: jax"),
        ("--backends numpy,numpy:cuda", "backend 'numpy' has no device 'cuda' here; it has cpu"),
        ("--backends numpy,numpy --learning-rate 1e6", "error: numpy: epoch 0, step 2: the loss is nan; "),
        ("--backends numpy,numpy --out {file}", "cannot be written: it is a file, not a folder; choose another --out"),
        ("--backends numpy,numpy --out {file}/it", "cannot be written: Not a directory; choose another --out"),
    ],
)
def test_what_cannot_be_is_said_before_or_without_a_table(
    arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["compare", *arguments.format(file=tmp_path / "file").split(), "--epochs", "1"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err


@pytest.mark.parametrize("names", ["", ",", "numpy", "numpy,"])
def test_two_backends_have_to_be_named(names: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["compare", "--backends", names])
    assert f"{names!r} does not name two backends to compare" in capsys.readouterr().err


def test_backends_are_held_against_the_spread_between_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compare", "--backends", "numpy,jax", *QUICK, "--replicas", "3", "--out", str(tmp_path)]
    assert main(arguments) == 0
    *table, sentence = capsys.readouterr().out.splitlines()
    assert len(table) == 3
    assert re.fullmatch(
        r"the largest difference between backends, \d\.\d\de-\d\d \(jax \(cpu\), epoch \d, step \d+\), is \d\S* times "
        r"the spread between 3 seeds in that epoch, \S+ \(standard deviation of a batch's loss\): less than the "
        r"seed alone changes",
        sentence,
    )
    seeds = json.loads((tmp_path / "compare.json").read_text())["seeds"]
    assert seeds["n"] == 3
    assert len(seeds["standard_deviation"]) == 2 * 14


@pytest.mark.parametrize("count", ["1", "0", "2.5", "two"])
def test_a_number_of_seeds_that_has_no_spread_is_refused(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["compare", "--backends", "numpy,numpy", "--replicas", count])
    assert f"{count!r} is not a number of seeds such as 8, and at least 2" in capsys.readouterr().err


def test_rows_of_a_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    features = np.random.default_rng(0).normal(size=(300, 4))
    labels = (features[:, 0] > 0).astype(int) + (features[:, 1] > 0)
    np.savetxt(tmp_path / "rows.csv", np.column_stack([labels, features]), delimiter=",")
    arguments = ["compare", "--backends", "numpy,readonly,strict", *QUICK, "--data", str(tmp_path / "rows.csv")]
    assert main([*arguments, "--dtype", "float64"]) == 0
    assert verdicts(capsys.readouterr().out) == ["reference", "same bits", "same bits"]
    assert main([*arguments, "--task", "regression"]) == 0
    assert [line.split()[3] for line in capsys.readouterr().out.splitlines()[1:]] == ["-", "-", "-"]  # no accuracy
