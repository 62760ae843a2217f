"""The training loop itself: batches one after another through a backend's `scan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_xp.array_types import Array, PyTree
from mlp_xp.backend import Backend
from mlp_xp.network import Parameters
from mlp_xp.segments import Rows
from mlp_xp.step import TrainingStep

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass
class Loop:
    """A network, or many side by side, in training.

    Attributes
    ----------
    step : TrainingStep
    rows : Rows
        Those that batches are taken of.
    backend : Backend
    parameters : tuple of Layer
        On the device, as the last step left them.
    optimizer_state : pytree
        Likewise.
    """

    step: TrainingStep
    rows: Rows
    backend: Backend
    parameters: Parameters
    optimizer_state: PyTree

    def run(self, order: NDArray[np.int32], *further: NDArray[Any]) -> list[Array]:
        """Train on batches one after another.

        Parameters
        ----------
        order : ndarray of int32, shape (n_steps, ..., n)
            Row numbers of every batch.
        *further : ndarrays of shape (n_steps, ...)
            What else a step takes, as `TrainingStep` says; floats in the training's dtype.

        Returns
        -------
        list of arrays of shape (n, ...)
            The batches' losses, in pieces that `losses` joins. A device that works by itself may still be at work.
        """
        carry: PyTree = self.parameters, self.optimizer_state
        pieces: list[Array] = []
        first = 0
        for numbers, data in self.rows.segments(order):
            if len(pieces) > 1:  # a device that works by itself shall hold the rows of two segments, not of all
                self.backend.to_host(pieces[-2])
            last = first + numbers.shape[0]
            xs = (numbers, *(self.backend.asarray(array[first:last]) for array in further))
            carry, (losses,) = self.backend.scan(self.step, carry, xs, data)
            pieces.append(losses)
            first = last
        self.parameters, self.optimizer_state = carry
        return pieces

    def losses(self, pieces: list[Array]) -> NDArray[np.float64]:
        """Return what `run` returned as one host array of shape (n_steps, ...), waiting for the device if need be."""
        return np.concatenate([self.backend.to_host(piece) for piece in pieces], dtype=np.float64)
