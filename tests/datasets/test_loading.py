"""The door: what it takes, and what it says to everything else."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mlp_xp.datasets import load, load_features
from mlp_xp.errors import DataError


@pytest.mark.parametrize("found", [True, False], ids=["its file", "its function"])
def test_digits_are_scikit_learns(found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not found:  # as in an archive, or should the file move
        monkeypatch.setattr("mlp_xp.datasets.digits.find_spec", lambda name: None)
    data = load("digits")
    pixels, labels = load_digits(return_X_y=True)
    np.testing.assert_array_equal(data.features, pixels)
    np.testing.assert_array_equal(data.targets, labels)
    assert data.features.dtype == np.uint8
    assert data.targets.dtype == np.int32
    assert (data.name, data.n_classes, data.scale) == ("digits", 10, 1 / 16)
    assert data.features.max() == 16


def test_options_hold_for_names_too() -> None:
    assert load("digits", n_classes=12).n_classes == 12
    data = load("digits", regression=True)
    assert data.targets.dtype == np.float64
    assert (data.targets.shape, data.n_classes) == ((1797, 1), None)
    with pytest.raises(DataError, match=r"digits: sample 5 \(counted from 0\): label 5 is not below 5"):
        load("digits", n_classes=5)


@pytest.mark.parametrize("suffix", [".csv", ".CSV", ".csv.gz", ".npy", ".npz"])
def test_a_file_is_known_by_its_name(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"my,table{suffix}"
    if suffix == ".npy":
        np.save(path, [[1, 2], [0, 3]])
    elif suffix == ".npz":
        np.savez(path, x=[[2], [3]], y=[1, 0])
    else:
        np.savetxt(path, [[1, 2], [0, 3]], delimiter=",")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (str(path), path, f"~/my,table{suffix}"):
        data = load(name)
        assert (data.name, data.features.tolist(), data.targets.tolist()) == (str(name), [[2], [3]], [1, 0])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("minst", "minst: there is no such data set or file; did you mean mnist?"),
        ("MNIST", "did you mean mnist?"),
        ("digit", "did you mean digits?"),
        ("cifar", "cifar: there is no such data set or file; give digits, mnist, a .csv, .csv.gz, .npy or .npz"),
        ("none.csv", f"none.csv: there is no such file; check the path (looked from {Path.cwd()})"),
        ("some/where", "some/where: there is no such file"),
        ("~nobody-of-that-name/x.csv", "there is no such file"),
        ("x" * 5000, "there is no such data set or file"),
        ("nul\0l", "there is no such data set or file"),
        ("a.csv\0", "there is no such "),
        ("", "is a folder; give digits"),
    ],
)
def test_what_is_not_there(name: str, text: str) -> None:
    with pytest.raises(DataError, match=re.escape(text)):
        load(name)


def test_what_is_there_but_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is a folder; give digits, mnist, a \.csv"):
        load(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"photo\.jpg: is not a kind of file that can be read; give digits"):
        load(tmp_path / "photo.jpg")
    for name in ("x.csv", "x.npy", "x.npz", "images-idx3-ubyte"):
        (tmp_path / name).mkdir()
        (tmp_path / "labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x01\0")
        with pytest.raises(DataError, match=rf"{name}: cannot be read \(Is a directory\)"):
            load(tmp_path / name)


def test_features_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "t.npy"
    np.save(path, np.array([[1.5, 2], [3, 4]]))
    assert load_features(path, n_features=2).tolist() == [[1.5, 2], [3, 4]]
    assert load_features(str(path), n_features=1, label_column=-1).tolist() == [[1.5], [3]]
    with pytest.raises(DataError, match=r"has 2 features per row, the model wants 1; .*--label-column 0"):
        load_features(path, n_features=1)
    with pytest.raises(DataError, match=r"none\.npy: there is no such file"):
        load_features(tmp_path / "none.npy", n_features=1)
    np.save(path, np.array([[1.5, np.inf]]))
    with pytest.raises(DataError, match=r"t\.npy: sample 0 .*: a feature is inf"):
        load_features(path, n_features=2)
