"""Lloyd's two steps on a block of rows: each row to its nearest centre, each centre to the middle of its rows.

Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28, 1982. Steps are for
`mlp_xp.backend.Backend.scan`: blocks come one after another, so that no table of rows × clusters is ever whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array, PyTree
from mlp_xp.clustering.distances import Metric

SegmentSum: TypeAlias = Callable[[Array, Array, Array, int], tuple[Array, Array]]


class Sums(NamedTuple):
    """What the rows so far come to.

    Attributes
    ----------
    features : array of shape (k, d)
        Weighted sums over each cluster's rows.
    weights : array of shape (k,)
    objective : array of shape ()
        The weighted sum of all rows' distances to their centres.
    """

    features: Array
    weights: Array
    objective: Array


def find_nearest(
    features: Array, norms: Array, centers: Array, metric: Metric, arithmetic: Arithmetic
) -> tuple[Array, Array]:
    """Return every row's cluster, int32 of shape (n,), and its distance, shape (n,), from that one's centre."""
    xp = arithmetic.xp
    differences = metric.differences(features, centers, arithmetic)
    labels = xp.astype(xp.argmin(differences, axis=0), xp.int32)
    distances = xp.min(differences, axis=0) + norms
    return labels, xp.maximum(distances, xp.zeros_like(distances))  # of a difference, rounding may leave less


def find_distances(
    features: Array, norms: Array, centers: Array, metric: Metric, arithmetic: Arithmetic
) -> tuple[Array]:
    """Return every row's distances from all centres, shape (n, k)."""
    xp = arithmetic.xp
    distances = metric.differences(features, centers, arithmetic) + norms
    return (xp.matrix_transpose(xp.maximum(distances, xp.zeros_like(distances))),)


def find_lengths(
    features: Array, labels: Array, centers: Array, metric: Metric, arithmetic: Arithmetic
) -> tuple[Array]:
    """Return every row's distance from the centre of a given cluster, shape (n,), without cancellation."""
    return (metric.lengths(features - arithmetic.xp.take(centers, labels, axis=0), arithmetic),)


@dataclass(frozen=True)
class AssignStep:
    """Both steps at once: assign a block's rows to centres, and add up what the next centres are made of.

    Attributes
    ----------
    metric : Metric
    arithmetic : Arithmetic
    segment_sum : callable
        `mlp_xp.backend.Backend.segment_sum`.
    """

    metric: Metric
    arithmetic: Arithmetic
    segment_sum: SegmentSum

    def __call__(self, carry: Sums, x: tuple[Array, ...], constants: Array) -> tuple[Sums, tuple[Array, ...]]:
        """Take features (n, d), norms (n,) and weights (n,) of a block; ``constants`` are the centres; y the labels."""
        features, norms, weights = x
        labels, distances = find_nearest(features, norms, constants, self.metric, self.arithmetic)
        objective = self.arithmetic.sum(self.arithmetic.multiply(distances, weights), axis=-1)
        new = *self.segment_sum(features, labels, weights, constants.shape[0]), objective
        return Sums(*(old + part for old, part in zip(carry, new, strict=True))), (labels,)


@dataclass(frozen=True)
class AddUpStep:
    """The second step alone, of rows whose clusters are given."""

    segment_sum: SegmentSum

    def __call__(self, carry: Sums, x: tuple[Array, ...], _: PyTree) -> tuple[Sums, tuple[Array, ...]]:
        """Take features, weights and labels of a block."""
        features, weights, labels = x
        totals, counts = self.segment_sum(features, labels, weights, carry.weights.shape[0])
        return Sums(carry.features + totals, carry.weights + counts, carry.objective), ()


@dataclass(frozen=True)
class RowsStep:
    """What is asked of a block's rows while the centres stay.

    Attributes
    ----------
    function : callable
        `find_nearest`, `find_distances` or `find_lengths`.
    metric : Metric
    arithmetic : Arithmetic
    """

    function: Callable[..., tuple[Array, ...]]
    metric: Metric
    arithmetic: Arithmetic

    def __call__(self, carry: Array, x: tuple[Array, ...], _: PyTree) -> tuple[Array, tuple[Array, ...]]:
        """Take what the function takes of a block; the centres are carried, and y is what it returns."""
        return carry, self.function(*x, carry, self.metric, self.arithmetic)
