"""Shortcuts past hidden layers; their gradients are in test_gradients."""

from __future__ import annotations

import numpy as np
import pytest

from checks import assert_close
from mlp_xp.backend import Backend
from mlp_xp.datasets import load
from mlp_xp.datasets.dataset import Split
from mlp_xp.errors import SettingsError
from mlp_xp.network import forward
from mlp_xp.settings import Settings
from mlp_xp.trainer import Trainer
from mlp_xp.training import train


@pytest.fixture(scope="module")
def digits() -> Split:
    return load("digits").split(0.2, 2020)


def test_a_layer_that_has_as_many_units_as_inputs_adds_these(backend: Backend, digits: Split) -> None:
    settings = Settings(hidden_layer_sizes=(64, 64, 5, 5), residual=True, dtype="float64", activation="tanh")
    trainer = Trainer(settings, digits.train, backend)
    network = trainer.objective.network
    assert network.shortcuts == (True, True, False, True, False)
    x = np.random.default_rng(0).normal(size=(3, 64))
    expected = x
    layers = trainer.model.host_parameters()
    for layer, adds in zip(layers, network.shortcuts, strict=True):
        z = expected @ layer.weight + layer.bias
        y = z if layer is layers[-1] else np.tanh(z)
        expected = y + expected if adds else y
    trace = forward(network, trainer.loop.parameters, backend.asarray(x), trainer.arithmetic)
    assert_close(backend.to_host(trace.outputs[-1]), expected, 32)


def test_residual_needs_a_layer_with_as_many_units_as_inputs(digits: Split, numpy_backend: Backend) -> None:
    with pytest.raises(SettingsError, match=r"residual = True: no hidden layer of \(64, 12, 8, 10\) has as many units"):
        train(Settings((12, 8), residual=True), digits, numpy_backend)
