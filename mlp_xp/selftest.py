"""Whether an array library computes this network rightly here: a few steps against numbers made elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlp_xp.backend import Backend
from mlp_xp.datasets.dataset import Dataset, Split
from mlp_xp.randomness import Stream, uniform
from mlp_xp.settings import DTYPES, Settings
from mlp_xp.training import train

SETTINGS = Settings(hidden_layer_sizes=(16, 16), learning_rate=0.5, batch_size=16, epochs=1, activation="tanh", l2=0.01)

# Made by scripts/make_pytorch_curves.py with PyTorch's autograd and optim.SGD, in float64.
LOSSES = (1.4610536897347897, 1.521223340726427, 1.5007999413898172, 1.4874287707741738, 1.4706364791271203)


@dataclass(frozen=True)
class SelfTest:
    """The largest error of the losses in every dtype, and whether it is rounding.

    Attributes
    ----------
    errors : dict
        dtype -> largest absolute error.
    passed : bool
    """

    errors: dict[str, float]
    passed: bool


def problem() -> Split:
    """Return 80 rows of 8 numbers in [-1, 1] with 4 classes, to train and to test on."""
    features = uniform((80, 8), 1.0, 0, Stream.WEIGHT, 0)
    labels = (np.arange(80) % 4).astype(np.int32)
    data = Dataset("self-test", features, labels, 4)
    return Split(data, data)


def self_test(backend: Backend) -> SelfTest:
    """Train five steps in every dtype and compare the losses with those that PyTorch's autograd gives."""
    errors = {}
    for dtype in DTYPES:
        settings = Settings.from_dict({**SETTINGS.to_dict(), "dtype": dtype})
        (epoch,) = train(settings, problem(), backend)
        errors[dtype] = float(np.max(np.abs(epoch.step_losses - LOSSES)))
    # A sum of 16 terms of size ~1, five times over: 64 roundings are generous, and no wrong formula passes.
    return SelfTest(errors, all(error <= 64 * np.finfo(dtype).eps for dtype, error in errors.items()))
