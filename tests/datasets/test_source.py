"""A source of data: what it loads, and that it loads the same again after it went through JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mlp_xp.datasets import Split, load
from mlp_xp.datasets.source import DataSource
from mlp_xp.errors import SettingsError

ROWS = np.random.default_rng(0).normal(size=(30, 4))


def digests(data: Split) -> tuple[str, str]:
    return data.train.digest(), data.test.digest()


def again(source: DataSource) -> DataSource:
    return DataSource.from_dict(json.loads(json.dumps(source.to_dict(), allow_nan=False)))


def test_the_defaults_are_those_of_load_and_split() -> None:
    assert digests(DataSource("digits").load()) == digests(load("digits").split())


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 0.5},
        {"test_size": 0.5},
        {"split_seed": 1},
        {"n_classes": 12},
        {"label_column": -1},
        {"regression": True},
        {"header": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_has_its_effect_also_after_json(
    change: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And from another folder, although the path is a relative one."""
    table = np.column_stack([np.arange(30) % 10, np.abs(ROWS), np.arange(30) % 3])
    np.savetxt(tmp_path / "rows.csv", table, delimiter=",")
    monkeypatch.chdir(tmp_path)
    source = DataSource("rows.csv", **change)  # type: ignore[arg-type]
    expected = digests(source.load())
    assert expected[0] != digests(DataSource("rows.csv").load())[0]
    copy = again(source)
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert digests(copy.load()) == expected
    assert again(copy) == copy
    assert copy.to_dict() == {**source.to_dict(), "name": str(tmp_path / "rows.csv")}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits", "digits"),
        ("mnist", "mnist"),
        ("rows.csv", "{here}/rows.csv"),
        ("/data/rows.csv", "/data/rows.csv"),
        ("~/rows.csv", "{home}/rows.csv"),
        ("images-idx3,below/labels-idx1", "{here}/images-idx3,{here}/below/labels-idx1"),
        ("a,b.csv", "{here}/a,b.csv"),
    ],
)
def test_paths_become_absolute(name: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a,b.csv").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert DataSource(name).to_dict()["name"] == expected.format(here=tmp_path, home="/home/me")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "a data source has no name"),
        ({"name": "digits", "magic": 1}, "unknown property of a data source: 'magic'"),
        ({"name": None}, "name = None: must be str"),
        ({"name": "digits", "label_column": "y"}, "label_column = 'y': must be int"),
        ({"name": "digits", "header": "yes"}, r"header = 'yes': must be bool \| None"),
        ({"name": "digits", "scale": [1]}, r"scale = \[1\]: must be int \| float \| None"),
        ({"name": "digits", "split_seed": 0.5}, "split_seed = 0.5: must be int"),
    ],
)
def test_what_is_no_source_is_said(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        DataSource.from_dict(values)
