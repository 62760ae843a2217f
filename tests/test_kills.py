"""SIGKILL at random moments and operations, in short form: scripts/kill_runs.py counts hundreds."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from kill_runs import try_training

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX's signals")


@pytest.mark.parametrize(("library", "arithmetic"), [("numpy", "native"), ("jax", "exact")])
def test_a_killed_training_goes_on_to_the_same_bits(library: str, arithmetic: str, tmp_path: Path) -> None:
    pytest.importorskip(library, reason=f"needs {library}")
    trial = try_training(library, arithmetic, 4, tmp_path, random.Random(1))  # noqa: S311 - moments
    assert trial.kills_at_moments + trial.kills_at_operations >= 4
    assert trial.trainings >= 1
    assert trial.between_epochs >= 1
    assert (trial.unequal, trial.unreadable) == (0, 0)
