"""The rounding points leave integers times a power of two, close by; then no order of summation shows in a result."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from checks import as_integers, assert_array, computed, exact, random_parameters
from mlp_xp.arithmetic import Arithmetic, oracle
from mlp_xp.arithmetic.bits import activation_bits, gradient_bits, weight_bits
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend
from mlp_xp.model import Model
from mlp_xp.network import Layer, Network, map_parameters
from mlp_xp.objective import Objective

POINTS: dict[str, Callable[..., Array]] = {
    "activation": lambda arithmetic, x: arithmetic.round_activation(x),
    "gradient": lambda arithmetic, x: arithmetic.round_gradient(x),
    "weight": lambda arithmetic, x: arithmetic.round_weight(x),
    "state": lambda arithmetic, x: arithmetic.round_state(x),
}
BITS: dict[str, Callable[[int, int], int]] = {
    "activation": lambda _, columns: activation_bits(columns),
    "gradient": gradient_bits,
    "weight": weight_bits,
}
FINEST = Fraction(1, 2**200)
LARGEST = 970
"""Larger numbers than 2**970 overflow on the way to their leading power."""
NORMAL = st.floats(-(2.0**LARGEST), 2.0**LARGEST, allow_subnormal=False)

PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def matrices(draw: st.DrawFn) -> NDArray[Any]:
    """Draw a matrix of like or widely differing magnitudes, with zeros; from 1e-300 to 1e292 altogether."""
    shape = draw(st.sampled_from([(1, 1), (3, 1), (2, 5), (1, 300)]))
    x = draw(arrays(np.float64, shape, elements=st.floats(-4.0, 4.0) | st.just(0.0)))
    x = x * 2.0 ** draw(st.integers(-1000, LARGEST - 3))
    return np.where(np.abs(x) < np.finfo(x.dtype).tiny, 0.0, x)


def unit(x: NDArray[Any], bits: int) -> Fraction:
    """Return what the last of so many bits stands for, counted from the leading one of the largest number."""
    largest = float(np.max(np.abs(x)))
    return max(Fraction(2) ** (math.frexp(largest)[1] - bits), FINEST) if largest else FINEST


@pytest.mark.parametrize("point", BITS)
@given(x=matrices())
@PROPERTY
def test_a_rounding_point_leaves_integers_of_few_bits(backend: Backend, point: str, x: NDArray[Any]) -> None:
    bits, arithmetic = BITS[point](*x.shape), exact(backend)
    rounded, one = computed(POINTS[point], arithmetic, backend, x), unit(x, bits)
    expected = [float(round(Fraction(number) / one) * one) for number in x.ravel().tolist()]
    assert_array(rounded, np.reshape(expected, x.shape), backend, like=backend.asarray(x), ulps=0)
    host = backend.to_host(rounded)
    assert as_integers(host) <= 2**bits
    if unit(host, bits) == one:  # unless the largest number was rounded up to a power of two
        again = computed(POINTS[point], arithmetic, backend, host)
        np.testing.assert_array_equal(backend.to_host(again), host)


def test_the_zeros_stay(backend: Backend) -> None:
    for point in POINTS.values():
        rounded = computed(point, exact(backend), backend, np.zeros((3, 2)))
        assert_array(rounded, np.zeros((3, 2)), backend, like=backend.asarray(np.zeros(1)))


def leading_power(arithmetic: Any, x: Array) -> Array:
    power: Array = arithmetic.leading_power(x)
    return power


@given(x=st.lists(NORMAL, min_size=8, max_size=8))
@PROPERTY
@example([0.0, 1.0, -1.0, 2.0**-1022, -(2.0**LARGEST), math.nextafter(1.0, 0.0), math.nextafter(4.0, 5.0), 3.0])
def test_the_leading_power_is_the_exponent(backend: Backend, x: list[float]) -> None:
    power = computed(leading_power, exact(backend), backend, x)
    expected = [math.ldexp(0.5, math.frexp(number)[1]) if number else 0.0 for number in x]
    assert_array(power, expected, backend, like=backend.asarray(np.asarray(x)), ulps=0)


def operands(rng: np.random.Generator, spread: bool, *shape: int) -> NDArray[Any]:
    """Return numbers of all magnitudes, or all near the largest and of one sign, so that the sums come near 2**53."""
    return rng.normal(size=shape) * 2.0 ** rng.integers(-30, 3, shape) if spread else rng.uniform(0.99, 1.0, shape)


def product(arithmetic: Arithmetic, x: Array, w: Array) -> Array:
    return arithmetic.matmul(arithmetic.round_activation(x), arithmetic.round_weight(w))


def fractions(x: NDArray[Any]) -> Any:
    return np.vectorize(Fraction, otypes=[object])(x)


def nearest(x: Any) -> NDArray[np.float64]:
    """Return fractions as floats, which they must be."""
    floats = np.asarray(x, dtype=np.float64)
    assert np.all(fractions(floats) == x), "the sum is no float64"
    return floats


@pytest.mark.parametrize("spread", [True, False])
def test_a_product_is_the_exact_sum_in_any_order(backend: Backend, spread: bool) -> None:
    rng, arithmetic = np.random.default_rng(0), exact(backend)
    x, w = operands(rng, spread, 3, 1000), operands(rng, spread, 1000, 4)
    left = backend.to_host(computed(POINTS["activation"], arithmetic, backend, x))
    right = backend.to_host(computed(POINTS["weight"], arithmetic, backend, w))
    expected = nearest(fractions(left) @ fractions(right))
    for _ in range(5):
        assert_array(computed(product, arithmetic, backend, x, w), expected, backend, like=backend.asarray(x), ulps=0)
        order = rng.permutation(1000)
        x, w = x[:, order], w[order, :]


@pytest.mark.parametrize("spread", [True, False])
@pytest.mark.parametrize("axis", [0, -1, (0, 1)])
def test_a_sum_is_that_of_the_rounded_terms_in_any_order(
    backend: Backend, axis: int | tuple[int, ...], spread: bool
) -> None:
    def total(arithmetic: Arithmetic, x: Array) -> Array:
        return arithmetic.sum(x, axis=axis)

    def total_kept(arithmetic: Arithmetic, x: Array) -> Array:
        return arithmetic.sum(x, axis=axis, keepdims=True)

    rng, arithmetic = np.random.default_rng(1), exact(backend)
    x = operands(rng, spread, 60, 70)
    columns = {0: x.T, -1: x, (0, 1): x.reshape(1, -1)}[axis]
    shape, shape_kept = {0: ((70,), (1, 70)), -1: ((60,), (60, 1)), (0, 1): ((), (1, 1))}[axis]
    sums = [oracle.rounded_total([Fraction(number) for number in column.tolist()]) for column in columns]
    expected = nearest(np.asarray(sums, dtype=object).reshape(shape))
    for _ in range(5):
        assert_array(computed(total, arithmetic, backend, x), expected, backend, like=backend.asarray(x), ulps=0)
        kept = computed(total_kept, arithmetic, backend, x)
        assert_array(kept, expected.reshape(shape_kept), backend, like=backend.asarray(x), ulps=0)
        if axis != -1:
            x = x[rng.permutation(60), :]
        if axis != 0:
            x = x[:, rng.permutation(70)]


@pytest.mark.parametrize("spread", [True, False])
def test_rounded_gradients_sum_exactly_in_any_order(backend: Backend, spread: bool) -> None:
    def total(arithmetic: Arithmetic, x: Array) -> Array:
        return arithmetic.sum_rounded(arithmetic.round_gradient(x), axis=-2)

    rng, arithmetic = np.random.default_rng(2), exact(backend)
    x = operands(rng, spread, 1000, 3)
    expected = nearest(np.sum(fractions(backend.to_host(computed(POINTS["gradient"], arithmetic, backend, x))), axis=0))
    for _ in range(5):
        assert_array(computed(total, arithmetic, backend, x), expected, backend, like=backend.asarray(x), ulps=0)
        x = rng.permutation(x, axis=0)


SIZES = (6, 200, 3)  # the hidden layer so wide that it takes bits from its neighbours


def features(n: int) -> NDArray[Any]:
    """Return rows of which each has its own magnitude."""
    rng = np.random.default_rng(3)
    return np.asarray(rng.normal(size=(n, SIZES[0])) * 2.0 ** rng.integers(-12, 6, (n, 1)))


@pytest.mark.parametrize(
    ("activation", "loss"),
    [
        ("tanh", "cross_entropy"),
        ("sigmoid", "binary_cross_entropy"),
        ("relu", "squared_error"),
        ("softplus", "poisson"),
    ],
)
def test_no_prediction_depends_on_the_other_rows(backend: Backend, activation: str, loss: str) -> None:
    objective = Objective(Network(SIZES, activation), loss)
    arithmetic = exact(backend).for_inference()
    parameters = map_parameters(backend.asarray, random_parameters(np.random.default_rng(4), SIZES))
    model = Model(objective, parameters, 0.5, 3, backend, arithmetic, "float64")
    together = model.predict(features(9)).values
    alone = [model.predict(row).values for row in np.split(features(9), 9)]
    np.testing.assert_array_equal(together, np.concatenate(alone))

    def losses(x: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
        rows = arithmetic.round_activation(backend.asarray(x))
        return backend.to_host(objective.losses(parameters, rows, backend.asarray(targets), arithmetic)[0])

    targets = np.random.default_rng(5).dirichlet(np.ones(3), 9)
    alone = [losses(*row) for row in zip(np.split(features(9), 9), np.split(targets, 9), strict=True)]
    np.testing.assert_array_equal(losses(features(9), targets), np.concatenate(alone))


def step(arithmetic: Arithmetic, x: Array, targets: Array, *parameters: Array) -> Array:
    """Return the loss and all gradients, one after the other along the last axis."""
    layers = tuple(map(Layer, parameters[::2], parameters[1::2]))
    objective = Objective(Network(SIZES, "tanh"), "cross_entropy", 0.01)
    loss, gradient = objective.value_and_gradient(layers, arithmetic.round_activation(x), targets, arithmetic)
    xp, leading = arithmetic.xp, loss.shape
    return xp.concat([xp.reshape(part, (*leading, -1)) for part in (loss, *sum(gradient, ()))], axis=-1)


def test_networks_side_by_side_have_the_bits_of_each_alone(backend: Backend) -> None:
    rng, arithmetic = np.random.default_rng(6), exact(backend)
    layers = random_parameters(rng, SIZES, 3)
    magnitudes = np.array([0.1, 1.0, 2.0])
    stacked = [(array.T * magnitudes).T for layer in layers for array in layer]
    x, targets = features(7), rng.dirichlet(np.ones(3), 7)
    together = computed(step, arithmetic, backend, x, targets, *stacked)
    alone = [computed(step, arithmetic, backend, x, targets, *(array[i] for array in stacked)) for i in range(3)]
    expected = np.stack([backend.to_host(one) for one in alone])
    assert_array(together, expected, backend, like=backend.asarray(x), ulps=0)


@given(x=st.lists(NORMAL | st.floats(-(2.0**-540), 2.0**-540, allow_subnormal=False), min_size=8, max_size=8))
@PROPERTY
@example([math.nextafter(2.0**-546, 1.0), 2.0**-546, 1.0, 2.0**-652, 1.5 * 2.0**-653, 2.0**-1022, 0.0, -(2.0**-600)])
@example([0.0] * 7 + [-1.6191363957423642e-181])
def test_what_an_optimiser_carries_fades_before_it_is_subnormal(backend: Backend, x: list[float]) -> None:
    state = computed(POINTS["state"], exact(backend), backend, x)
    expected = np.array([float(oracle.fade(Fraction(number))) for number in x])
    assert_array(state, expected, backend, like=backend.asarray(np.asarray(x)), ulps=0)
    for number, kept in zip(x, backend.to_host(state).tolist(), strict=True):
        assert (Fraction(kept) * 2**653).denominator == 1  # just below 2**-600 a negative sum has one more bit
        assert kept == number or abs(number) <= 2.0**-546
        assert abs(Fraction(kept) - Fraction(number)) <= max(Fraction(1, 2**653), abs(Fraction(number)) / 2**52)
