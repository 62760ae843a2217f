"""Every activation: its value against the standard library's, its backward against the derivative's formula."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from checks import DTYPES, assert_array, native
from mlp_xp.activations import ACTIVATIONS
from mlp_xp.backend import Backend


def sigmoid(z: float) -> float:
    return 1.0 / (1.0 + math.exp(-z)) if z > -700 else 0.0


def softplus(z: float) -> float:
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


def gelu(z: float) -> float:
    return z / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))


def gelu_slope(z: float) -> float:
    if abs(z) > 9:
        return float(z > 0)
    u, du = math.sqrt(2 / math.pi) * (z + 0.044715 * z**3), math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * z**2)
    return (1 + math.tanh(u)) / 2 + z / 2 * du / math.cosh(u) ** 2


VALUES: dict[str, Callable[[float], float]] = {
    "identity": lambda z: z,
    "relu": lambda z: max(z, 0.0),
    "leaky_relu": lambda z: z if z > 0 else z / 100,
    "elu": lambda z: z if z > 0 else math.expm1(z),
    "gelu": gelu,
    "silu": lambda z: z * sigmoid(z),
    "softplus": softplus,
    "sigmoid": sigmoid,
    "tanh": math.tanh,
}
DERIVATIVES: dict[str, Callable[[float], float]] = {
    "identity": lambda z: 1.0,
    "relu": lambda z: float(z > 0),
    "leaky_relu": lambda z: 1.0 if z > 0 else 0.01,
    "elu": lambda z: 1.0 if z > 0 else math.exp(z),
    "gelu": gelu_slope,
    "silu": lambda z: sigmoid(z) * (1 + z * sigmoid(-z)),
    "softplus": sigmoid,
    "sigmoid": lambda z: sigmoid(z) * (1 - sigmoid(z)),
    "tanh": lambda z: 1 - math.tanh(z) ** 2,
}
POINTS = np.asarray([[-1e4, -40.0, -3.0, -1.0, -0.25, 0.0], [1e4, 40.0, 3.0, 1.0, 0.25, 0.5]])


def test_the_formulas_here_cover_the_table() -> None:
    assert set(VALUES) == set(DERIVATIVES) == set(ACTIVATIONS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_value(backend: Backend, name: str, dtype: str) -> None:
    z = backend.asarray(POINTS, dtype)
    expected = np.vectorize(VALUES[name])(POINTS)
    assert_array(ACTIVATIONS[name].forward(z, native(backend, dtype)), expected, backend, like=z)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_backward_multiplies_by_the_derivative(backend: Backend, name: str, dtype: str) -> None:
    arithmetic = native(backend, dtype)
    z = backend.asarray(POINTS, dtype)
    gradient = np.asarray([[1.0, -2.0, 0.5, 3.0, -1.0, 7.0]] * 2)
    y = ACTIVATIONS[name].forward(z, arithmetic)
    actual = ACTIVATIONS[name].backward(backend.asarray(gradient, dtype), z, y, arithmetic)
    assert_array(actual, gradient * np.vectorize(DERIVATIVES[name])(POINTS), backend, like=z)


def test_sigmoid_keeps_small_values(backend: Backend) -> None:
    """1 / (1 + exp(-z)) is exp(z) far below zero; a form like 1 - 1 / (1 + exp(z)) would give 0 there."""
    z = backend.asarray(np.asarray([-80.0, -40.0]), "float64")
    y = backend.to_host(ACTIVATIONS["sigmoid"].forward(z, native(backend)))
    np.testing.assert_allclose(y, np.exp([-80.0, -40.0]), rtol=1e-14)


def test_derivative_of_sigmoid_is_at_most_a_quarter(backend: Backend) -> None:
    z = backend.asarray(np.linspace(-30, 30, 2001), "float64")
    arithmetic = native(backend)
    y = ACTIVATIONS["sigmoid"].forward(z, arithmetic)
    one = backend.asarray(np.ones(2001), "float64")
    slope = backend.to_host(ACTIVATIONS["sigmoid"].backward(one, z, y, arithmetic))
    assert np.all(slope > 0)
    assert float(np.max(slope)) == 0.25
