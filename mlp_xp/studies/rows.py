"""The rows that a study looks at, on the host, and whether they are images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mlp_xp.batches import cast
from mlp_xp.datasets.dataset import Dataset
from mlp_xp.datasets.files import data_error
from mlp_xp.datasets.stored import StoredTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALLEST_IMAGE = 5
"""Pixels of a side; a handful of features that happen to be a square number are no image."""


def take_rows(data: Dataset, dtype: str, most: int | None = None) -> NDArray[np.float64]:
    """Return the first rows of a data set, scaled, float64 of shape (n, n_features), in the bits that ``dtype`` holds.

    Parameters
    ----------
    data : Dataset
    dtype : {"float32", "float64"}
    most : int, optional
        Of the rows; by default all.

    Raises
    ------
    DataError
        If there are fewer than two, all are the same, or a number is not finite or too large.
    """
    numbers = np.arange(data.n_samples if most is None else min(most, data.n_samples))
    features = data.features.take(numbers) if isinstance(data.features, StoredTable) else data.features[numbers]
    rows = cast(cast(features, dtype, data.name, "feature") * data.scale, dtype, data.name, "feature")
    if len(rows) < 2 or np.all(rows == rows[0]):
        raise data_error(data.name, "the rows do not vary", "give at least two that differ")
    return rows.astype(np.float64)


def image_side(n_features: int) -> int | None:
    """Return the side of the square image that rows may be, or None."""
    side = math.isqrt(n_features)
    return side if side * side == n_features and side >= SMALLEST_IMAGE else None
