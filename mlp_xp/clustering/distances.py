"""How far rows are from centres, in the two metrics of k-means.

A distance has a part that is the row's alone; only the other one decides which centre is the nearest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array


class Metric(Protocol):
    """A frozen, hashable value.

    Attributes
    ----------
    has_means : bool
        Whether the centre that is nearest to a cluster's rows is their mean; else it is their median, feature by
        feature.
    """

    has_means: ClassVar[bool]

    def norms(self, features: Array, arithmetic: Arithmetic) -> Array:
        """Return the row's part, shape (..., n), of rows of shape (..., n, d)."""

    def differences(self, features: Array, centers: Array, arithmetic: Arithmetic) -> Array:
        """Return the other part, shape (k, n), of rows of shape (n, d) and centres of shape (k, d)."""

    def lengths(self, residuals: Array, arithmetic: Arithmetic) -> Array:
        """Return distances, shape (...), given row - centre, shape (..., d)."""


@dataclass(frozen=True)
class SquaredEuclidean:
    """|x - c|² = |x|² + (|c|² - 2 x·c): the distances of n rows to k centres are a matrix product."""

    has_means: ClassVar[bool] = True

    def norms(self, features: Array, arithmetic: Arithmetic) -> Array:
        """Return |x|²."""
        return self.lengths(features, arithmetic)

    def differences(self, features: Array, centers: Array, arithmetic: Arithmetic) -> Array:
        """Return |c|² - 2 x·c."""
        xp = arithmetic.xp
        differences = arithmetic.matmul(centers * -2.0, xp.matrix_transpose(features))
        differences += xp.expand_dims(self.lengths(centers, arithmetic), axis=-1)  # in place where that can be done
        return differences

    def lengths(self, residuals: Array, arithmetic: Arithmetic) -> Array:
        """Return the sums of squares."""
        return arithmetic.sum(arithmetic.multiply(residuals, residuals), axis=-1)


@dataclass(frozen=True)
class Manhattan:
    """The sum of |x_j - c_j| over the features."""

    has_means: ClassVar[bool] = False

    def norms(self, features: Array, arithmetic: Arithmetic) -> Array:
        """Return zeros."""
        return arithmetic.xp.zeros(features.shape[:-1], dtype=features.dtype, device=arithmetic.device)

    def differences(self, features: Array, centers: Array, arithmetic: Arithmetic) -> Array:
        """Return the distances themselves."""
        return self.lengths(features - arithmetic.xp.expand_dims(centers, axis=-2), arithmetic)

    def lengths(self, residuals: Array, arithmetic: Arithmetic) -> Array:
        """Return the sums of magnitudes."""
        return arithmetic.sum(arithmetic.xp.abs(residuals), axis=-1)


METRICS: Mapping[str, Metric] = {"l2": SquaredEuclidean(), "l1": Manhattan()}
