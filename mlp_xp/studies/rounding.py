"""What rounding may do: the tolerance of every claim that sums are equal."""

from __future__ import annotations

import math

FACTOR = 8.0


def rounding(n: int, epsilon: float) -> float:
    """Return what rounding may do to a sum of n terms, relative to their magnitudes' sum: 8 epsilon √n.

    Higham and Mary, "A new approach to probabilistic rounding error analysis", SIAM Journal on Scientific Computing
    41, 2019.
    """
    return FACTOR * epsilon * math.sqrt(n)
