"""Every backend's exact step equals the oracle's, which knows Python's integers and fractions alone, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checks import computed, exact
from mlp_xp.arithmetic import Arithmetic, make_arithmetic, oracle
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend
from mlp_xp.batches import DeviceData
from mlp_xp.losses import LOSSES
from mlp_xp.network import Layer, Network, map_parameters
from mlp_xp.objective import Objective
from mlp_xp.optimizers import Adam
from mlp_xp.randomness import dropout_keys
from mlp_xp.settings import Settings
from mlp_xp.step import TrainingStep

OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "sgd"},
    {"optimizer": "sgd", "momentum": 0.9},
    {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
    {"optimizer": "adam"},
]


@st.composite
def problems(draw: st.DrawFn) -> tuple[Any, ...]:
    """Draw a small network, its parameters, two batches of features and targets, and what a step may do besides.

    That is: the rows' shares or None, the rate of dropout, and the largest norm of a gradient or None.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    n = draw(st.integers(1, 5))
    chosen = Settings(
        hidden_layer_sizes=tuple(sizes[1:-1]),
        activation=draw(st.sampled_from(sorted(oracle.ACTIVATIONS))),
        loss=draw(st.sampled_from(sorted(oracle.LOSSES))),
        learning_rate=draw(st.sampled_from([0.1, 1e-3])),
        l2=draw(st.sampled_from([0.0, 0.01])),
        batch_size=n,
        arithmetic="exact",
        **draw(st.sampled_from(OPTIMIZERS)),
    )

    def numbers(*shape: int) -> Any:
        return rng.normal(size=shape) * 2.0 ** draw(st.integers(-12, 3))

    parameters = tuple(Layer(numbers(a, b), numbers(b)) for a, b in pairwise(sizes))
    targets: Any
    if chosen.loss == "cross_entropy":
        targets = rng.dirichlet(np.ones(sizes[-1]), 2 * n)
    elif chosen.loss == "poisson":
        targets = rng.poisson(1.0, (2 * n, sizes[-1])) * 2.0 ** draw(st.sampled_from([0, 0, -2, 5, -70]))
    else:
        targets = rng.uniform(size=(2 * n, sizes[-1]))
    weights = rng.uniform(size=(2, n)) * rng.integers(0, 2, size=(2, n)) + 2.0**-60  # some as good as 0
    weights[:, rng.integers(n)] = 1.0
    shares = draw(st.sampled_from([None, weights / weights.sum(axis=1, keepdims=True)]))
    dropout = draw(st.sampled_from([0.0, 0.5, 0.3])) if chosen.hidden_layer_sizes else 0.0
    largest = draw(st.sampled_from([None, 1e-3, 1.0, 1e3]))
    optimizer = chosen.make_optimizer()
    if isinstance(optimizer, Adam):
        optimizer = replace(optimizer, epsilon=draw(st.sampled_from([1e-8, 0.1])), epsilon_hat=draw(st.booleans()))
    return chosen, optimizer, parameters, numbers(2 * n, sizes[0]), targets, shares, dropout, largest


def fractions(array: Any) -> Any:
    """Return an array as nested lists of fractions."""
    return [fractions(row) if row.ndim else Fraction(float(row)) for row in array]


def losses_and_predictions(arithmetic: Arithmetic, logits: Array, targets: Array, loss: str) -> Array:
    prediction, losses = LOSSES[loss](logits, arithmetic)
    return arithmetic.xp.concat([arithmetic.xp.expand_dims(losses(targets), axis=-1), prediction], axis=-1)


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_equals_the_oracles_for_many_rows(backend: Backend, loss: str, n_outputs: int) -> None:
    """Of all magnitudes: in the steps below, the last bit of a loss seldom depends on how it is computed."""
    rng, shape = np.random.default_rng(0), (300, n_outputs)
    logits = rng.normal(size=shape) * 2.0 ** rng.integers(-12, 6, shape)
    targets = rng.uniform(size=shape) * rng.integers(0, 2, shape)
    if loss == "cross_entropy":
        targets = rng.dirichlet(np.ones(n_outputs), 300)
    elif loss == "poisson":
        targets = targets * 2.0 ** rng.integers(-80, 60, shape) + rng.poisson(1.0, shape) * rng.integers(0, 2, shape)
    function = partial(losses_and_predictions, loss=loss)
    result = backend.to_host(computed(function, exact(backend), backend, logits, targets))
    expected = [oracle.LOSSES[loss](*row) for row in zip(fractions(logits), fractions(targets), strict=True)]
    assert fractions(result) == [[value, *prediction] for value, prediction in expected]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # where a loss is infinite
@given(problems())
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_two_steps_equal_the_oracles(backend: Backend, problem: tuple[Any, ...]) -> None:
    chosen, optimizer, parameters, features, targets, shares, dropout, largest = problem
    arithmetic = make_arithmetic("exact", backend, "float64")
    sizes = (features.shape[1], *chosen.hidden_layer_sizes, targets.shape[1])
    objective = Objective(Network(sizes, chosen.activation), chosen.loss, chosen.l2)
    rows = DeviceData(arithmetic.round_activation(backend.asarray(features)), backend.asarray(targets))
    start = map_parameters(backend.asarray, parameters)
    n = chosen.batch_size
    xs: tuple[Any, ...] = (backend.asarray(np.arange(2 * n, dtype=np.int32).reshape(2, n)),)
    keys = dropout_keys(2, len(chosen.hidden_layer_sizes), 7, 0)
    if dropout:
        xs += (backend.asarray(keys),)
    penalties = [chosen.l2, chosen.l2]
    if shares is not None:
        penalties = [0.5, 0.0625]
        xs += (backend.asarray(shares), backend.asarray(np.asarray(penalties)))
    step = TrainingStep(objective, optimizer, 1.0, arithmetic, dropout, largest)
    (after, _), (losses,) = backend.scan(step, (start, optimizer.init(start, arithmetic)), xs, rows)

    layers = [(fractions(layer.weight), fractions(layer.bias)) for layer in parameters]
    referee = (
        oracle.Adam(chosen.learning_rate, epsilon=optimizer.epsilon, epsilon_hat=optimizer.epsilon_hat)
        if isinstance(optimizer, Adam)
        else oracle.SGD(chosen.learning_rate, chosen.momentum, chosen.nesterov)
    )
    values: list[Fraction] = []
    table, wanted = oracle.load(fractions(features)), fractions(targets)
    for i, batch in enumerate((slice(n), slice(n, None))):
        masks = [
            oracle.keep_mask((int(a), int(b)), n, width, dropout)
            for (a, b), width in zip(keys[i], sizes[1:-1], strict=True)
        ]
        try:
            value, gradient = oracle.value_and_gradient(
                layers,
                table[batch],
                wanted[batch],
                chosen.activation,
                chosen.loss,
                penalties[i],
                None if shares is None else fractions(shares[i]),
                masks if dropout else (),
            )
        except OverflowError:  # a prediction that no fraction is: the training must stop
            host = backend.to_host(losses)
            assert fractions(host[:i]) == values
            assert not np.isfinite(host[i])
            return
        if largest is not None:
            gradient = oracle.clip_by_norm(gradient, largest)
        layers = referee.step(layers, gradient)
        values.append(value)
    assert fractions(backend.to_host(losses)) == values
    for layer, (weight, bias) in zip(after, layers, strict=True):
        assert fractions(backend.to_host(layer.weight)) == weight
        assert fractions(backend.to_host(layer.bias)) == bias
