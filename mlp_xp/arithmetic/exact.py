"""Exact arithmetic: the same bits from every library, processor, number of threads and order of summation.

All numbers are float64. Two rules make the bits a consequence of IEEE 754 alone:

1. *Sums never round.* The operands of a matrix product, and the terms of a sum, are first rounded to so few bits
   relative to their largest magnitude that every partial sum is an integer below 2**53 times a power of two
   (`mlp_xp.arithmetic.bits`). So it does not matter in which order, in how many parts or with which fused
   instructions a library adds.
2. *Every other operation rounds once, alone.* A sum, product or quotient of two numbers is correctly rounded by
   IEEE 754. What a compiler may still do is to merge a product with the addition that follows, or to re-order a
   product of constants; `isolate`, which every backend provides, keeps an inexact result apart from what uses it.

Magnitudes stay away from subnormal numbers, which some libraries take for 0: rounding is never finer than
2**-200, and what could fade away, from step to step or where a gradient is shortened, is kept a multiple of 2**-653.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from mlp_xp.arithmetic import elementary
from mlp_xp.arithmetic.bits import activation_bits, gradient_bits, term_bits, weight_bits
from mlp_xp.arithmetic.certificate import certify
from mlp_xp.arithmetic.tables import Tables
from mlp_xp.array_types import Array, Namespace

MATRIX = (-2, -1)
ROW = -1
FINEST_SHIFT = 1.5 * 2.0 ** (52 - 200)
STATE_SHIFT = 1.5 * 2.0 ** (52 - 652)


@dataclass(frozen=True)
class Exact:
    """Integers times powers of two, held in float64.

    Parameters
    ----------
    xp : module
        An array API namespace.
    dtype : object
        ``xp.float64``.
    device : object
        Where new arrays are made, as ``xp`` names it.
    isolate : callable
        `mlp_xp.backend.Backend.isolate`.
    tables : Tables
        Of the elementary functions, as arrays on the device.
    activations : tuple of int or int
        The axes over which activations share a power of two: a whole batch in training, where the weights'
        gradient sums over its rows; one row in inference, so that no row's result depends on its neighbours.
    """

    xp: Namespace
    dtype: Any
    device: Any
    isolate: Callable[[Array], Array]
    tables: Tables = field(compare=False, repr=False)
    activations: tuple[int, ...] | int = MATRIX

    def certify(self, layer_sizes: tuple[int, ...], batch_size: int, scale: float) -> None:
        certify(layer_sizes, batch_size, scale)

    def for_inference(self) -> Exact:
        return replace(self, activations=ROW)

    def matmul(self, left: Array, right: Array) -> Array:
        # The sums are exact, but a bias added within the product would not be: it is kept out.
        return self.isolate(self.xp.matmul(left, right))

    def sum(self, x: Array, axis: int | tuple[int, ...], *, keepdims: bool = False) -> Array:
        count = math.prod(x.shape[i] for i in ((axis,) if isinstance(axis, int) else axis))
        return self.xp.sum(self._round(x, axis, term_bits(count)), axis=axis, keepdims=keepdims)

    def sum_rounded(self, x: Array, axis: int) -> Array:
        return self.xp.sum(x, axis=axis)

    def multiply(self, left: Any, right: Any) -> Array:
        return self.isolate(left * right)

    def divide(self, numerator: Array, denominator: Array) -> Array:
        if numerator.shape == denominator.shape:
            return self.isolate(numerator / denominator)
        # Compilers turn a quotient by a broadcast denominator into this anyway: better always than sometimes.
        return self.multiply(numerator, self.isolate(1.0 / denominator))

    def exp(self, x: Array) -> Array:
        return elementary.exp(x, self)

    def log(self, x: Array) -> Array:
        return elementary.log(x, self)

    def tanh(self, x: Array) -> Array:
        return elementary.tanh(x, self)

    def sqrt(self, x: Array) -> Array:
        return elementary.sqrt(x, self)

    def round_activation(self, x: Array) -> Array:
        return self._round(x, self.activations, activation_bits(x.shape[-1]))

    def round_gradient(self, x: Array) -> Array:
        return self._round(x, MATRIX, gradient_bits(*x.shape[-2:]))

    def round_weight(self, x: Array) -> Array:
        return self._round(x, MATRIX, weight_bits(*x.shape[-2:]))

    def round_state(self, x: Array) -> Array:
        return self._shift(x, STATE_SHIFT)  # changes nothing above 2**-546

    def leading_power(self, x: Array) -> Array:
        """Return the largest power of two ≤ |x|, and 0 for 0.

        Rump, Ogita and Oishi, "Accurate floating-point summation part II", SIAM J. Sci. Comput. 31, 2008: the
        product with 1 - 2**-53 rounds up all but what the leading bit stands for.
        """
        raised = self.isolate(x * (2.0**52 + 1.0))
        return self.xp.abs(raised - self.isolate(raised * (1.0 - 2.0**-53)))

    def _round(self, x: Array, axis: tuple[int, ...] | int, bits: int) -> Array:
        """Round to integers of at most ``bits`` bits, times a power of two that ``axis`` shares."""
        xp = self.xp
        largest = xp.maximum(xp.max(x, axis=axis, keepdims=True), -xp.min(x, axis=axis, keepdims=True))
        return self._shift(x, xp.maximum(self.leading_power(largest) * (1.5 * 2.0 ** (53 - bits)), FINEST_SHIFT))

    def _shift(self, x: Array, shift: Array | float) -> Array:
        """Round to multiples of ``shift``'s last place, where |x| < shift / 3: IEEE 754 does so when they are added."""
        shifted = self.isolate(x + shift)  # x is no bare product: those were isolated by `multiply`
        shifted -= shift  # in place where arrays can be written to
        return shifted
