"""`Backend.isolate` keeps operations apart, so that every one of them rounds by itself as IEEE 754 says.

The host computes the same numbers one operation at a time. The same functions without `isolate` are the control: a
compiler is found out by them, or has merged nothing here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from checks import assert_array, computed, exact
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend

N = 2**16
CONSTANTS = (0.1, 0.3)


def product_and_sum(arithmetic: Any, a: Array, b: Array, c: Array) -> Array:
    return arithmetic.isolate(a * b) + c


def sum_and_product(arithmetic: Any, a: Array, b: Array, c: Array) -> Array:
    return c - arithmetic.isolate(a * b)


def two_products(arithmetic: Any, a: Array, b: Array, c: Array) -> Array:
    return arithmetic.isolate(a * b) + arithmetic.isolate(b * c)


def chained_constants(arithmetic: Any, a: Array, _b: Array, _c: Array) -> Array:
    return arithmetic.isolate(arithmetic.isolate(a * CONSTANTS[0]) * CONSTANTS[1])


def sum_of_constants(arithmetic: Any, a: Array, _b: Array, _c: Array) -> Array:
    return arithmetic.isolate(a + CONSTANTS[0]) - CONSTANTS[0]


def difference(arithmetic: Any, a: Array, b: Array, _c: Array) -> Array:
    return arithmetic.isolate(arithmetic.isolate(a + b) - a) - b


def quotient(arithmetic: Any, a: Array, b: Array, _c: Array) -> Array:
    return arithmetic.isolate(a / b) * b


def reciprocals(arithmetic: Any, a: Array, b: Array, _c: Array) -> Array:
    rows, divisors = (arithmetic.xp.reshape(x, (256, 256)) for x in (a, b))
    return rows * arithmetic.isolate(1.0 / divisors[:, :1])


def quotient_by_rows(arithmetic: Any, a: Array, b: Array, c: Array) -> Array:
    rows, divisors, bias = (arithmetic.xp.reshape(x, (256, 256)) for x in (a, b, c))
    return arithmetic.divide(rows, divisors[:, :1]) + bias


def matmul_and_bias(arithmetic: Any, a: Array, b: Array, c: Array) -> Array:
    x, w, bias = (arithmetic.xp.reshape(x, (256, 256)) for x in (a, b, c))
    return arithmetic.matmul(arithmetic.round_activation(x), arithmetic.round_weight(w)) + bias


EXPRESSIONS = (
    product_and_sum,
    sum_and_product,
    two_products,
    chained_constants,
    sum_of_constants,
    difference,
    quotient,
    reciprocals,
    quotient_by_rows,
    matmul_and_bias,
)


def numbers() -> list[NDArray[np.float64]]:
    """Return random numbers of both signs and of magnitudes near each other, so that sums lose bits."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=N) * 2.0 ** rng.integers(-8, 8, N) for _ in range(3)]


def not_isolated(x: Array) -> Array:
    return x


def on_host(expression: Callable[..., Array], numpy_backend: Backend) -> NDArray[Any]:
    """Return what NumPy computes, one operation at a time."""
    host: NDArray[Any] = expression(exact(numpy_backend), *numbers())
    return host


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_operation_rounds_by_itself(
    backend: Backend, numpy_backend: Backend, expression: Callable[..., Array]
) -> None:
    result = computed(expression, exact(backend), backend, *numbers())
    assert_array(result, on_host(expression, numpy_backend), backend, like=backend.asarray(np.zeros(1)), ulps=0)


def isolated(arithmetic: Any, x: Array) -> Array:
    result: Array = arithmetic.isolate(x)
    return result


def test_isolation_leaves_every_number_as_it_is(backend: Backend) -> None:
    largest, least = (float(x) for x in (np.finfo(np.float64).max, np.finfo(np.float64).tiny))
    x = np.array([0.0, 1.0, -1.0, largest, -largest, least, -least])
    assert_array(computed(isolated, exact(backend), backend, x), x, backend, like=backend.asarray(x), ulps=0)
    assert np.all(np.isnan(backend.to_host(computed(isolated, exact(backend), backend, [np.nan]))))


def test_without_isolation_a_compiler_is_found_out(backend: Backend, numpy_backend: Backend) -> None:
    """So the test above can fail."""
    if type(backend).isolate is Backend.isolate:
        pytest.skip("this library runs one operation at a time: there is nothing to isolate")
    arithmetic: Any = exact(backend)
    merging = replace(arithmetic, isolate=not_isolated)

    def differs(expression: Callable[..., Array]) -> bool:
        result = backend.to_host(computed(expression, merging, backend, *numbers()))
        return not np.array_equal(result, on_host(expression, numpy_backend))

    if not any(map(differs, EXPRESSIONS)):
        pytest.skip("this compiler merges and re-orders nothing on this machine")
