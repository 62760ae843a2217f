"""Every gradient against central differences, on every backend.

The moved copies of the parameters are stacked along a leading axis and evaluated at once, so these tests also
hold the promise that the equations act on the last axes alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from checks import assert_close, native, random_network, random_parameters
from mlp_xp.activations import ACTIVATIONS
from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend, open_backend
from mlp_xp.losses import LOSSES
from mlp_xp.network import Layer, Network, Parameters, forward, map_parameters
from mlp_xp.objective import Objective

TOLERANCE = 1e-7
STEP = 1e-3
# Fourth-order central differences: the error is of order STEP⁴ and eps / STEP, both near 1e-12.
STENCIL = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}
SIZES = (5, 6, 4, 3)
MARGIN = 0.02
"""No pre-activation is this close to zero, so that no step crosses the kink of ReLU."""


def moved_copies(parameters: Parameters, layer: int, field: str) -> NDArray[Any]:
    """Return the parameter with each of its entries moved by each of the stencil's steps: shape (4, size, ...)."""
    value = np.asarray(getattr(parameters[layer], field))
    moves = np.eye(value.size).reshape(value.size, *value.shape) * STEP
    return np.stack([value + offset * moves for offset in STENCIL])


def numerical_gradient(
    objective: Objective,
    parameters: Parameters,
    layer: int,
    field: str,
    data: tuple[Array, Array],
    backend: Backend,
    arithmetic: Arithmetic,
    weighting: tuple[Array | None, Array | None] = (None, None),
    masks: Sequence[Array] = (),
) -> NDArray[Any]:
    """Return the objective's central differences for one parameter of one layer, in its shape."""
    copies = moved_copies(parameters, layer, field)
    stacked = [*map_parameters(backend.asarray, parameters)]
    flat = backend.asarray(copies.reshape(-1, *copies.shape[2:]))
    stacked[layer] = stacked[layer]._replace(**{field: flat})
    # A weight that has no copies of its own takes part in all of them by broadcasting.
    value, _ = objective.value_and_gradient(tuple(stacked), *data, arithmetic, *weighting, masks)
    values = np.broadcast_to(backend.to_host(value), flat.shape[:1]).reshape(len(STENCIL), -1)  # some have no effect
    difference = np.einsum("i,ij->j", list(STENCIL.values()), values) / STEP
    return np.asarray(difference).reshape(copies.shape[2:])


def away_from_kinks(network: Network) -> tuple[Parameters, NDArray[Any]]:
    """Return parameters and features whose pre-activations all keep the margin."""
    arithmetic = native(open_backend("numpy"))
    for seed in range(100):
        rng = np.random.default_rng(seed)
        parameters, features = random_parameters(rng, network.layer_sizes), rng.normal(size=(7, 5))
        trace = forward(network, parameters, features, arithmetic)
        if min(np.min(np.abs(z)) for z in trace.pre_activations) > MARGIN:
            return parameters, features
    raise AssertionError("no seed keeps the margin")


@pytest.mark.parametrize("l2", [0.0, 0.1])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_gradient(backend: Backend, activation: str, loss: str, l2: float) -> None:
    arithmetic = native(backend)
    objective = Objective(Network(SIZES, activation), loss, l2)
    parameters, features = away_from_kinks(objective.network)
    targets = np.random.default_rng(1).random(size=(7, 3))
    if loss == "cross_entropy":
        targets /= targets.sum(axis=1, keepdims=True)
    data = (backend.asarray(features), backend.asarray(targets))
    on_device = map_parameters(backend.asarray, parameters)
    _, gradient = objective.value_and_gradient(on_device, *data, arithmetic)
    for i, field in itertools.product(range(len(parameters)), Layer._fields):
        analytic = getattr(gradient[i], field)
        assert analytic.dtype == data[0].dtype
        numerical = numerical_gradient(objective, parameters, i, field, data, backend, arithmetic)
        host = backend.to_host(analytic)
        assert host.shape == numerical.shape
        error = np.max(np.abs(host - numerical)) / np.max(np.abs(numerical))
        assert error <= TOLERANCE, f"layer {i}, {field}: relative error {error:.1e}"


@pytest.mark.parametrize("depth", [1, 2, 8])
def test_any_number_of_layers(numpy_backend: Backend, depth: int) -> None:
    rng = np.random.default_rng(depth)
    sizes = (3, *(4 for _ in range(depth - 1)), 2)
    objective = Objective(Network(sizes, "tanh"), "squared_error")
    parameters = random_parameters(rng, sizes)
    data = (rng.normal(size=(5, 3)), rng.normal(size=(5, 2)))
    arithmetic = native(numpy_backend)
    _, gradient = objective.value_and_gradient(parameters, *data, arithmetic)
    assert len(gradient) == depth
    for i, field in itertools.product(range(depth), Layer._fields):
        numerical = numerical_gradient(objective, parameters, i, field, data, numpy_backend, arithmetic)
        np.testing.assert_allclose(getattr(gradient[i], field), numerical, rtol=0, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_with_shares_and_a_penalty_of_the_batch(backend: Backend, loss: str) -> None:
    arithmetic = native(backend)
    objective = Objective(Network(SIZES, "tanh"), loss)
    parameters, features = away_from_kinks(objective.network)
    targets = np.random.default_rng(1).dirichlet(np.ones(3), 7)
    data = (backend.asarray(features), backend.asarray(targets))
    weighting = (backend.asarray(np.array([0.1, 0.2, 0, 0.3, 0.05, 0.35, 0])), backend.asarray(np.array(0.3)))
    on_device = map_parameters(backend.asarray, parameters)
    value, gradient = objective.value_and_gradient(on_device, *data, arithmetic, *weighting)
    assert value.shape == ()
    for i, field in itertools.product(range(len(parameters)), Layer._fields):
        numerical = numerical_gradient(objective, parameters, i, field, data, backend, arithmetic, weighting)
        np.testing.assert_allclose(backend.to_host(getattr(gradient[i], field)), numerical, rtol=0, atol=1e-8)


def test_shares_stand_for_rows_that_are_there_more_often_or_not_at_all(backend: Backend) -> None:
    """Weights 2, 1, 0 over rows a, b, c are the rows a, a, b."""
    arithmetic = native(backend)
    objective = Objective(Network((4, 5, 2), "sigmoid"), "squared_error", 0.25)
    rng = np.random.default_rng(0)
    parameters = map_parameters(backend.asarray, random_parameters(rng, (4, 5, 2)))
    features, targets = rng.normal(size=(3, 4)), rng.normal(size=(3, 2))
    shares = backend.asarray(np.array([2 / 3, 1 / 3, 0]))
    weighted = objective.value_and_gradient(
        parameters, backend.asarray(features), backend.asarray(targets), arithmetic, shares
    )
    rows = [0, 0, 1]
    repeated = objective.value_and_gradient(
        parameters, backend.asarray(features[rows]), backend.asarray(targets[rows]), arithmetic
    )
    assert_close(backend.to_host(weighted[0]), backend.to_host(repeated[0]), 8)
    for mine, other in zip(weighted[1], repeated[1], strict=True):
        assert_close(backend.to_host(mine.weight), backend.to_host(other.weight), 8)
        assert_close(backend.to_host(mine.bias), backend.to_host(other.bias), 8)


@pytest.mark.parametrize("weighted", [False, True], ids=["", "shares"])
@pytest.mark.parametrize("dropout", [False, True], ids=["", "dropout"])
@pytest.mark.parametrize(("residual", "batch_norm"), [(True, False), (False, True), (True, True)])
def test_with_shortcuts_and_batch_normalisation(
    backend: Backend, residual: bool, batch_norm: bool, dropout: bool, weighted: bool
) -> None:
    arithmetic = native(backend)
    network = Network((5, 5, 4, 4, 3), "tanh", residual=residual, batch_norm=batch_norm)
    objective = Objective(network, "cross_entropy", 0.1)
    rng = np.random.default_rng(2)
    parameters = random_network(rng, network)
    data = (backend.asarray(rng.normal(size=(7, 5))), backend.asarray(rng.dirichlet(np.ones(3), 7)))
    shares = backend.asarray(np.array([0.1, 0.2, 0, 0.3, 0.05, 0.35, 0]))
    weighting = (shares if weighted else None, None)
    masks = [backend.asarray(2.0 * (rng.random(size=(7, n)) < 0.5)) for n in (5, 4, 4)] if dropout else []
    on_device = map_parameters(backend.asarray, parameters)
    _, gradient = objective.value_and_gradient(on_device, *data, arithmetic, *weighting, masks)
    for i, layer in enumerate(gradient):
        assert type(layer) is type(parameters[i])
        for field, analytic in layer._asdict().items():
            assert analytic.dtype == data[0].dtype
            host = backend.to_host(analytic)
            numerical = numerical_gradient(objective, parameters, i, field, data, backend, arithmetic, weighting, masks)
            assert host.shape == numerical.shape
            error = np.max(np.abs(host - numerical))
            assert error <= TOLERANCE, f"layer {i}, {field}: error {error:.1e}"
            assert np.any(host != 0) == (field not in ("mean", "variance"))


def test_frozen_layers_have_no_gradient_and_no_penalty(backend: Backend) -> None:
    arithmetic = native(backend)
    network = Network((5, 4, 4, 3), "tanh", residual=True, batch_norm=True)
    objective = Objective(network, "squared_error", 0.1)
    rng = np.random.default_rng(3)
    parameters = map_parameters(backend.asarray, random_network(rng, network))
    data = (backend.asarray(rng.normal(size=(7, 5))), backend.asarray(rng.normal(size=(7, 3))))
    _, whole = objective.value_and_gradient(parameters, *data, arithmetic)
    _, gradient, learnt = objective.learn(parameters, *data, arithmetic, n_frozen=2)
    assert len(gradient) == len(learnt) == 1
    for part, expected in zip(gradient[0], whole[2], strict=True):
        np.testing.assert_array_equal(backend.to_host(part), backend.to_host(expected))
    value, _ = replace(objective, l2=0.0).value_and_gradient(parameters, *data, arithmetic)
    penalised, _ = objective.value_and_gradient(parameters, *data, arithmetic, n_frozen=2)
    weight = backend.to_host(parameters[2].weight)
    assert_close(backend.to_host(penalised), backend.to_host(value) + 0.05 * np.sum(weight**2))
