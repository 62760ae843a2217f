"""Rows through a network where nothing is learnt: as many at once as are best for the device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend, Step
from mlp_xp.batches import DeviceData, gather, gather_features
from mlp_xp.network import Parameters
from mlp_xp.objective import Objective
from mlp_xp.segments import Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray


def infer(
    step: Step, parameters: Parameters, rows: Rows, numbers: NDArray[np.int32], backend: Backend
) -> Iterator[tuple[Array, ...]]:
    """Yield what a step says of some rows, part by part.

    Parameters
    ----------
    step : callable
        `PredictionStep` or `EvaluationStep`.
    parameters : tuple of Layer
        Perhaps with a leading axis, of many networks side by side.
    rows : Rows
    numbers : ndarray of int32, shape (n,)
        Which rows.
    backend : Backend

    Yields
    ------
    tuple of arrays
        The step's results for a part of the rows, in chunks: shape (n_chunks, ..., rows_per_chunk, ...), with the
        leading axis, if any, between. The very last chunk is filled up with rows that were there before.
    """
    n = len(numbers)
    n_networks = math.prod(parameters[0].bias.shape[:-1])
    # Of N networks side by side, each gets the Nth part of the rows that are best at once.
    n_chunks = min(-(-n * n_networks // backend.rows_at_once), n)
    # Chunks of one size compile once.
    order = np.resize(numbers, (n_chunks, -(-n // n_chunks)))
    for part, data in rows.segments(order):
        yield backend.scan(step, parameters, (part,), data)[1]


@dataclass(frozen=True)
class PredictionStep:
    """A step for `Backend.scan`: predictions of some rows of features; the carried parameters stay."""

    objective: Objective
    scale: float
    arithmetic: Arithmetic

    def __call__(
        self, carry: Parameters, x: tuple[Array, ...], constants: DeviceData
    ) -> tuple[Parameters, tuple[Array, ...]]:
        """Take the row numbers in ``x[0]``."""
        features = gather_features(constants.features, x[0], self.scale, self.arithmetic)
        return carry, (self.objective.predict(carry, features, self.arithmetic),)


@dataclass(frozen=True)
class EvaluationStep:
    """A step for `Backend.scan`: losses and predictions of some rows; the carried parameters stay."""

    objective: Objective
    scale: float
    arithmetic: Arithmetic

    def __call__(
        self, carry: Parameters, x: tuple[Array, ...], constants: DeviceData
    ) -> tuple[Parameters, tuple[Array, ...]]:
        """Take the row numbers in ``x[0]``."""
        n_outputs = self.objective.network.layer_sizes[-1]
        features, targets = gather(constants, x[0], self.scale, n_outputs, self.arithmetic)
        return carry, self.objective.losses(carry, features, targets, self.arithmetic)
