"""How far rows are from their mean, within their clusters and between these: total = within + between.

Of exact arithmetic, whose features are whole multiples of one power of two, sums are whole numbers and the deviations
fractions: there the identity is one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from mlp_xp.arithmetic.bits import activation_bits
from mlp_xp.array_types import Array, Namespace, PyTree
from mlp_xp.clustering.fitting import distances_of, no_sums, weigh
from mlp_xp.clustering.lloyd import AddUpStep, SegmentSum
from mlp_xp.clustering.table import Table


class Deviations(NamedTuple):
    """Means of squared Euclidean distances, whatever the metric; floats or, of exact arithmetic, fractions.

    Attributes
    ----------
    total : float or Fraction
        Of rows from the mean of all.
    within : float or Fraction
        Of rows from the mean of their cluster.
    between : float or Fraction
        Of the means of the rows' clusters from the mean of all.
    """

    total: Any
    within: Any
    between: Any


def decompose(table: Table, labels: Array, n_clusters: int) -> Deviations:
    """Return the deviations of rows, each rounded by itself.

    Parameters
    ----------
    table : Table
        Of the metric "l2".
    labels : array of int32, shape (n,)
    n_clusters : int
    """
    backend = table.backend
    step = AddUpStep(backend.segment_sum, n_clusters)
    sums, _ = table.map_reduce(step, no_sums(table, n_clusters)[:2], table.weights, table.in_blocks(labels))
    features, weights = (backend.to_host(x).astype(np.float64) for x in sums)
    mean = features.sum(axis=0) / table.n_rows
    means = np.where(weights[:, None] > 0, features / np.maximum(weights, 1.0)[:, None], mean)
    between = math.fsum(weights * ((means - mean) ** 2).sum(axis=1))
    total, within = (
        weigh(distances_of(table, table.asarray(centers), labels), table)
        for centers in (np.broadcast_to(mean, means.shape), means)
    )
    return Deviations(total / table.n_rows, within / table.n_rows, between / table.n_rows)


@dataclass(frozen=True)
class WholeSumsStep:
    """A step for `mlp_xp.backend.Backend.map_reduce`: sums of features that are whole multiples of a power of two.

    Attributes
    ----------
    per_unit : float
        One divided by that power.
    xp : module
        The arrays' namespace.
    segment_sum : callable
        `mlp_xp.backend.Backend.segment_sum`.
    n_clusters : int
    """

    per_unit: float
    xp: Namespace
    segment_sum: SegmentSum
    n_clusters: int

    def __call__(self, x: tuple[Array, ...], _: PyTree) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        """Take features, weights of 0 and 1, and labels of a block; y is the sums of the rows' squares.

        Summands are, as int64, every cluster's sums of features, (k, d), and its number of rows, (k,).
        """
        xp = self.xp
        features, weights, labels = x
        # Of one block they are exact; of all blocks they would not be, for ever.
        sums, members = self.segment_sum(features * self.per_unit, labels, weights, self.n_clusters)
        whole = xp.astype(features * self.per_unit, xp.int64)
        return (xp.astype(sums, xp.int64), xp.astype(members, xp.int64)), (xp.sum(whole * whole, axis=-1),)


def decompose_exactly(table: Table, labels: Array, n_clusters: int) -> Deviations:
    """Return the deviations of rows of exact arithmetic as fractions; parameters as of `decompose`."""
    backend, xp = table.backend, table.backend.xp
    shape = n_clusters, table.features.shape[-1]
    # All features are multiples of it: they were rounded, perhaps together with a larger one, and perhaps upwards.
    unit = 2.0 ** (math.frexp(float(xp.max(xp.abs(table.features))))[1] - activation_bits(shape[1]) - 2)
    zero = tuple(xp.zeros(part, dtype=xp.int64, device=backend.device) for part in (shape, shape[:1]))
    step = WholeSumsStep(1.0 / unit, xp, backend.segment_sum, n_clusters)
    (totals, counts), (squares,) = table.map_reduce(step, zero, table.weights, table.in_blocks(labels))
    high, low = np.divmod(backend.to_host(squares), 2**31)  # whose sums int64 holds
    square = int(high.sum()) * 2**31 + int(low.sum())
    features, sizes = backend.to_host(totals).astype(object), backend.to_host(counts).tolist()
    n = table.n_rows
    of_mean = Fraction(int((features.sum(axis=0) ** 2).sum()), n)
    of_means = sum(Fraction(int((row**2).sum()), size) for row, size in zip(features, sizes, strict=True) if size)
    scale = Fraction(unit) ** 2 / n
    return Deviations((square - of_mean) * scale, (square - of_means) * scale, (of_means - of_mean) * scale)
