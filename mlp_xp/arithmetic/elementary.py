"""Elementary functions from sums, isolated products, comparisons and table look-ups: the same bits everywhere.

No library's own ``exp`` agrees with another's to the last bit, and PyTorch's ``sqrt`` on a CPU is not correctly
rounded. Here every operation is one that IEEE 754 defines, in a fixed order. The results are within 4 units in
the last place of the true values (tanh: 12); a test holds them against mpmath.
"""

from __future__ import annotations

from typing import Any, Protocol

from mlp_xp.arithmetic.tables import EXP_CELLS, EXP_FINE_CELLS, EXP_HIGHEST, EXP_LOWEST, LOG_2, LOG_CELLS, Tables
from mlp_xp.array_types import Array, Namespace

SMALLEST_ROOT = 2.0**-900
"""Radicands below are taken for 0."""


class Operations(Protocol):
    """What the functions need of `mlp_xp.arithmetic.exact.Exact`."""

    @property
    def xp(self) -> Namespace: ...
    @property
    def tables(self) -> Tables: ...
    def multiply(self, left: Any, right: Any) -> Array: ...
    def divide(self, numerator: Array, denominator: Array) -> Array: ...
    def leading_power(self, x: Array) -> Array: ...


def exp(x: Array, arithmetic: Operations) -> Array:
    """Return e**x: two tables and three terms of the series for the rest (Tang, 1989).

    Below EXP_LOWEST it is what it is there; from EXP_HIGHEST on it is infinite, so that a training that diverges stops.
    """
    xp, multiply = arithmetic.xp, arithmetic.multiply
    x = xp.minimum(xp.maximum(x, EXP_LOWEST), EXP_HIGHEST)
    whole = xp.floor(x * float(EXP_CELLS))
    rest = x - whole * (1.0 / EXP_CELLS)
    fine = xp.floor(rest * float(EXP_CELLS * EXP_FINE_CELLS))
    rest = rest - fine * (1.0 / (EXP_CELLS * EXP_FINE_CELLS))
    series = multiply(rest, multiply(rest, multiply(rest, 1.0 / 6.0) + 0.5) + 1.0) + 1.0
    lowest, highest = EXP_LOWEST * EXP_CELLS, EXP_HIGHEST * EXP_CELLS
    coarse = _look_up(arithmetic.tables.exp_coarse, whole - lowest, int(highest - lowest), xp)
    return multiply(multiply(coarse, _look_up(arithmetic.tables.exp_fine, fine, EXP_FINE_CELLS, xp)), series)


def log(x: Array, arithmetic: Operations) -> Array:
    """Return log(x) for x in [1, 2**64): the exponent, a table for the leading bits, a series for the rest."""
    xp, multiply = arithmetic.xp, arithmetic.multiply
    mantissa, exponent = x, xp.zeros_like(x)
    for bit in (32, 16, 8, 4, 2, 1):  # of the exponent
        high = mantissa >= 2.0**bit
        mantissa = xp.where(high, mantissa * 2.0**-bit, mantissa)
        exponent = xp.where(high, exponent + float(bit), exponent)
    cell = xp.floor((mantissa - 1.0) * float(LOG_CELLS))
    start = 1.0 + cell * (1.0 / LOG_CELLS)
    rest = arithmetic.divide(mantissa - start, start)  # in [0, 1/128)
    series = multiply(rest, -1.0 / 8.0) + 1.0 / 7.0
    for i in range(6, 0, -1):  # 1/1 - r (1/2 - r (1/3 - …)), from the inside
        series = 1.0 / i - multiply(rest, series)
    fine = _look_up(arithmetic.tables.log_fine, cell, LOG_CELLS - 1, xp)
    return multiply(exponent, LOG_2) + (fine + multiply(rest, series))


def tanh(z: Array, arithmetic: Operations) -> Array:
    """Return (1 - e) / (1 + e) with e = exp(-2|z|), and, where that would cancel, the series; both times z's sign."""
    xp, multiply = arithmetic.xp, arithmetic.multiply
    size = xp.abs(z)
    decay = exp(-2.0 * size, arithmetic)
    square = multiply(z, z)
    series = multiply(square, -1382.0 / 155925.0) + 62.0 / 2835.0
    for coefficient in (-17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0):
        series = multiply(square, series) + coefficient
    value = xp.where(size < 0.0625, multiply(size, series), arithmetic.divide(1.0 - decay, 1.0 + decay))
    return xp.where(z < 0.0, -value, value)


def sqrt(x: Array, arithmetic: Operations) -> Array:
    """Return √x for x ≥ 0: the integer root of its leading bits, mended to be exact, and one Newton step from there."""
    xp = arithmetic.xp
    radicand = xp.maximum(x, SMALLEST_ROOT)
    # Whichever way the library rounds it, 1.1 √(2**e) is not near a power of two: the result is 2**⌊e/2⌋.
    unit = arithmetic.leading_power(arithmetic.multiply(xp.sqrt(arithmetic.leading_power(radicand)), 1.1))
    scaled = (radicand / unit) / unit * 2.0**50  # in [2**50, 2**52), exact
    root = xp.floor(xp.sqrt(scaled))
    root = xp.where(root * root > scaled, root - 1.0, root)
    root = xp.where((root + 1.0) * (root + 1.0) <= scaled, root + 1.0, root)
    mended = root + arithmetic.divide(scaled - root * root, 2.0 * root)
    return xp.where(x < SMALLEST_ROOT, xp.zeros_like(x), mended * unit * 2.0**-25)


def _look_up(table: Any, index: Array, last: int, xp: Namespace) -> Array:
    """Return table[index]; an index that is not a number must not leave the table, its result is not one anyway."""
    whole = xp.minimum(xp.maximum(xp.astype(xp.reshape(index, (-1,)), xp.int32), 0), last)
    return xp.reshape(xp.take(table, whole, axis=0), index.shape)
