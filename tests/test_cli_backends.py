"""``mlp-xp backends``: for each, whether it is installed, computes rightly, and if not, what to do."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import mlp_xp.cli.backends
from mlp_xp.backend import Backend, list_backends
from mlp_xp.cli import main
from mlp_xp.cli.backends import examine

KEYS = ["name", "installed", "ready", "version", "devices", "description", "check", "errors", "exact", "reason"]


def listed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let the command see some backends alone: every one that it opens takes its time."""
    monkeypatch.setattr(mlp_xp.cli.backends, "list_backends", lambda: list(names))


def reports(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    assert main(["backends", "--json"]) == 0
    return {report["name"]: report for report in json.loads(capsys.readouterr().out)}


def test_all_are_examined(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(mlp_xp.cli.backends, "examine", lambda name: dict.fromkeys(KEYS) | {"name": name})
    assert list(reports(capsys)) == list_backends()


def test_one_that_works(backend: Backend) -> None:
    report = examine(backend.name)
    assert list(report) == KEYS
    assert report["installed"] is True
    assert report["ready"] is True
    assert report["devices"] == backend.devices()
    assert report["version"] == next(iter(report["description"].values()))
    assert report["check"].startswith("right (")
    assert set(report["errors"]) == {"float32", "float64"}
    assert report["exact"] is True
    assert report["reason"] is None
    assert json.loads(json.dumps(report, allow_nan=False)) == report


@pytest.mark.usefixtures("wrong_backends")
@pytest.mark.parametrize(
    ("name", "installed", "check", "reason"),
    [
        ("tf32", True, "WRONG (", "backend 'tf32' computes wrong numbers; do not use it here"),
        ("infinite", True, "WRONG (not finite)", "backend 'infinite' computes wrong numbers; do not use it here"),
        ("crashing", True, None, "backend 'crashing' cannot be opened: RuntimeError: the driver is too old"),
        ("absent", False, None, "backend 'absent': the module 'no_such_library' is not installed"),
        ("unlisted", True, None, "backend 'unlisted' does not work here: TypeError"),
        ("misspelt", False, None, "backend 'misspelt' cannot be opened: AttributeError"),
    ],
)
def test_one_that_does_not(
    name: str,
    installed: bool,
    check: str | None,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    listed(monkeypatch, name, "numpy")
    found = reports(capsys)
    assert found["numpy"]["ready"] is True  # one broken library hides no other
    report = found[name]
    assert list(report) == KEYS
    assert report["installed"] is installed
    assert report["ready"] is False
    assert report["reason"].startswith(reason)
    assert (report["check"] or "").startswith(check or "")
    assert (report["check"] is None) == (check is None)


@pytest.mark.usefixtures("wrong_backends")
def test_the_table_is_for_people(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    listed(monkeypatch, "absent", "numpy", "bfloat")
    assert main(["backends"]) == 0
    header, absent, numpy, bfloat, *reasons = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["backend", "installed", "version", "devices"]
    assert absent.split() == ["absent", "no", "-", "-", "-", "-"]
    assert numpy.split()[:5] == ["numpy", "yes", np.__version__, "cpu", "right"]
    assert numpy.endswith("  same bits")
    assert bfloat.split()[4] == "WRONG"
    assert [line for line in reasons if line] == [examine(name)["reason"] for name in ("absent", "bfloat")]


@pytest.mark.usefixtures("wrong_backends")
def test_a_library_that_breaks_in_the_middle_is_told_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_: Backend) -> None:
        raise ZeroDivisionError("in the kernel")

    monkeypatch.setattr(mlp_xp.cli.backends, "self_test", breaks)
    assert examine("numpy")["reason"] == "backend 'numpy' does not work here: ZeroDivisionError: in the kernel"
