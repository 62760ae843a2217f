"""What rounding may do: the tolerance of every claim that sums are equal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FACTOR = 8.0


def rounding(n: int, epsilon: float) -> float:
    """Return what rounding may do to a sum of n terms, relative to their magnitudes' sum: 8 epsilon √n.

    Higham and Mary, "A new approach to probabilistic rounding error analysis", SIAM Journal on Scientific Computing
    41, 2019.
    """
    return FACTOR * epsilon * math.sqrt(n)


def distance_from_zero(rows: NDArray[np.float64]) -> float:
    """Return by how much more rounding does to rows' deviations than to the rows: the ratio of their norms, at least 1.

    Rows are rounded relative to their own size, and deviations keep that error however small they are.
    """
    deviations = float(np.linalg.norm(rows - rows.mean(axis=0)))
    return max(1.0, float(np.linalg.norm(rows)) / deviations) if deviations > 0.0 else 1.0
