"""Lloyd's two steps on a block of rows: each row to its nearest centre, each centre to the middle of its rows.

Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28, 1982. Steps are for
`mlp_xp.backend.Backend.map_reduce`: blocks come a few at a time, so that no table of rows × clusters is ever whole.
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
    least = xp.min(differences, axis=0)
    # The first that is the least, as argmin finds it, which compilers make a slow loop of.
    numbers = xp.arange(centers.shape[0], dtype=xp.int32, device=arithmetic.device)
    labels = xp.min(xp.where(differences == least, xp.expand_dims(numbers, axis=-1), numbers[-1]), axis=0)
    distances = least + norms
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


def find_nearest_lengths(
    features: Array, norms: Array, centers: Array, metric: Metric, arithmetic: Arithmetic
) -> tuple[Array, Array]:
    """Return what `find_nearest` does, with the distances that `find_lengths` gives."""
    labels, _ = find_nearest(features, norms, centers, metric, arithmetic)
    return labels, *find_lengths(features, labels, centers, metric, arithmetic)


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

    def __call__(self, x: tuple[Array, ...], constants: Array) -> tuple[Sums, tuple[Array, ...]]:
        """Take features (n, d), norms (n,) and weights (n,) of a block; ``constants`` are the centres; y the labels."""
        features, norms, weights = x
        labels, distances = find_nearest(features, norms, constants, self.metric, self.arithmetic)
        objective = self.arithmetic.sum(self.arithmetic.multiply(distances, weights), axis=-1)
        return Sums(*self.segment_sum(features, labels, weights, constants.shape[0]), objective), (labels,)


@dataclass(frozen=True)
class AddUpStep:
    """The second step alone, of rows whose clusters are given."""

    segment_sum: SegmentSum
    n_clusters: int

    def __call__(self, x: tuple[Array, ...], _: PyTree) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        """Take features, weights and labels of a block."""
        features, weights, labels = x
        return self.segment_sum(features, labels, weights, self.n_clusters), ()


@dataclass(frozen=True)
class RowsStep:
    """What is asked of a block's rows while the centres stay.

    Attributes
    ----------
    function : callable
        `find_nearest`, `find_distances`, `find_lengths` or `find_nearest_lengths`.
    metric : Metric
    arithmetic : Arithmetic
    """

    function: Callable[..., tuple[Array, ...]]
    metric: Metric
    arithmetic: Arithmetic

    def __call__(self, x: tuple[Array, ...], constants: Array) -> tuple[tuple[()], tuple[Array, ...]]:
        """Take what the function takes of a block; constants are the centres, and y is what it returns."""
        return (), self.function(*x, constants, self.metric, self.arithmetic)
