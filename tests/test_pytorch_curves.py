"""A hundred losses equal those of PyTorch's autograd, losses and optimisers (scripts/make_pytorch_curves.py)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlp_xp.backend import Backend
from mlp_xp.datasets import Split
from mlp_xp.settings import Settings
from mlp_xp.training import train

CURVES = json.loads(Path(__file__).with_name("pytorch_curves.json").read_text(encoding="utf-8"))["curves"]
TOLERANCE = 1e-12


def counts(data: Split) -> Split:
    """Return a data set of which the labels are numbers to predict."""
    return Split(*(replace(part, targets=part.targets[:, None].astype(float), n_classes=None) for part in data))


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve["name"])
def test_losses_equal_pytorchs(backend: Backend, digits: Split, curve: dict[str, Any]) -> None:
    settings = Settings.from_dict(curve["settings"])
    expected = np.asarray(curve["losses"])
    losses = np.empty(0)
    for epoch in train(settings, counts(digits) if settings.loss == "poisson" else digits, backend):
        losses = np.concatenate([losses, epoch.step_losses])
        if losses.size >= expected.size:
            break
    error = np.abs(losses[: expected.size] - expected)
    assert np.max(error) <= TOLERANCE, f"off by {np.max(error):.1e} at step {np.argmax(error)}"
