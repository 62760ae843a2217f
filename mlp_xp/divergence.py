"""Trainings that go wrong: noticed by their losses, and looked into by taking the last steps once more."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mlp_xp.arithmetic import make_arithmetic
from mlp_xp.array_types import Array, PyTree
from mlp_xp.backend import Backend
from mlp_xp.batches import DeviceData
from mlp_xp.datasets.dataset import Dataset
from mlp_xp.loop import Loop, Piece
from mlp_xp.losses import LOSSES, encode_targets
from mlp_xp.network import Parameters, forward
from mlp_xp.objective import Objective, operands
from mlp_xp.settings import is_real
from mlp_xp.step import TrainingStep

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_GROWTH = 1000.0
"""Of the loss over what it is before anything is learnt: beyond, it explodes."""
STREAK = 10
"""Steps one after another whose mean loss must be so large: one alone may have met a strange batch."""
LARGEST = 2.0**900
"""Of any parameter; beyond, a library may saturate where another one has infinity."""
STEEP = 10.0
"""What makes a growth within a few steps, or a gradient beside those before it, remarkable."""
LARGE = 100.0
"""Of a feature, as the network gets it."""
ROWS = 1 << 16
"""Whose loss is computed at once before anything is learnt."""


class Rollback(NamedTuple):
    """A training went wrong, and went on from the beginning of the epoch with a smaller learning rate.

    Attributes
    ----------
    epoch : int
    learning_rate : float
        From there on.
    reason : str
        What had gone wrong.
    """

    epoch: int
    learning_rate: float
    reason: str

    def __str__(self) -> str:
        what, _, _ = self.reason.partition("; try")  # what follows is advice
        return f"{what}; began epoch {self.epoch} again with the learning rate {self.learning_rate:g}"


def is_growth(value: Any) -> bool:
    """Tell whether a number of Python's own can be the largest growth of a loss: > 1, perhaps infinity."""
    return (is_real(value) and value > 1) or (type(value) is float and value == math.inf)


def untrained_loss(objective: Objective, data: Dataset, backend: Backend, dtype: str) -> float:
    """Return the mean loss of all rows where a network's outputs are 0.

    That of the first batch may be anything: of a batch without the few rows that are hard to predict, next to nothing.
    """
    targets, weights = data.targets, np.ones(data.n_samples)
    if data.n_classes is not None:
        targets, counts = np.unique(targets, return_counts=True)
        weights = counts.astype(np.float64)
    arithmetic, n_outputs = make_arithmetic("native", backend, dtype), objective.network.layer_sizes[-1]
    dtype = dtype if data.n_classes is None else "int32"
    total = 0.0
    for first in range(0, len(targets), ROWS):
        encoded = encode_targets(backend.asarray(targets[first : first + ROWS], dtype), n_outputs, arithmetic)
        _, losses = LOSSES[objective.loss](arithmetic.xp.zeros_like(encoded), arithmetic)
        with np.errstate(over="ignore"):  # numbers to predict that are too large are told of when they are trained on
            of_rows = np.asarray(backend.to_host(losses(encoded)), np.float64)
            total += float(of_rows @ weights[first : first + ROWS])
    return total / float(np.sum(weights))


def find_divergence(
    losses: NDArray[np.float64],
    first_losses: Sequence[float | None],
    untrained_loss: Callable[[], float],
    largest_growth: float,
    n_steps: int,
) -> tuple[int, int, str] | None:
    """Return the network, the step and what is wrong with its loss; None if nothing is.

    Parameters
    ----------
    losses : ndarray of shape (n_networks, n_steps)
        Of an epoch's steps so far.
    first_losses : sequence of float or None
        Of each network's very first step; None where nothing is to be too large beside it.
    untrained_loss : callable
        Returns the loss of a network that has learnt nothing, over all rows; asked only if it may decide.
    largest_growth : float
        As `LARGEST_GROWTH`; infinity for any.
    n_steps : int
        Of the whole epoch.
    """
    streak = min(STREAK, n_steps)
    for i, step in np.argwhere(~np.isfinite(losses))[:1].tolist():
        return i, step, f"the loss is {losses[i, step]}"
    if losses.shape[1] < streak:
        return None
    for i, first_loss in enumerate(first_losses):
        if first_loss is None:
            continue
        windows = sliding_window_view(losses[i], streak)
        means = windows.mean(axis=1)
        if not np.any(means > largest_growth * first_loss):
            continue
        limit = largest_growth * (max(first_loss, untrained_loss()) or np.inf)
        for start in np.flatnonzero(means > limit)[:1].tolist():
            step = start + int(np.argmax(windows[start] > limit))
            growth = losses[i, step] / limit * largest_growth
            what = f"{losses[i, step]:.3g} is {growth:.3g} times that of an untrained network"
            return i, step, f"the loss explodes: {what}"
    return None


class WatchedStep(TrainingStep):
    """A training step that also tells the largest magnitudes: of the features, of layers' outputs, of gradients."""

    def __call__(
        self, carry: tuple[Parameters, PyTree], x: tuple[Array, ...], constants: DeviceData
    ) -> tuple[tuple[Parameters, PyTree], tuple[Array, ...]]:
        """Train on the rows of a batch, as `TrainingStep` does."""
        batch, xp = self.batch(x, constants), self.arithmetic.xp
        layers = operands(carry[0], self.arithmetic)
        trace = forward(
            self.objective.network, layers, batch.features, self.arithmetic, batch.masks, batch.shares, is_training=True
        )
        carry, _, gradient = self.descend(carry, batch)
        watched = batch.features, *trace.outputs, *(layer.weight for layer in gradient)
        return carry, tuple(xp.max(xp.abs(array), axis=(-2, -1)) for array in watched)


def diagnose(
    loop: Loop, piece: Piece, losses: NDArray[np.float64], step: int, network: int | None, *, is_first_epoch: bool
) -> str:
    """Return which layer went wrong when, and the likely cause, as an error's text says it.

    Parameters
    ----------
    loop : Loop
    piece : Piece
        Steps among which is the one that went wrong; they are taken again.
    losses : ndarray of shape (n_steps,)
        Of the epoch's steps so far.
    step : int
        The one that was noticed, or that comes after the last.
    network : int or None
        Which of many side by side; None for one alone.
    is_first_epoch : bool
    """
    watched = WatchedStep(**vars(loop.step))
    _, peaks = loop.backend.scan(watched, piece.carry, piece.xs, piece.data)
    table = np.stack([np.asarray(loop.backend.to_host(peak), np.float64) for peak in peaks], axis=-1)
    table = table if network is None else table[:, network]
    n_layers = len(loop.parameters)
    features, outputs, gradients = table[:, 0], table[:, 1 : n_layers + 1], table[:, n_layers + 1 :]
    bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
    at = min([max(0, step - piece.first), len(table) - 1, *bad[:1].tolist()])
    if not np.isfinite(outputs[at]).all():
        layer = int(np.flatnonzero(~np.isfinite(outputs[at]))[0])
        what = f"the outputs of layer {layer} are the first that are not finite"
    elif not np.isfinite(gradients[at]).all():
        layer = int(np.flatnonzero(~np.isfinite(gradients[at]))[-1])
        what = f"the gradient of layer {layer} is the first that is not finite"
    elif piece.first + at < len(losses) and not np.isfinite(losses[piece.first + at]):
        what = f"the outputs of layer {n_layers - 1}, up to {outputs[at, -1]:.3g}, are finite, their loss is not"
    else:
        layer = int(np.argmax(gradients[at]))
        what = f"layer {layer} has the largest gradient ({gradients[at, layer]:.3g})"
    when = "" if piece.first + at == step else f" (in step {piece.first + at})"
    if is_first_epoch and piece.first + at == 0 and (bad.size or step == 0):
        return f"{what}{when}; no step was taken before: features, numbers to predict or initial weights are too large"
    return f"{what}{when}; {_cause(features, gradients, losses, piece.first, at)}"


def _cause(
    features: NDArray[np.float64],
    gradients: NDArray[np.float64],
    losses: NDArray[np.float64],
    first: int,
    at: int,
) -> str:
    """Return the likely cause of what went wrong in the step ``at`` of those from ``first`` on."""
    largest = float(np.max(features[: at + 1]))
    if largest > LARGE:
        return f"the features reach {largest:.3g}, which is likely the cause"
    before = losses[max(0, first + at - STREAK) : first + at + 1]
    before = before[np.isfinite(before)]
    if before.size > 1 and before[-1] > STEEP * np.min(before):
        return f"the loss grew from {np.min(before):.3g} to {before[-1]:.3g}: the learning rate is likely too large"
    norms = np.max(gradients[: at + 1], axis=1)
    usual = np.median(norms[:-1]) if at else np.inf
    if np.isfinite(norms[-1]) and norms[-1] > STEEP * usual:
        return f"its gradient is {norms[-1] / usual:.3g} times the usual: a strange batch or too large a learning rate"
    return "the learning rate is likely too large"
