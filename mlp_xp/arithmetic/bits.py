"""How many bits the operands of exact arithmetic may have, so that no product or sum ever rounds.

A float64 holds every integer up to 2**53. If the operands of a matrix product over k terms are integers of β_a
and β_b bits (times one power of two each), then every partial sum, in whatever order it is formed, is an integer
of at most β_a + β_b + ⌈log2 k⌉ bits. Below, the 53 bits are shared out between the three operands of a layer
from shapes alone: what goes in (x), the weights (W), and the gradient that comes back (delta).

===============  ======================  =========================================
product          terms                   bits
===============  ======================  =========================================
x W              inputs of the layer     activation + weight + ⌈log2 n_in⌉ ≤ 53
delta Wᵀ         outputs of the layer    gradient + weight + ⌈log2 n_out⌉ ≤ 53
xᵀ delta         rows of the batch       activation + gradient + ⌈log2 n⌉ ≤ 53
===============  ======================  =========================================
"""

from __future__ import annotations

EXACT = 53
"""Bits of a float64's significand: integers up to 2**53 are exact."""
MOST = 24
"""Bits of an operand at most: those of a float32, the yardstick of native training."""
MOST_TERM = 51
"""Bits of a sum's term at most: rounding by a shift (see `mlp_xp.arithmetic.exact`) needs two to spare."""


def ceil_log2(count: int) -> int:
    """Return the bits by which a sum of ``count`` terms may be longer than its longest term."""
    return (count - 1).bit_length()


def activation_bits(n_in: int) -> int:
    """Return the bits of a layer's input, features or activations, of that width: a half of what the sum leaves."""
    return min(MOST, (EXACT - ceil_log2(n_in)) // 2)


def gradient_bits(n_rows: int, n_out: int) -> int:
    """Return the bits of the gradient at a layer's output for a batch of that many rows."""
    return min(EXACT - MOST - ceil_log2(n_rows), _most_gradient_bits(n_out))


def weight_bits(n_in: int, n_out: int) -> int:
    """Return the bits of a layer's weights: what the longer of the two sums over them leaves."""
    forward = EXACT - ceil_log2(n_in) - activation_bits(n_in)
    backward = EXACT - ceil_log2(n_out) - _most_gradient_bits(n_out)
    return min(MOST, forward, backward)


def term_bits(count: int) -> int:
    """Return the bits to which the terms of a sum are rounded."""
    return min(MOST_TERM, EXACT - ceil_log2(count))


def _most_gradient_bits(n_out: int) -> int:
    return min(MOST, (EXACT - ceil_log2(n_out)) // 2)
