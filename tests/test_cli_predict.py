"""``mlp-xp predict``: the same labels on every backend, from a run that any of them trained."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from mlp_xp.backend import Backend
from mlp_xp.cli import main
from mlp_xp.datasets import load


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained on digits by NumPy."""
    folder = tmp_path_factory.mktemp("run")
    assert main(["train", "--hidden", "16", "--epochs", "4", "--batch-size", "50", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty digits as a CSV without labels."""
    path = tmp_path_factory.mktemp("data") / "digits.csv"
    np.savetxt(path, load("digits").features[:80], fmt="%d", delimiter=",")
    return path


def table(text: str) -> tuple[list[str], np.ndarray]:
    header, *rows = csv.reader(io.StringIO(text))
    return header, np.asarray(rows, dtype=np.float64)


def test_labels_and_probabilities(run: Path, digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(run), "--input", str(digits)]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    header, values = table(output.out)
    assert header == ["label", *(f"probability_{i}" for i in range(10))]
    assert values.shape == (80, 11)
    np.testing.assert_allclose(values[:, 1:].sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(values[:, 0], np.argmax(values[:, 1:], axis=1))
    assert np.mean(values[:, 0] == load("digits").targets[:80]) > 0.7
    cell = output.out.splitlines()[1].split(",")[1]
    assert str(np.float32(cell)) == cell  # no more digits than a float32 has


def test_every_backend_says_the_same(
    run: Path, digits: Path, backend: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["predict", str(run), "--input", str(digits)]
    assert main(arguments) == 0
    _, expected = table(capsys.readouterr().out)
    device = str(backend.describe()["device"])
    assert main([*arguments, "--backend", backend.name, "--device", device]) == 0
    _, values = table(capsys.readouterr().out)
    np.testing.assert_array_equal(values[:, 0], expected[:, 0])
    # Sums of 64 and of 16 products, then exp: some dozens of roundings.
    np.testing.assert_allclose(values, expected, atol=64 * float(np.finfo(np.float32).eps), rtol=0)


def test_whichever_trained_it(
    backend: Backend, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--hidden",
        "8",
        "--epochs",
        "1",
        "--dtype",
        "float64",
        "--backend",
        backend.name,
        "--out",
        str(tmp_path),
    ]
    assert main(["train", *options, "--device", str(backend.describe()["device"])]) == 0
    capsys.readouterr()
    assert main(["predict", str(tmp_path), "--input", str(digits)]) == 0
    _, values = table(capsys.readouterr().out)
    assert values.shape == (80, 11)
    np.testing.assert_allclose(values[:, 1:].sum(axis=1), 1.0, atol=1e-14)


def test_a_label_column_is_left_out(
    run: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(run), "--input", str(digits)]) == 0
    expected = capsys.readouterr().out
    labelled = tmp_path / "labelled.csv"
    lines = digits.read_text().splitlines()
    labelled.write_text("".join(f"{line},0\n" for line in [",".join(f"p{i}" for i in range(64)), *lines]))
    assert main(["predict", str(run), "--input", str(labelled), "--label-column", "-1", "--header"]) == 0
    assert capsys.readouterr().out == expected


def test_a_file_is_written_whole(run: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(run), "--input", str(digits)]) == 0
    expected = capsys.readouterr().out
    target = tmp_path / "labels.csv"
    target.write_text("old")
    assert main(["predict", str(run), "--input", str(digits), "--output", str(target)]) == 0
    assert capsys.readouterr().out == ""
    assert target.read_text() == expected
    assert list(tmp_path.iterdir()) == [target]


def test_the_input_is_not_replaced(run: Path, digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = digits.read_bytes()
    assert main(["predict", str(run), "--input", f"{digits.parent}/./{digits.name}", "--output", str(digits)]) == 2
    error = capsys.readouterr().err
    assert error == f"mlp-xp: error: --output {digits} would replace the --input; choose another name\n"
    assert digits.read_bytes() == before


@pytest.mark.parametrize("below", ["", "below"])
def test_an_output_that_cannot_be_written(
    below: str, run: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "folder" if not below else digits / below
    (tmp_path / "folder").mkdir()
    assert main(["predict", str(run), "--input", str(digits), "--output", str(output)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mlp-xp: error: {output}: cannot be written: ")
    assert error.endswith("; choose another --output\n")


@pytest.mark.parametrize("n", [63, 66])
def test_the_wrong_number_of_features(n: int, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((2, n)))
    assert main(["predict", str(run), "--input", str(tmp_path / "rows.npy")]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert f"rows.npy: has {n} features per row, the model wants 64" in output.err


def test_a_label_column_that_was_not_named_is_guessed_at(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((2, 65)))
    assert main(["predict", str(run), "--input", str(tmp_path / "rows.npy")]) == 2
    assert "leave it out: --label-column 0 is the first, -1 the last" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("nowhere --input digits", "nowhere holds no run (run.json is missing)"),
        (
            "{run} --input digits",
            "digits: a data set by name goes where a network is trained; give a file of",
        ),
        ("{run} --input nothing.csv", "nothing.csv: there is no such file"),
        ("{run} --input {digits} --backend jx", "unknown backend 'jx'; known, closest first: jax"),
        ("{run} --input {digits} --device cuda", "backend 'numpy' has no device 'cuda' here"),
    ],
)
def test_what_is_not_there_is_said(
    options: str, message: str, run: Path, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", *(part.format(run=run, digits=digits) for part in options.split())]) == 2
    assert message in capsys.readouterr().err
