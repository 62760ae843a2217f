"""The training loop itself: batches one after another through a backend's `scan`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlp_xp.array_types import Array, PyTree
from mlp_xp.backend import Backend
from mlp_xp.batches import DeviceData
from mlp_xp.network import Parameters
from mlp_xp.segments import Rows
from mlp_xp.step import TrainingStep

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Piece(NamedTuple):
    """Some steps one after another; a device that works by itself may still be at work.

    Attributes
    ----------
    first : int
        The first step's number.
    carry : tuple
        Parameters and optimiser's state before it.
    xs : tuple of arrays of shape (n_steps, ...)
    data : DeviceData
        What the steps were given besides.
    losses : array of shape (n_steps, ...)
    """

    first: int
    carry: tuple[Parameters, PyTree]
    xs: tuple[Array, ...]
    data: DeviceData
    losses: Array


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
        return self.collect(self.pieces(order, *further))

    def collect(self, pieces: Iterable[Piece]) -> list[Array]:
        """Return the losses of pieces as `run` does."""
        losses: list[Array] = []
        for piece in pieces:
            if losses:  # a device that works by itself shall hold the rows of two segments, not of all
                self.backend.to_host(losses[-1])
            losses.append(piece.losses)
        return losses

    def pieces(
        self, order: NDArray[np.int32], *further: NDArray[Any], most_steps: int | None = None, first: int = 0
    ) -> Iterator[Piece]:
        """Train as `run` does, and yield piece by piece, as soon as the device knows what to do.

        Parameters
        ----------
        order, *further
            As of `run`.
        most_steps : int, optional
            Of a piece, as `mlp_xp.segments.Rows.segments` has it.
        first : int
            The step to begin with.
        """
        for numbers, data in self.rows.segments(order, most_steps, first):
            last = first + numbers.shape[0]
            xs = (numbers, *(self.backend.asarray(array[first:last]) for array in further))
            carry = self.parameters, self.optimizer_state
            (self.parameters, self.optimizer_state), (losses,) = self.backend.scan(self.step, carry, xs, data)
            yield Piece(first, carry, xs, data, losses)
            first = last

    def losses(self, pieces: list[Array]) -> NDArray[np.float64]:
        """Return what `run` returned as one host array of shape (n_steps, ...), waiting for the device if need be."""
        return np.concatenate([self.backend.to_host(piece) for piece in pieces], dtype=np.float64)

    def set_learning_rate(self, learning_rate: float, dtype: str) -> None:
        """Take steps of another length from now on."""
        rate = self.backend.asarray(np.asarray(learning_rate), dtype)
        self.optimizer_state = self.optimizer_state._replace(learning_rate=rate)
