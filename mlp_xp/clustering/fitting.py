"""Lloyd's iterations: both steps in turn, until no row changes its cluster or the centres hardly move."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlp_xp.array_types import Array
from mlp_xp.clustering.lloyd import (
    AddUpStep,
    AssignStep,
    RowsStep,
    Sums,
    find_lengths,
    find_nearest,
    find_nearest_lengths,
)
from mlp_xp.clustering.medians import Medians
from mlp_xp.clustering.table import Table

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Clustering:
    """What the iterations end at.

    Attributes
    ----------
    centers : array of shape (k, d)
        Less the table's offset.
    labels : array of int32, shape (n,)
    objective : float
        The weighted sum of the rows' distances to their centres.
    objective_curve : list of float
        It after every assignment, so that of the beginning first.
    n_iter : int
    """

    centers: Array
    labels: Array
    objective: float
    objective_curve: list[float]
    n_iter: int


def iterate(table: Table, centers: Array, max_iter: int, tol: float, say: Callable[[str], None]) -> Clustering:
    """Return what Lloyd's algorithm makes of centres.

    Parameters
    ----------
    table : Table
    centers : array of shape (k, d)
        Where to begin, less the table's offset.
    max_iter : int
    tol : float
        The sum of the squares of the centres' moves at which it stops.
    say : callable
        Told of every iteration.
    """
    backend, arithmetic = table.backend, table.arithmetic
    xp = backend.xp
    step = AssignStep(table.metric, arithmetic, backend.segment_sum)
    update = _Update(table, centers.shape[0])
    curve: list[float] = []
    before, stays = None, False
    for i in range(max_iter):
        sums, (labels,) = table.map_reduce(step, update.zero, table.norms, table.weights, constants=centers)
        curve.append(float(sums.objective))
        say(f"Iteration {i}, objective {curve[-1]:g}.")
        moved = update(centers, labels, sums)
        stays = before is not None and bool(xp.all(labels == before))
        moves, centers, before = moved - centers, moved, labels
        if stays or float(xp.sum(moves * moves)) <= tol:
            break
    if stays:
        distances = distances_of(table, centers, labels)
    else:  # labels are those of the last centres
        labels, distances = find_labels_and_distances(table, centers)
    return Clustering(centers, labels, weigh(distances, table), curve, i + 1)


def find_labels(table: Table, centers: Array) -> Array:
    """Return the number of the nearest centre of every row, int32 of shape (n,)."""
    step = RowsStep(find_nearest, table.metric, table.arithmetic)
    _, (labels, _) = table.map_reduce(step, (), table.norms, constants=centers)
    return labels


def find_labels_and_distances(table: Table, centers: Array) -> tuple[Array, NDArray[np.float64]]:
    """Return what `find_labels` does and, on the host, what `distances_of` does of these labels, in one pass."""
    step = RowsStep(find_nearest_lengths, table.metric, table.arithmetic)
    _, (labels, distances) = table.map_reduce(step, (), table.norms, constants=centers)
    return labels, table.backend.to_host(distances).astype(np.float64)


def distances_of(table: Table, centers: Array, labels: Array) -> NDArray[np.float64]:
    """Return the distances of all rows to the centres of their clusters, shape (n,), on the host."""
    step = RowsStep(find_lengths, table.metric, table.arithmetic)
    _, (distances,) = table.map_reduce(step, (), table.in_blocks(labels), constants=centers)
    return table.backend.to_host(distances).astype(np.float64)


def weigh(distances: NDArray[np.float64], table: Table) -> float:
    """Return the weighted sum of all rows' distances, rounded once."""
    return math.fsum(table.host_weights * distances)


def no_sums(table: Table, n_clusters: int) -> Sums:
    """Return the sums of no rows."""
    xp, like = table.backend.xp, {"dtype": table.norms.dtype, "device": table.backend.device}
    shape = n_clusters, table.features.shape[-1]
    return Sums(xp.zeros(shape, **like), xp.zeros(n_clusters, **like), xp.zeros((), **like))


class _Update:
    """The second step: every centre to the middle of its rows; one that has none to the row that is worst off."""

    def __init__(self, table: Table, n_clusters: int) -> None:
        self.zero = no_sums(table, n_clusters)
        self._table = table
        self._medians = None if table.metric.has_means else Medians(table)

    def __call__(self, centers: Array, labels: Array, sums: Sums) -> Array:
        """Return the new centres, given the old ones and what they were assigned."""
        xp, arithmetic = self._table.backend.xp, self._table.arithmetic
        is_empty = self._table.backend.to_host(sums.weights) == 0
        if is_empty.any():
            labels = self._fill(np.flatnonzero(is_empty), centers, labels)
            columns = self._table.weights, self._table.in_blocks(labels)
            step = AddUpStep(self._table.backend.segment_sum, len(is_empty))
            (features, totals), _ = self._table.map_reduce(step, self.zero[:2], *columns)
            sums = Sums(features, totals, sums.objective)
        weights = xp.expand_dims(sums.weights, axis=-1)
        is_there = weights > 0.0
        if self._medians is not None:
            middle = self._medians.of_clusters(self._table.in_blocks(labels), sums.weights)
        else:
            middle = arithmetic.divide(sums.features, xp.where(is_there, weights, xp.ones_like(weights)))
        return self._table.round_centers(xp.where(is_there, middle, centers))

    def _fill(self, empty: NDArray[np.intp], centers: Array, labels: Array) -> Array:
        """Return labels with a row in every empty cluster: those that are farthest from their centres."""
        backend = self._table.backend
        distances = distances_of(self._table, centers, labels)
        filled = np.array(backend.to_host(labels))
        filled[np.argsort(-distances, stable=True)[: len(empty)]] = empty
        return backend.asarray(filled)
