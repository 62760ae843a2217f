"""The README: its example runs, its links lead somewhere, its tables say what is there."""

from __future__ import annotations

import doctest
import importlib
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import array_api_compat.numpy
import numpy as np
import pytest
from sklearn.datasets import load_iris

import mlp_xp
from mlp_xp.backend import GROUP
from mlp_xp.cli import COMMANDS
from mlp_xp.selftest import self_test

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_library_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    example, *_ = EXAMPLES
    names: dict[str, object] = {}
    exec(example, names)  # noqa: S102 - that it can be executed is what is tested
    assert len(capsys.readouterr().out.splitlines()) == 10
    labels = names["labels"]
    assert getattr(labels, "shape", None) == (360,)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_estimators_example_runs() -> None:
    _, example, of_additions, *_ = EXAMPLES
    X, y = load_iris(return_X_y=True)
    names: dict[str, Any] = {"X": X, "y": y}
    exec(example, names)  # noqa: S102
    assert names["probabilities"].shape == (150, 3)
    exec(of_additions, names)  # noqa: S102
    assert names["classifier"].activation == "gelu"


def test_the_clusters_example_runs() -> None:
    (example,) = (example for example in EXAMPLES if "KMeans" in example)
    names: dict[str, Any] = {"X": load_iris().data}
    exec(example, names)  # noqa: S102
    assert names["distances"].shape == (150, 3)
    assert names["total"] == pytest.approx(names["within"] + names["between"])


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_command_is_shown() -> None:
    assert set(re.findall(r"^\$ mlp-xp (\w+)", README, flags=re.MULTILINE)) == set(COMMANDS)


def test_the_size_of_a_backend_is_as_stated() -> None:
    (path, stated), *others = re.findall(r"\[PyTorch's\]\((.*?)\), with GPUs, has (\d+) lines", README)
    assert not others
    assert round(len((ROOT / path).read_text(encoding="utf-8").splitlines()), -1) == int(stated)


def test_the_table_of_backends_is_complete() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE))
    ours = {entry.name for entry in metadata.entry_points(group=GROUP) if entry.dist and entry.dist.name == "mlp-xp"}
    assert rows == ours


@pytest.mark.parametrize("name", ["mlp_xp", "mlp_xp.cluster", "mlp_xp.decomposition", "mlp_xp.datasets.loading"])
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_every_public_name_can_be_imported() -> None:
    for name in mlp_xp.__all__:
        assert getattr(mlp_xp, name) is not None
    with pytest.raises(AttributeError, match="nothing_such"):
        mlp_xp.nothing_such  # noqa: B018


def test_the_example_of_a_backend_is_whole() -> None:
    (example,) = re.findall(r"```py\n(.*?)```", README, flags=re.DOTALL)
    names: dict[str, Any] = {"my_library": array_api_compat.numpy, "np": np}
    exec("from mlp_xp.backend import Backend, choose_device\n" + example, names)  # noqa: S102 - as above
    assert self_test(names["MyBackend"]()).passed
