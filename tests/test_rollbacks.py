"""A training that diverges can go back; that is recorded, verified, and survives an interruption."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlp_xp.backend import Backend
from mlp_xp.datasets import Split
from mlp_xp.errors import SettingsError, TrainingDiverged, TrainingInterrupted
from mlp_xp.resuming import resume
from mlp_xp.settings import Settings
from mlp_xp.training import train
from mlp_xp.verification import RecordedRun, verify
from stopped_runs import After, N, contents, start, stop_early

pytestmark = pytest.mark.usefixtures("no_pictures", "short_pieces")


# A linear model of digits whose loss grows beyond all bounds in the second epoch.
GROWING = Settings((), loss="squared_error", batch_size=200, learning_rate=0.26, epochs=3)


@pytest.mark.parametrize("n", [None, N], ids=["alone", "replicas"])
def test_a_rollback_is_recorded_and_verified(tmp_path: Path, backend: Backend, digits: Split, n: int | None) -> None:
    list(start(tmp_path / "whole", GROWING, digits, backend, n, on_divergence="rollback"))
    runs = [tmp_path / "whole"] if n is None else list((tmp_path / "whole").glob("seed-*"))
    for run in runs:
        (rollback,) = json.loads((run / "run.json").read_text())["rollbacks"]
        assert (rollback["epoch"], rollback["learning_rate"]) == (1, pytest.approx(0.13))
        assert "epoch 1, step 0: the loss explodes: " in rollback["reason"]
        if n is None:  # of replicas, alone the last bits are others
            assert len(list(verify(RecordedRun(run), digits, backend))) == 3
            assert len(list(verify(RecordedRun(run), digits, backend, first=2))) == 1


@pytest.mark.parametrize("every", [0, 1, 2])
@pytest.mark.parametrize(
    ("settings", "epoch", "step"),
    [
        (GROWING, 1, 0),
        (replace(GROWING, batch_size=100, learning_rate=0.195), 1, 5),
        (replace(GROWING, batch_size=100, learning_rate=0.215), 0, 11),
    ],
    ids=["between epochs", "within an epoch", "within the first"],
)
def test_a_training_that_stops_before_or_after_a_rollback_goes_on(
    settings: Settings, epoch: int, step: int, every: int, tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    """The checkpoint in an epoch that was begun again has the smaller learning rate, and run.json says why."""
    how: dict[str, Any] = {"on_divergence": "rollback"}
    list(start(tmp_path / "whole", settings, digits, numpy_backend, None, checkpoint_every=every, **how))
    (rollback,) = json.loads((tmp_path / "whole" / "run.json").read_text())["rollbacks"]
    assert rollback["reason"].startswith(f"epoch {epoch}, step {step}: the loss explodes: ")
    for after in range(1, 8):
        folder = tmp_path / str(after)
        stop_early(folder, settings, digits, numpy_backend, after, checkpoint_every=every, **how)
        list(resume(folder, numpy_backend, digits))  # as the run says
        assert contents(folder)["run.json"] == contents(tmp_path / "whole")["run.json"]
        assert contents(folder) == contents(tmp_path / "whole")


def test_a_stop_after_a_rollback_records_it_with_the_checkpoint(
    tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    """The checkpoint within the epoch has the smaller learning rate, so run.json must say since when."""
    settings = Settings((32, 32), batch_size=100, learning_rate=2.0, epochs=2, init="he")
    how: dict[str, Any] = {"on_divergence": "rollback", "largest_growth": 1.05}
    said = stop_early(tmp_path, settings, digits, numpy_backend, 5, **how)
    assert said == "interrupted in epoch 0, after 4 of its steps"
    assert len(list(resume(tmp_path, numpy_backend, digits))) == 2
    (rollback,) = json.loads((tmp_path / "run.json").read_text())["rollbacks"]
    assert (rollback["epoch"], rollback["learning_rate"]) == (0, 1.0)
    assert len(list(verify(RecordedRun(tmp_path), digits, numpy_backend))) == 2


def test_a_rollback_that_came_after_the_checkpoint_happens_again(
    tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    """It stopped within an epoch, went on, rolled back, ended that epoch, and was killed before the next checkpoint."""
    settings = replace(GROWING, batch_size=100, learning_rate=0.195)
    list(
        start(tmp_path / "whole", settings, digits, numpy_backend, None, checkpoint_every=10, on_divergence="rollback")
    )
    run = tmp_path / "run"
    said = stop_early(run, settings, digits, numpy_backend, 4, checkpoint_every=10)
    assert said == "interrupted in epoch 1, after 5 of its steps"
    epochs = resume(run, numpy_backend, digits, on_divergence="rollback")
    next(epochs)
    epochs.close()  # type: ignore[attr-defined]
    assert len(json.loads((run / "run.json").read_text())["rollbacks"]) == 1
    list(resume(run, numpy_backend, digits, on_divergence="rollback"))
    assert contents(run) == contents(tmp_path / "whole")


def test_a_stop_at_the_same_step_of_another_try_is_saved_anew(
    tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    settings = replace(GROWING, batch_size=100, learning_rate=0.195)
    list(start(tmp_path / "whole", settings, digits, numpy_backend, None, on_divergence="rollback"))
    run = tmp_path / "run"
    stop_early(run, settings, digits, numpy_backend, 4)
    with pytest.raises(TrainingInterrupted, match="in epoch 1, after 5 of its steps"):
        list(resume(run, numpy_backend, digits, on_divergence="rollback", stop=After(3)))
    (rollback,) = json.loads((run / "run.json").read_text())["rollbacks"]
    assert rollback["epoch"] == 1
    list(resume(run, numpy_backend, digits))  # with the smaller learning rate, without being told again
    assert contents(run) == contents(tmp_path / "whole")


def test_another_choice_is_recorded_in_its_turn(tmp_path: Path, numpy_backend: Backend, digits: Split) -> None:
    how: dict[str, Any] = {"on_divergence": "rollback"}
    list(start(tmp_path / "whole", GROWING, digits, numpy_backend, None, **how))
    stop_early(tmp_path / "run", GROWING, digits, numpy_backend, 1, **how)
    for _ in range(2):
        with pytest.raises(TrainingDiverged, match="epoch 1, step 0: the loss explodes"):
            list(resume(tmp_path / "run", numpy_backend, digits, on_divergence="stop" if _ == 0 else None))
    list(resume(tmp_path / "run", numpy_backend, digits, **how))
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


@pytest.mark.parametrize("n", [None, N], ids=["alone", "replicas"])
@pytest.mark.parametrize("growth", [1e300, math.inf])
def test_a_run_that_may_grow_may_do_so_when_it_goes_on(
    growth: float, n: int | None, tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    settings, file = replace(GROWING, epochs=4), "run.json" if n is None else "replicas.json"
    whole, run = tmp_path / "whole", tmp_path / "run"
    list(start(whole, settings, digits, numpy_backend, n, largest_growth=growth))
    said = stop_early(run, settings, digits, numpy_backend, 3, n=n, largest_growth=growth)
    assert said == "interrupted in epoch 1, after 4 of its steps"
    assert json.loads((run / file).read_text())["largest_growth"] == (growth if growth < math.inf else None)
    list(resume(run, numpy_backend, digits))
    assert contents(run) == contents(whole)


@pytest.mark.parametrize("n", [None, N], ids=["alone", "replicas"])
def test_another_growth_is_recorded_in_its_turn(
    n: int | None, tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    whole, run, file = tmp_path / "whole", tmp_path / "run", "run.json" if n is None else "replicas.json"
    list(start(whole, GROWING, digits, numpy_backend, n, largest_growth=math.inf))
    stop_early(run, GROWING, digits, numpy_backend, 1, n=n)
    growths: list[Any] = [None, np.float32(2000), None]
    for growth in growths:
        with pytest.raises(TrainingDiverged, match="epoch 1, step 0: the loss explodes") as caught:
            list(resume(run, numpy_backend, digits, largest_growth=growth))
        assert caught.value.explodes
    assert json.loads((run / file).read_text())["largest_growth"] == 2000.0
    list(resume(run, numpy_backend, digits, largest_growth=math.inf))
    assert contents(run) == contents(whole)
    if n is None:
        assert len(list(verify(RecordedRun(run), digits, numpy_backend))) == 3


def test_numbers_that_another_program_wrote_without_a_point_are_the_same(
    tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    """JavaScript's and jq's do, for whole numbers."""
    settings = replace(GROWING, learning_rate=2.0)
    list(start(tmp_path, settings, digits, numpy_backend, None, on_divergence="rollback", largest_growth=2))
    description = json.loads((tmp_path / "run.json").read_text())
    assert description["rollbacks"][0]["learning_rate"] == 1.0
    description["largest_growth"] = int(description["largest_growth"])
    description["rollbacks"][0]["learning_rate"] = 1
    (tmp_path / "run.json").write_text(json.dumps(description))
    assert len(list(resume(tmp_path, numpy_backend, digits, epochs=4))) == 1
    again = json.loads((tmp_path / "run.json").read_text())
    assert again["largest_growth"] == 2.0
    assert again["rollbacks"] == description["rollbacks"]


def test_a_run_that_does_not_say_how_it_is_watched_goes_on(
    tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    stop_early(tmp_path, GROWING, digits, numpy_backend, 1)
    description = json.loads((tmp_path / "run.json").read_text())
    del description["on_divergence"], description["largest_growth"]
    (tmp_path / "run.json").write_text(json.dumps(description))
    with pytest.raises(TrainingDiverged, match="epoch 1, step 0: the loss explodes"):
        list(resume(tmp_path, numpy_backend, digits))


@pytest.mark.parametrize("growth", [1.0, -3, math.nan, -math.inf, True, "much", 10**400, None, np.ones(2)])
def test_a_growth_that_is_none_is_refused(growth: Any, numpy_backend: Backend, digits: Split) -> None:
    with pytest.raises(SettingsError, match=r"largest_growth = .*: must be a number > 1, or infinity"):
        train(GROWING, digits, numpy_backend, largest_growth=growth)


def test_a_stop_in_an_explosion_keeps_nothing_of_it(tmp_path: Path, numpy_backend: Backend, digits: Split) -> None:
    """Every step is 1.5 times worse than the one before, the last one alone a thousand times worse than the first."""
    settings = replace(GROWING, batch_size=40, learning_rate=0.2, epochs=1)
    assert stop_early(tmp_path, settings, digits, numpy_backend, 3) == "interrupted in epoch 0, after 15 of its steps"
    assert stop_early(tmp_path, settings, digits, numpy_backend, 4, overwrite=True) == "interrupted after 0 epochs"


def test_rolling_back_has_an_end(numpy_backend: Backend, digits: Split) -> None:
    with pytest.raises(
        TrainingDiverged, match=r"now 9\.7656\de\+26\).*; the learning rate was halved 10 times already$"
    ):
        list(train(replace(GROWING, learning_rate=1e30), digits, numpy_backend, on_divergence="rollback"))
    with pytest.raises(SettingsError, match="on_divergence = 'hope': must be stop or rollback"):
        train(GROWING, digits, numpy_backend, on_divergence="hope")
