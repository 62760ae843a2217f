"""Vanishing gradients: how small they are in the first layers of a deep network, and what helps.

A sigmoid's derivative is at most 1/4. So from layer to layer towards the input, the gradient with respect to the
pre-activations is at most 1/4 × the weight's largest singular value times as long: it shrinks geometrically with depth
(Hochreiter, "Untersuchungen zu dynamischen neuronalen Netzen", 1991; Bengio, Simard and Frasconi, "Learning long-term
dependencies with gradient descent is difficult", IEEE Transactions on Neural Networks 5, 1994).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend
from mlp_xp.batches import gather
from mlp_xp.datasets import Split
from mlp_xp.datasets.dataset import Dataset
from mlp_xp.errors import SettingsError, TrainingDiverged
from mlp_xp.losses import LOSSES, gradient_of_mean
from mlp_xp.network import Parameters, backward, forward
from mlp_xp.objective import Objective, operands
from mlp_xp.settings import Settings
from mlp_xp.trainer import Trainer
from mlp_xp.training import train

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS = 1000
"""Rows of the training set that gradients are measured on, at most."""
STEEPEST = {"sigmoid": 0.25, "tanh": 1.0, "relu": 1.0}
"""The largest derivative of every activation that is studied."""
MITIGATIONS: dict[str, dict[str, Any]] = {
    "residual": {"residual": True},
    "batch norm": {"batch_norm": True},
    "pre-training": {"pretrain": "layerwise"},
}
PLAIN = "sigmoid"
"""What the mitigations are tried on."""


class Flow(NamedTuple):
    """How a gradient flows through a network.

    Attributes
    ----------
    norms : ndarray of shape (n_layers,)
        Euclidean norms of the gradients with respect to every layer's weight, the first layer's first.
    bounds : ndarray of shape (n_layers,) or None
        What they cannot be larger than, from the derivatives and the weights of the layers above; None where a shortcut
        or a normalisation is on the way.
    dead : ndarray of int, shape (n_layers - 1,)
        Of every hidden layer, the units whose output is 0 for all rows.
    """

    norms: NDArray[np.float64]
    bounds: NDArray[np.float64] | None
    dead: NDArray[np.int64]

    @property
    def ratio(self) -> float:
        """The first layer's norm divided by the last's; not a number where that is 0, as nothing is learnt."""
        return float(self.norms[0] / self.norms[-1]) if self.norms[-1] > 0.0 else math.nan

    @property
    def is_within_bounds(self) -> bool:
        """Whether no norm is larger than its bound; rounding is far below what is allowed for it."""
        return self.bounds is None or bool(np.all(self.norms <= self.bounds * (1.0 + 1e-3)))


class Moment(NamedTuple):
    """A network after some epochs.

    Attributes
    ----------
    epoch : int
        How many are over; 0 at the start.
    flow : Flow
    loss, accuracy : float or None
        Over the test rows; None at the start.
    """

    epoch: int
    flow: Flow
    loss: float | None
    accuracy: float | None


def cases(base: Settings, depth: int, width: int) -> dict[str, Settings]:
    """Return the settings of every network that is studied, by name.

    Raises
    ------
    SettingsError
        If there are not two hidden layers, or a setting does not go with what is studied.
    """
    for name, value, least in (("depth", depth, 2), ("width", width, 1)):
        if value < least:
            raise SettingsError(f"{name} = {value}: must be at least {least}")
    plain = replace(base, hidden_layer_sizes=(width,) * depth)
    named = {activation: replace(plain, activation=activation) for activation in STEEPEST}
    helped = {f"{PLAIN}, {name}": replace(named[PLAIN], **options) for name, options in MITIGATIONS.items()}
    return {**named, **helped}


def depths(settings: Settings, depth: int) -> list[tuple[int, Settings]]:
    """Return the settings of networks like one of ``depth`` hidden layers, but from 2 to twice as deep."""
    width = settings.hidden_layer_sizes[0]
    chosen = range(2, 2 * depth + 1, max(1, depth // 5))
    return [(n, replace(settings, hidden_layer_sizes=(width,) * n)) for n in chosen]


def measure(
    objective: Objective,
    parameters: Parameters,
    features: Array,
    targets: Array,
    arithmetic: Arithmetic,
    backend: Backend,
) -> Flow:
    """Return how the gradient of some rows' mean loss flows; parameters, features and targets are on the device."""
    network = objective.network
    layers = operands(parameters, arithmetic)
    trace = forward(network, layers, features, arithmetic, is_training=True)
    prediction, _ = LOSSES[objective.loss](trace.outputs[-1], arithmetic)
    delta = gradient_of_mean(prediction, targets, None, arithmetic)
    gradient = backward(network, layers, trace, delta, arithmetic)

    def host(array: Array) -> NDArray[np.float64]:
        return backend.to_host(array).astype(np.float64)

    norms = np.asarray([np.linalg.norm(host(layer.weight)) for layer in gradient])
    dead = np.asarray([np.sum(~np.any(host(y) != 0.0, axis=0)) for y in trace.outputs[:-1]], dtype=np.int64)
    if network.residual or network.batch_norm or network.activation not in STEEPEST:
        return Flow(norms, None, dead)
    bound, bounds = np.linalg.norm(host(delta)), []
    for layer, x in zip(reversed(layers), reversed(trace.inputs), strict=True):
        bounds.append(bound * np.linalg.norm(host(x), 2))
        bound = bound * STEEPEST[network.activation] * np.linalg.norm(host(layer.weight), 2)
    return Flow(norms, np.asarray(bounds[::-1]), dead)


def at_start(settings: Settings, data: Dataset, backend: Backend) -> Flow:
    """Return how the gradient flows through a network that has learnt nothing, not even in pre-training."""
    return _measured(_open(settings, data, backend))


def follow(settings: Settings, data: Split, backend: Backend) -> Iterator[Moment]:
    """Train a network, and yield it at the start (after a pre-training) and after every epoch, until it diverges.

    Raises
    ------
    SettingsError
        If the data are of a regression, or the settings do not fit them.
    """
    trainer = _open(settings, data.train, backend)
    for pretrained in trainer.pretrain():
        if not np.isfinite(pretrained.losses).all():
            return
    yield Moment(0, _measured(trainer), None, None)
    start = trainer.model.host_parameters()
    try:
        for epoch in train(replace(settings, pretrain="none"), data, backend, initial=start):
            trainer.loop.parameters = epoch.model.parameters
            yield Moment(epoch.epoch + 1, _measured(trainer), epoch.test_loss, epoch.accuracy)
    except TrainingDiverged:
        return  # it ends there, and the picture shows it


def _open(settings: Settings, data: Dataset, backend: Backend) -> Trainer:
    if data.n_classes is None:
        raise SettingsError("study gradients: the data must have classes, whose accuracy tells who has learnt")
    return Trainer(settings, data, backend)


def _measured(trainer: Trainer) -> Flow:
    """Return how the gradient of the first rows flows through a trainer's network as it is."""
    loop, data = trainer.loop, trainer.data
    numbers = np.arange(min(ROWS, data.n_samples), dtype=np.int32)
    order, rows = next(loop.rows.segments(numbers[None]))
    n_outputs = trainer.objective.network.layer_sizes[-1]
    features, targets = gather(rows, order[0, ...], data.scale, n_outputs, trainer.arithmetic)
    return measure(trainer.objective, loop.parameters, features, targets, trainer.arithmetic, trainer.backend)
