"""Every optimiser against its recurrence in plain numbers; the state is pure and keeps dtype and device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from checks import DTYPES, assert_array, native
from mlp_xp.backend import Backend, open_backend
from mlp_xp.network import Layer, Parameters
from mlp_xp.optimizers import OPTIMIZERS, SGD, Adam, Optimizer

GRADIENTS = [0.5, -1.0, 2.0, 0.25, 0.0, -0.125]
START = 1.0


def plain(rate: float) -> Iterator[float]:
    theta = START
    for g in GRADIENTS:
        theta -= rate * g
        yield theta


def momentum(rate: float, mu: float, *, nesterov: bool) -> Iterator[float]:
    """Sutskever et al. 2013, equations 1-4; Nesterov's gradient is taken where the parameters already look."""
    theta, velocity = START, 0.0
    for g in GRADIENTS:
        velocity = mu * velocity - rate * g
        theta += mu * velocity - rate * g if nesterov else velocity
        yield theta


def adam(rate: float, beta_1: float, beta_2: float, epsilon: float) -> Iterator[float]:
    """Kingma and Ba 2015, algorithm 1, with its powers."""
    theta, m, v = START, 0.0, 0.0
    for t, g in enumerate(GRADIENTS, start=1):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g * g
        theta -= rate * (m / (1 - beta_1**t)) / (math.sqrt(v / (1 - beta_2**t)) + epsilon)
        yield theta


def efficient_adam(rate: float, beta_1: float, beta_2: float, epsilon_hat: float) -> Iterator[float]:
    """The same paper, end of section 2."""
    theta, m, v = START, 0.0, 0.0
    for t, g in enumerate(GRADIENTS, start=1):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g * g
        theta -= rate * math.sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (math.sqrt(v) + epsilon_hat)
        yield theta


CASES: dict[str, tuple[Optimizer, Callable[[], Iterator[float]]]] = {
    "sgd": (SGD(0.1), lambda: plain(0.1)),
    "momentum": (SGD(0.1, 0.9), lambda: momentum(0.1, 0.9, nesterov=False)),
    "nesterov": (SGD(0.1, 0.9, nesterov=True), lambda: momentum(0.1, 0.9, nesterov=True)),
    "adam": (Adam(0.01), lambda: adam(0.01, 0.9, 0.999, 1e-8)),
    "adam, other decays": (Adam(0.01, 0.5, 0.75, 1e-3), lambda: adam(0.01, 0.5, 0.75, 1e-3)),
    "adam, efficient form": (
        Adam(0.01, epsilon=0.125, epsilon_hat=True),
        lambda: efficient_adam(0.01, 0.9, 0.999, 0.125),
    ),
}


def test_every_optimizer_is_tested() -> None:
    assert {type(optimizer) for optimizer, _ in CASES.values()} == set(OPTIMIZERS.values())


def as_layer(value: float, backend: Backend, dtype: str) -> tuple[Layer, ...]:
    array = backend.asarray(np.asarray([value]), dtype)
    return (Layer(array, array),)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_steps_follow_the_recurrence(backend: Backend, name: str, dtype: str) -> None:
    optimizer, expected = CASES[name]
    arithmetic = native(backend, dtype)
    parameters: Parameters = as_layer(START, backend, dtype)
    state = optimizer.init(parameters, arithmetic)
    for g, theta in zip(GRADIENTS, expected(), strict=True):
        moved, state = optimizer.update(as_layer(g, backend, dtype), state, parameters, arithmetic)
        for field in Layer._fields:
            assert_array(getattr(moved[0], field), [theta], backend, like=parameters[0].weight, ulps=16)
        parameters = moved


def leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, tuple):
        for branch in tree:
            yield from leaves(branch)
    elif tree is not None:
        yield tree


@pytest.mark.parametrize("name", CASES)
def test_update_leaves_its_arguments_untouched(backend: Backend, name: str) -> None:
    optimizer, _ = CASES[name]
    arithmetic = native(backend)
    arguments = as_layer(0.5, backend, "float64"), as_layer(START, backend, "float64")
    state = optimizer.init(arguments[1], arithmetic)
    before = [backend.to_host(leaf).copy() for leaf in leaves((arguments, state))]
    optimizer.update(arguments[0], state, arguments[1], arithmetic)
    for leaf, old in zip(leaves((arguments, state)), before, strict=True):
        np.testing.assert_array_equal(backend.to_host(leaf), old)


@pytest.mark.parametrize("name", CASES)
def test_the_state_keeps_its_structure(backend: Backend, name: str) -> None:
    """A compiled loop carries it: structure, shapes and dtypes must not change from step to step."""
    optimizer, _ = CASES[name]
    arithmetic = native(backend, "float32")
    parameters = as_layer(START, backend, "float32")
    state = optimizer.init(parameters, arithmetic)
    _, after = optimizer.update(parameters, state, parameters, arithmetic)
    assert [(leaf.shape, leaf.dtype) for leaf in leaves(state)] == [(leaf.shape, leaf.dtype) for leaf in leaves(after)]


@pytest.mark.parametrize("name", CASES)
def test_the_state_is_made_on_the_arithmetics_device(name: str) -> None:
    """Also where the parameters are elsewhere: not every library's zeros_like follows them."""
    there = open_backend("strict", "device1")
    optimizer, _ = CASES[name]
    state = optimizer.init(as_layer(START, open_backend("strict", "cpu"), "float32"), native(there, "float32"))
    assert {leaf.device for leaf in leaves(state)} == {there.device}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_with_the_same_update_are_equal(name: str) -> None:
    """The learning rate is in the state; whatever else is given decides the update."""
    optimizer: Any = OPTIMIZERS[name](0.1)
    for field in fields(optimizer):
        changed = replace(optimizer, **{field.name: getattr(optimizer, field.name) + 0.25})
        assert (changed == optimizer) is (hash(changed) == hash(optimizer)) is (field.name == "learning_rate")


def test_the_learning_rate_can_change_between_steps(backend: Backend) -> None:
    arithmetic = native(backend)
    parameters = as_layer(START, backend, "float64")
    state = SGD(0.1).init(parameters, arithmetic)
    slower = state._replace(learning_rate=state.learning_rate * 0.5)
    moved, _ = SGD(0.1).update(as_layer(1.0, backend, "float64"), slower, parameters, arithmetic)
    assert_array(moved[0].weight, [0.95], backend, like=parameters[0].weight)
