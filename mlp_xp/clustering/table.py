"""The rows of a table in blocks of one size, for a loop that takes them block by block."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array, PyTree
from mlp_xp.backend import Backend, MapStep
from mlp_xp.clustering.distances import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_DIFFERENCES = 2**20
"""Numbers that may be held at once where every row is compared with every centre feature by feature."""


@dataclass(frozen=True)
class Table:
    """Rows on a device.

    Attributes
    ----------
    features : array of shape (n_blocks, n, d)
        Less ``offset``. The last block is filled up with its last row.
    norms : array of shape (n_blocks, n)
        The metric's.
    weights : array of shape (n_blocks, n)
        Of the rows; 0 of those that fill up.
    offset : array of shape (d,)
        The rows' mean, or 0: differences of small numbers are more precise.
    n_rows : int
    metric : Metric
    backend : Backend
    arithmetic : Arithmetic
    """

    features: Array
    norms: Array
    weights: Array
    offset: Array
    n_rows: int
    metric: Metric
    backend: Backend
    arithmetic: Arithmetic

    def map_reduce(self, step: MapStep, zero: PyTree, *columns: Array, constants: PyTree = ()) -> tuple[PyTree, Any]:
        """Return the sums of what a step makes of blocks, and what it says of all rows: arrays of shape (n_rows, ...).

        Parameters are as of `mlp_xp.backend.Backend.map_reduce`, whose xs are the features and some columns.
        """
        xp = self.backend.xp
        sums, ys = self.backend.map_reduce(step, zero, (self.features, *columns), constants)
        return sums, tuple(xp.reshape(y, (-1, *y.shape[2:]))[: self.n_rows, ...] for y in ys)

    def in_blocks(self, values: Array) -> Array:
        """Return numbers of the rows, shape (n_rows,), in the shape of ``weights``; of those that fill up, 0."""
        xp = self.backend.xp
        n_padding = math.prod(self.weights.shape) - self.n_rows
        padding = xp.zeros(n_padding, dtype=values.dtype, device=self.backend.device)
        return xp.reshape(xp.concat([values, padding]), self.weights.shape)

    @property
    def host_weights(self) -> NDArray[np.float64]:
        """Return the rows' weights, shape (n_rows,), on the host."""
        return self.on_host(self.weights)

    def on_host(self, values: Array) -> NDArray[np.float64]:
        """Return numbers of the rows, in the shape of ``weights``, on the host, shape (n_rows,)."""
        flat: NDArray[Any] = self.backend.to_host(values).reshape(-1)[: self.n_rows]
        return flat.astype(np.float64)

    def asarray(self, host: NDArray[Any]) -> Array:
        """Return numbers of the host where the rows are, in their type."""
        return self.backend.asarray(host, str(self.norms.dtype).rpartition(".")[2])

    def round_centers(self, centers: Array) -> Array:
        """Return centres of shape (k, d) in the bits that a matrix product with the rows leaves them."""
        xp = self.backend.xp
        return xp.matrix_transpose(self.arithmetic.round_weight(xp.matrix_transpose(centers)))

    def rows(self, numbers: NDArray[np.integer[Any]]) -> Array:
        """Return some rows, shape (len(numbers), d)."""
        xp = self.backend.xp
        flat = xp.reshape(self.features, (-1, self.features.shape[-1]))
        return xp.take(flat, self.backend.asarray(numbers.astype(np.int32)), axis=0)


@dataclass(frozen=True)
class BlockStep:
    """A step for `mlp_xp.backend.Backend.scan` that makes the table's blocks."""

    metric: Metric
    arithmetic: Arithmetic

    def __call__(
        self, carry: PyTree, x: tuple[Array, ...], constants: tuple[Array, Array]
    ) -> tuple[PyTree, tuple[Array, ...]]:
        """Take a block's numbers; constants are all rows and the offset; y is features and norms."""
        rows, offset = constants
        features = self.arithmetic.xp.take(rows, x[0], axis=0) - offset
        return carry, (features, self.metric.norms(features, self.arithmetic))


def make_table(
    X: Array,
    weights: NDArray[np.float64],
    offset: Array,
    metric: Metric,
    n_clusters: int,
    most_rows: int,
    backend: Backend,
    arithmetic: Arithmetic,
) -> Table:
    """Return rows as a table.

    Parameters
    ----------
    X : array of shape (n_X, d)
        On the device, in the arithmetic's type.
    weights : ndarray of shape (n,)
        On the host, of the first n rows; others are there to be rounded together with them.
    offset : array of shape (d,)
        In exact arithmetic, zeros.
    metric : Metric
    n_clusters : int
        Decides, with the metric, how many rows a block may have.
    most_rows : int
        Of a block.
    backend : Backend
    arithmetic : Arithmetic
    """
    xp = backend.xp
    n = len(weights)
    if not metric.has_means:
        most_rows = max(1, min(most_rows, MOST_DIFFERENCES // (n_clusters * X.shape[1])))
    n_blocks = -(-n // most_rows)
    size = -(-n // n_blocks)
    numbers = np.minimum(np.arange(n_blocks * size), n - 1).reshape(n_blocks, size)
    X = arithmetic.round_activation(X)
    step = BlockStep(metric, arithmetic)
    _, (features, norms) = backend.scan(step, (), (backend.asarray(numbers.astype(np.int32)),), (X, offset))
    padded = np.zeros((n_blocks, size, 1))
    padded.reshape(-1)[:n] = weights
    columns = arithmetic.round_gradient(xp.astype(backend.asarray(padded), X.dtype))
    return Table(features, norms, xp.reshape(columns, (n_blocks, size)), offset, n, metric, backend, arithmetic)
