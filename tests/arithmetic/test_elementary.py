"""The elementary functions of exact arithmetic: near the truth everywhere, and to the bit what the oracle says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import Any

import array_api_compat.numpy as xp
import mpmath
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from checks import assert_array, computed, exact
from mlp_xp.arithmetic import Arithmetic, oracle
from mlp_xp.arithmetic.elementary import SMALLEST_ROOT
from mlp_xp.arithmetic.tables import EXP_CELLS, EXP_FINE_CELLS, EXP_HIGHEST, EXP_LOWEST, LOG_2, LOG_CELLS, make_tables
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend

FUNCTIONS: dict[str, Callable[[Arithmetic, Array], Array]] = {
    "exp": lambda arithmetic, x: arithmetic.exp(x),
    "log": lambda arithmetic, x: arithmetic.log(x),
    "tanh": lambda arithmetic, x: arithmetic.tanh(x),
    "sqrt": lambda arithmetic, x: arithmetic.sqrt(x),
}
ULPS = {"exp": 4, "log": 4, "tanh": 12, "sqrt": 4}
LARGEST_ROOT = 2.0**970
"""Products on the way to the root of a larger number overflow."""
ARGUMENTS = {
    "exp": st.floats(EXP_LOWEST - 1.0, EXP_HIGHEST, exclude_max=True, allow_subnormal=False),
    "log": st.floats(1.0, 2.0**64, exclude_max=True),
    "tanh": st.floats(-160.0, 160.0, allow_subnormal=False) | st.floats(-0.25, 0.25, allow_subnormal=False),
    "sqrt": st.floats(0.0, LARGEST_ROOT, allow_subnormal=False),
}


def with_neighbours(x: NDArray[Any]) -> NDArray[Any]:
    """Return numbers, and those right below and above each."""
    return np.concatenate([x, np.nextafter(x, -np.inf), np.nextafter(x, np.inf)])


def arguments(name: str) -> NDArray[Any]:
    """Return random numbers and edges of a function's domain: where a table's cells meet, tiny ones, huge ones."""
    rng = np.random.default_rng(0)
    tiny = 2.0 ** -np.arange(1.0, 1000.0, 7.0)
    if name == "exp":
        cells = np.concatenate([np.arange(97), np.arange(0, 9601, 97), [9600]]) / EXP_CELLS
        fine = np.arange(0, 20 * EXP_FINE_CELLS, 37) / (EXP_CELLS * EXP_FINE_CELLS)
        x = np.concatenate([with_neighbours(cells), with_neighbours(fine), rng.uniform(0, EXP_HIGHEST, 2000), tiny])
        x = np.concatenate([x, -x])
        x = x[(x >= EXP_LOWEST) & (x < EXP_HIGHEST)]
        return np.asarray(x[(x == 0) | (np.abs(x) > np.finfo(x.dtype).tiny)])
    if name == "log":
        powers, cells = 2.0 ** np.arange(64), 1 + np.arange(LOG_CELLS) / LOG_CELLS
        spread = rng.uniform(1, 2, 2000) * 2.0 ** rng.integers(0, 64, 2000)
        x = np.concatenate([with_neighbours(powers), with_neighbours(cells), spread, [2.0**64 * (1 - 2**-53)]])
        return np.asarray(x[x >= 1])
    if name == "tanh":
        switch = with_neighbours(np.array([0.0625, 0.125, 1.0, 150.0]))
        x = np.concatenate([switch, rng.uniform(0, 0.25, 1000), rng.uniform(0, 40, 1000), tiny, [0.0, 1e3, 1e300]])
        return np.concatenate([x, -x])
    powers = 2.0 ** np.arange(-899.0, 970.0)  # every other one of four
    squares = rng.integers(1, 2**26, 500).astype(np.float64) ** 2  # where the root's leading bits hang by a thread
    spread = rng.uniform(1, 4, 1000) * 4.0 ** rng.integers(-449, 484, 1000)
    x = np.concatenate([with_neighbours(powers), with_neighbours(squares), spread])
    return np.concatenate([x, [LARGEST_ROOT, SMALLEST_ROOT, 0.0]])


@cache
def truths(name: str) -> list[Any]:
    """Return the true values, to 200 bits."""
    with mpmath.workprec(200):
        return [getattr(mpmath, name)(mpmath.mpf(x)) for x in arguments(name).tolist()]


@cache
def bits(name: str) -> list[float]:
    """Return what the oracle says."""
    return [float(getattr(oracle, name)(Fraction(x))) for x in arguments(name).tolist()]


def nearest(x: Any) -> float:
    """Return the float64 nearest to a number of mpmath's."""
    with mpmath.workprec(53):
        return float(+x)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_true_value_is_a_few_units_in_the_last_place_away(backend: Backend, name: str) -> None:
    x, expected = arguments(name), [nearest(truth) for truth in truths(name)]
    arithmetic = exact(backend)
    y = computed(FUNCTIONS[name], arithmetic, backend, x)
    assert_array(y, expected, backend, like=backend.asarray(x), ulps=ULPS[name])
    with mpmath.workprec(200):
        for argument, value, truth in zip(x.tolist(), backend.to_host(y).tolist(), truths(name), strict=True):
            error = abs(mpmath.mpf(value) - truth) / math.ulp(nearest(truth))
            assert error <= ULPS[name], f"{name}({argument.hex()}) is off by {float(error):.2f} units in the last place"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_bits_are_the_oracles(backend: Backend, name: str) -> None:
    x = arguments(name)
    y = computed(FUNCTIONS[name], exact(backend), backend, x)
    assert_array(y, bits(name), backend, like=backend.asarray(x), ulps=0)


@pytest.mark.parametrize("name", FUNCTIONS)
@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_bits_are_the_oracles_for_any_numbers(backend: Backend, name: str, data: st.DataObject) -> None:
    x = data.draw(st.lists(ARGUMENTS[name], min_size=8, max_size=8))
    y = computed(FUNCTIONS[name], exact(backend), backend, x)
    expected = [float(getattr(oracle, name)(Fraction(value))) for value in x]
    assert_array(y, expected, backend, like=backend.asarray(np.asarray(x)), ulps=0)


def test_values_at_the_ends_are_exact(backend: Backend) -> None:
    def values(name: str, *x: float) -> list[float]:
        y = computed(FUNCTIONS[name], exact(backend), backend, x)
        host: list[float] = backend.to_host(y).tolist()
        return host

    lowest = nearest(mpmath.exp(EXP_LOWEST))
    assert values("exp", 0.0, EXP_LOWEST - 1e-9, -1e4, -math.inf) == [1.0, *values("exp", EXP_LOWEST) * 3]
    assert values("exp", EXP_LOWEST) == [lowest]
    assert values("exp", EXP_HIGHEST, EXP_HIGHEST + 1e-9, 1e4, 1e300, math.inf) == [math.inf] * 5
    assert math.isfinite(*values("exp", math.nextafter(EXP_HIGHEST, 0.0)))
    assert values("log", 1.0) == [0.0]
    assert values("tanh", 0.0, 1e3, -1e3) == [0.0, 1.0, -1.0]
    assert values("sqrt", 0.0, math.nextafter(SMALLEST_ROOT, 0.0), SMALLEST_ROOT) == [0.0, 0.0, 2.0**-450]


@given(st.lists(st.tuples(st.integers(1, 2**26), st.integers(-420, 420)), min_size=8, max_size=8))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_roots_of_squares_are_exact(backend: Backend, pairs: list[tuple[int, int]]) -> None:
    roots = np.array([n * 2.0**exponent for n, exponent in pairs])
    y = computed(FUNCTIONS["sqrt"], exact(backend), backend, roots * roots)
    assert_array(y, roots, backend, like=backend.asarray(roots), ulps=0)


class Imprecise:
    """NumPy with a square root that is off by a unit in the last place, as PyTorch's may be."""

    def __init__(self, towards: float) -> None:
        self.towards = towards

    def __getattr__(self, name: str) -> Any:
        return getattr(xp, name)

    def sqrt(self, x: Array) -> Array:
        return np.nextafter(np.sqrt(x), self.towards)


@pytest.mark.parametrize("towards", [-np.inf, np.inf])
def test_the_root_does_not_depend_on_the_librarys(numpy_backend: Backend, towards: float) -> None:
    x = arguments("sqrt")
    arithmetic: Any = exact(numpy_backend)
    y = replace(arithmetic, xp=Imprecise(towards)).sqrt(x)
    np.testing.assert_array_equal(y, bits("sqrt"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_no_number_stays_so(backend: Backend, name: str) -> None:
    """A diverging training must end in an error that says so, not in one about an index."""
    x = np.array([1.0, np.nan, 1.0])
    y = computed(FUNCTIONS[name], exact(backend), backend, x)
    np.testing.assert_array_equal(np.isnan(backend.to_host(y)), [False, True, False])


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_number_is_taken_alone(backend: Backend, name: str, shape: tuple[int, ...]) -> None:
    x = np.linspace(1.0, 9.0, math.prod(shape)).reshape(shape)
    y = computed(FUNCTIONS[name], exact(backend), backend, x)
    alone = [float(getattr(oracle, name)(Fraction(value))) for value in x.ravel().tolist()]
    assert_array(y, np.reshape(alone, shape), backend, like=backend.asarray(x), ulps=0)


def test_every_entry_of_the_tables_is_nearest_to_the_truth() -> None:
    tables, cells = make_tables(), range(int(EXP_LOWEST) * EXP_CELLS, int(EXP_HIGHEST) * EXP_CELLS)
    with mpmath.workprec(300):
        step, fine = mpmath.mpf(1) / EXP_CELLS, mpmath.mpf(1) / (EXP_CELLS * EXP_FINE_CELLS)
        expected = {
            "exp_coarse": [*(nearest(mpmath.exp(i * step)) for i in cells), math.inf],
            "exp_fine": [nearest(mpmath.exp(i * fine)) for i in range(EXP_FINE_CELLS + 1)],
            "log_fine": [nearest(mpmath.log(1 + mpmath.mpf(i) / LOG_CELLS)) for i in range(LOG_CELLS)],
        }
        assert nearest(mpmath.log(2)) == LOG_2
    for name, table in tables._asdict().items():
        assert list(table) == expected[name], name
