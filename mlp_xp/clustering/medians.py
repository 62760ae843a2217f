"""The weighted medians of every cluster's rows, feature by feature: the centres that are nearest to them in l1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlp_xp.array_types import Array, Namespace
from mlp_xp.backend import Backend
from mlp_xp.clustering.table import Table


@dataclass(frozen=True)
class MedianStep:
    """A step for `mlp_xp.backend.Backend.scan` over the features.

    Attributes
    ----------
    xp : module
        The arrays' namespace.
    """

    xp: Namespace

    def __call__(
        self, carry: Array, x: tuple[Array, ...], constants: tuple[Array, ...]
    ) -> tuple[Array, tuple[Array, ...]]:
        """Take one feature of all rows, shape (n,), and the order that sorts it; y is the medians, (k,).

        The carried array, (k,), is the sum of the weights of each cluster's rows and of those before it; constants
        are the rows' labels and weights.
        """
        xp = self.xp
        values, order = x
        labels, weights = constants
        # Sorted by value and then, in that order, by cluster: each cluster's rows lie together, and are sorted.
        order = xp.take(order, xp.argsort(xp.take(labels, order), stable=True))
        values, reached = xp.take(values, order), xp.cumulative_sum(xp.take(weights, order))
        starts = xp.concat([xp.zeros_like(carry[:1]), carry[:-1]])
        half = (starts + carry) * 0.5
        last = values.shape[0] - 1
        # Where exactly a half of the weight lies on either side, the middle of the two rows there.
        lower, upper = (
            xp.take(values, xp.minimum(at, xp.full_like(at, last)))
            for at in (xp.searchsorted(reached, half, side=side) for side in ("left", "right"))
        )
        return carry, (lower * 0.5 + upper * 0.5,)


class Medians:
    """What the medians of a table's rows need, whatever their clusters: made once."""

    def __init__(self, table: Table) -> None:
        xp = table.backend.xp
        features = xp.reshape(table.features, (-1, table.features.shape[-1]))
        self.columns = xp.matrix_transpose(features)
        self.orders = xp.astype(xp.argsort(self.columns, axis=1), xp.int32)
        self.weights = xp.reshape(table.weights, (-1,))
        self.backend: Backend = table.backend

    def of_clusters(self, labels: Array, cluster_weights: Array) -> Array:
        """Return medians of shape (k, d), of labels in the shape of the table's weights; of empty clusters anything."""
        backend, xp = self.backend, self.backend.xp
        kind = xp.int16 if cluster_weights.shape[0] < np.iinfo(np.int16).max else xp.int32  # sorted in linear time
        flat = xp.astype(xp.reshape(labels, (-1,)), kind)
        ends = xp.cumulative_sum(cluster_weights)
        _, (medians,) = backend.scan(MedianStep(xp), ends, (self.columns, self.orders), (flat, self.weights))
        return xp.matrix_transpose(medians)
