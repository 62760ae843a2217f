"""The accuracy script: its scores, its statistics, its table, and small trainings from end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import accuracy
import accuracy_tasks
from mlp_xp.backend import Backend
from mlp_xp.datasets import Dataset, Split, load, mnist
from mlp_xp.settings import Settings
from mlp_xp.training import train

SETTINGS = Settings(hidden_layer_sizes=(8,), learning_rate=0.2, batch_size=50, epochs=2)


def regression() -> Split:
    """Return two numbers to regress on, of different spread."""
    x = np.linspace(-1.0, 1.0, 600).reshape(-1, 1)
    return Dataset("waves", x, np.hstack([np.sin(3.0 * x), 2.0 * x]), None).split(0.5)


def result(scores: dict[str, list[float]]) -> accuracy.Result:
    return accuracy.Result("x", accuracy_tasks.TASKS["digits"], load("digits").split(), scores, {})


def test_a_regression_is_scored_by_the_variance_that_it_explains(numpy_backend: Backend) -> None:
    data = regression()
    *_, epoch = train(replace(SETTINGS, loss="squared_error", dtype="float64"), data, numpy_backend)
    residual = epoch.model.predict(data.test.features).values - data.test.targets
    centred = data.test.targets - data.test.targets.mean(axis=0)
    assert accuracy.score(epoch, data.test) == pytest.approx(1.0 - (residual**2).sum() / (centred**2).sum(), abs=1e-12)


def test_differences_are_taken_seed_by_seed() -> None:
    # Both get better from seed to seed; exact is a little worse each time.
    mine = result({"float32": [0.25, 0.5, 0.75], "float64": [0.25, 0.5, 0.75], "exact": [0.25, 0.375, 0.625]})
    assert mine.differences("exact") == [0.0, -0.125, -0.125]
    spread = accuracy.Spread.of(mine.differences("exact"))
    assert spread.furthest == -0.125
    assert spread.mean == pytest.approx(-0.25 / 3)
    assert spread.deviation == pytest.approx(0.125 / 3**0.5)
    cells = [cell.strip() for cell in accuracy.table([mine]).splitlines()[1].split("  ") if cell]
    assert cells[:6] == ["x", "3", "accuracy", *["0.5000 ± 0.2500"] * 2, "0.4167 ± 0.1909"]
    assert cells[6:] == ["0.0000 ± 0.0000", "0.0000", "-0.0833 ± 0.0722", "-0.1250"]


def test_a_training_that_diverges_scores_0_and_is_named(
    numpy_backend: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = replace(SETTINGS, loss="squared_error", activation="identity", learning_rate=1e30)
    found = accuracy.measure("wild", accuracy_tasks.Task("", regression, settings), 2, numpy_backend)
    for arithmetic in ("float32", "float64", "exact"):
        assert found.scores[arithmetic] == [0.0, 0.0]
        assert found.diverged[arithmetic] == [0, 1]
    assert "wild, exact, seed 1: diverged" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(set(accuracy_tasks.TASKS) - {"mnist"}))
def test_every_task_has_columns_and_settings_that_fit(name: str, numpy_backend: Backend) -> None:
    task = accuracy_tasks.TASKS[name]
    one = replace(task, settings=replace(task.settings, epochs=1))
    found = accuracy.measure(name, one, 1, numpy_backend)
    assert not any(found.diverged.values())
    assert found.data.train.n_features == found.data.test.n_features


def test_columns_are_standardised_by_the_rows_to_train_on() -> None:
    raw, data = accuracy_tasks.wine(), accuracy_tasks.standardised(accuracy_tasks.wine(), "features")
    assert data.train.features.mean(axis=0) == pytest.approx(0.0, abs=1e-12)
    assert data.train.features.std(axis=0) == pytest.approx(1.0)
    mean, deviation = raw.train.features.mean(axis=0), raw.train.features.std(axis=0)
    assert data.test.features * deviation + mean == pytest.approx(raw.test.features)


def test_small_trainings_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = {
        "digits": accuracy_tasks.Task("8 × 8", lambda: load("digits").split(), SETTINGS, seeds=3),
        "waves": accuracy_tasks.Task("two", regression, replace(SETTINGS, loss="squared_error"), seeds=2),
    }
    for name, task in tasks.items():
        monkeypatch.setitem(accuracy_tasks.TASKS, name, task)
    monkeypatch.setattr(mnist, "available", lambda: False)
    files = tmp_path / "new" / "accuracy.json", tmp_path / "accuracy.png"
    accuracy.main(["--tasks", "digits,mnist,waves", "--json", str(files[0]), "--plot", str(files[1])])
    out = capsys.readouterr().out
    assert "left out: mnist" in out
    content = json.loads(files[0].read_text(encoding="utf-8"))
    assert content["command"].startswith("scripts/accuracy.py --tasks digits,mnist,waves")
    digits, waves = content["tasks"]
    assert (digits["measure"], waves["measure"]) == ("accuracy", "R²")
    assert {len(scores) for scores in digits["scores"].values()} == {3}
    assert {len(scores) for scores in waves["scores"].values()} == {2}
    # In two epochs rounding cannot have grown.
    assert abs(waves["difference_from_float32"]["exact"]["furthest"]) < 1e-5
    assert digits["settings"]["hidden_layer_sizes"] == [8]
    assert not {"seed", "dtype", "arithmetic"} & set(digits["settings"])
    assert files[1].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("arguments", ["--tasks digits,abacus", "--seeds 1"])
def test_what_cannot_be_run_is_refused(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        accuracy.main(arguments.split())
    assert {"--tasks": "there are digits", "--seeds": "at least 2"}[arguments.split()[0]] in capsys.readouterr().err
