"""The script that holds the estimators' scores against scikit-learn's: its verdict, and small fits from end to end."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import fit_accuracy


@pytest.mark.parametrize(
    ("ours", "difference", "is_within"),
    [
        ([0.2, 0.4, 0.6], 0.0, True),
        ([0.6, 0.4, 0.2], 0.0, True),  # only the means are compared
        ([0.3, 0.5, 0.7], 0.1 / (0.2 / math.sqrt(3)), True),
        ([0.0, 0.2, 0.4], -0.2 / (0.2 / math.sqrt(3)), False),
    ],
)
def test_differences_are_counted_in_standard_errors(ours: list[float], difference: float, is_within: bool) -> None:
    line = fit_accuracy.Line("x", "sgd", "numpy exact", [0.2, 0.4, 0.6], ours)
    assert line.difference == pytest.approx(difference, abs=1e-14)
    assert line.is_within == is_within
    assert line.cells()[3:5] == ("0.4000", f"{0.2 / math.sqrt(3):.4f}")
    assert line.cells()[-1] == ("yes" if is_within else "NO")


def test_without_a_spread_only_equality_is_within() -> None:
    same, other = (fit_accuracy.Line("x", "sgd", "jax", [0.5, 0.5], [score, score]) for score in (0.5, 0.75))
    assert (same.difference, same.is_within) == (0.0, True)
    assert (other.difference, other.is_within) == (math.inf, False)


@pytest.mark.parametrize(("name", "data"), [("numpy", ["wine", "diabetes"]), ("jax", ["diabetes"])])
def test_fits_score_as_scikit_learns_do(
    name: str, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name != "numpy":
        pytest.importorskip(name, reason=f"{name} is not installed")
    file = tmp_path / "new" / "fit.json"
    assert fit_accuracy.main(f"--data {','.join(data)} --seeds 2 --backends {name} --json {file}".split())
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1 + 1 + 6 * len(data) + 1
    assert (
        printed[-1] == f"Means over 2 seeds: {6 * len(data)} of {6 * len(data)} differ by less than one standard error."
    )
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content["command"].startswith(f"scripts/fit_accuracy.py --data {','.join(data)}")
    for line in content["lines"]:
        assert len(line["theirs"]) == len(line["ours"]) == 2
        assert all(0.1 < score < 1.0 for score in (*line["theirs"], *line["ours"]))
        if line["estimator"].endswith("float64"):
            assert line["ours"] == pytest.approx(line["theirs"], rel=1e-9)


def test_a_difference_beyond_noise_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    def score(module: Any, *_: Any, random_state: int, **__: Any) -> float:
        return random_state / 10 + (0.5 if "mlp_xp" in module.__name__ else 0.0)

    monkeypatch.setattr(fit_accuracy, "score", score)
    assert not fit_accuracy.main(["--data", "wine", "--seeds", "2", "--backends", "numpy"])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [("--data abacus", "there are digits"), ("--seeds 1", "at least 2"), ("--backends abacus", "there are")],
)
def test_what_cannot_be_run_is_refused(arguments: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fit_accuracy.main(arguments.split())
    assert text in capsys.readouterr().err
