"""A network in training: its rows, its parameters and its optimiser's state on a device, and what an epoch draws."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import PyTree
from mlp_xp.backend import Backend
from mlp_xp.batches import features_to_device
from mlp_xp.checkpoint import Checkpoint, device_tensors, host_tensors, stack, unstack
from mlp_xp.datasets.dataset import Dataset
from mlp_xp.datasets.files import data_error
from mlp_xp.errors import SettingsError
from mlp_xp.exactness import describe_erased, open_arithmetic
from mlp_xp.initializers import initial_layer, initial_parameters, initial_replicas
from mlp_xp.loop import Loop, Piece
from mlp_xp.losses import MOST_EXACT_COUNT, REGRESSION_LOSSES
from mlp_xp.model import Model
from mlp_xp.network import Layer, Network, NormalizedLayer, Parameters, map_parameters
from mlp_xp.objective import Objective
from mlp_xp.pretraining import Pretrained, open_stage, pretrain_layerwise
from mlp_xp.randomness import PRETRAINING, batch_order, batch_orders, dropout_keys
from mlp_xp.segments import open_rows
from mlp_xp.settings import Settings
from mlp_xp.step import TrainingStep

if TYPE_CHECKING:
    from numpy.typing import NDArray


PIECE = 10**11
"""Floating-point operations of the steps between two moments at which a training can stop: about a second of a CPU."""
CALLS = 10**7
"""Of them, what a step takes besides its matrix products, and if these are ever so small."""


def make_objective(settings: Settings, data: Dataset) -> Objective:
    """Return the network and loss that the settings and the data to train on ask for.

    Raises
    ------
    SettingsError
        If the loss does not fit the data.
    DataError
        If the loss does not take one of the numbers to predict.
    """
    if data.n_classes is None:
        if settings.loss not in REGRESSION_LOSSES:
            problem = "a regression needs 'squared_error', or 'poisson' for numbers ≥ 0"
            raise SettingsError(f"loss = {settings.loss!r}: {problem}")
        check_targets(settings, data, "training")
        n_outputs = data.n_targets
    elif settings.loss == "poisson":
        remedy = "choose 'cross_entropy', or predict the labels as numbers (--task regression)"
        raise SettingsError(f"loss = 'poisson': takes numbers ≥ 0 to predict, not classes; {remedy}")
    else:
        single = settings.loss == "binary_cross_entropy" and data.n_classes == 2
        n_outputs = 1 if single else data.n_classes
    sizes = data.n_features, *settings.hidden_layer_sizes, n_outputs
    network = Network(sizes, settings.activation, residual=settings.residual, batch_norm=settings.batch_norm)
    if settings.residual and not any(network.shortcuts):
        raise SettingsError(
            f"residual = True: no hidden layer of {sizes} has as many units as inputs; give two neighbouring hidden "
            "layers the same size, or leave it out"
        )
    return Objective(network, settings.loss, settings.l2)


class Trainer:
    """A network, or many side by side, in training: the rows, the parameters and the optimiser's state on a device.

    Parameters
    ----------
    settings : Settings
    data : Dataset
        The rows to train on.
    backend : Backend
    initial : tuple of Layer, optional
        Host arrays to start from, with the leading axis of the replicas if there are any; by default drawn as the
        settings say.
    replicas : int, optional
        Train so many networks at once, all arrays of parameters having a leading axis of that length: replica r is
        what the settings with the seed ``settings.seed + r`` give.

    Raises
    ------
    SettingsError
        If the settings do not fit the data, or the initial parameters do not fit the network.
    DataError
        If a number is not finite in the settings' dtype, or the loss does not take a number to predict.
    """

    def __init__(
        self,
        settings: Settings,
        data: Dataset,
        backend: Backend,
        initial: Parameters | None = None,
        replicas: int | None = None,
    ) -> None:
        if settings.batch_size > data.n_samples:
            raise SettingsError(
                f"batch_size = {settings.batch_size}: there are only {data.n_samples} rows to train on; "
                f"choose at most {data.n_samples}"
            )
        if replicas is not None and replicas < 1:
            raise SettingsError(f"replicas = {replicas}: must be a whole number ≥ 1, or None for one network alone")
        self.settings, self.data, self.backend, self.replicas = settings, data, backend, replicas
        self.seeds = range(settings.seed, settings.seed + (replicas or 1))
        self.objective = make_objective(settings, data)
        sizes = self.objective.network.layer_sizes
        if initial is not None:
            initial = map_parameters(np.array, initial)  # a copy: the caller may go on to write to the original
            _check_shapes(initial, self.objective.network, () if replicas is None else (replicas,))
        elif replicas is None:
            initial = initial_parameters(sizes, settings.init, settings.seed, batch_norm=settings.batch_norm)
        else:
            initial = initial_replicas(sizes, settings.init, self.seeds, batch_norm=settings.batch_norm)
        self.arithmetic = open_arithmetic(settings.arithmetic, backend, settings.dtype)
        self.arithmetic.certify(sizes, settings.batch_size, data.scale)
        rounded = settings.arithmetic == "exact" and data.features.dtype != np.uint8
        limits = data.limits() if rounded else None
        rows = open_rows(data, backend, settings.dtype, self.arithmetic, limits)
        if limits is not None:
            _check_columns(limits, data.name, self.arithmetic, backend)
        parameters = self._to_device(initial)
        optimizer = settings.make_optimizer()
        step = TrainingStep(
            self.objective, optimizer, data.scale, self.arithmetic, settings.dropout, settings.max_gradient_norm
        )
        self.loop = Loop(step, rows, backend, parameters, optimizer.init(parameters, self.arithmetic))
        self._begun: tuple[Loop | None, int] = None, 0
        self._drawn: tuple[int, tuple[NDArray[np.int32], ...]] = -1, ()

    def _to_device(self, parameters: Parameters) -> Parameters:
        dtype, round_state = self.settings.dtype, self.arithmetic.round_state
        return map_parameters(lambda array: round_state(self.backend.asarray(array, dtype)), parameters)

    def restore(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Go on from where another training was, of which every network has a checkpoint.

        Raises
        ------
        RunError
            If a checkpoint does not fit the network and the optimiser.
        """
        each, pretrained = [checkpoint.tensors for checkpoint in checkpoints], checkpoints[0].pretrained
        tensors = each[0] if self.replicas is None else stack(each)
        loop, place = self.loop, (self.backend, self.settings.dtype)
        if not 0 < pretrained < self.settings.n_pretraining_epochs:
            trees = loop.parameters, loop.optimizer_state
            loop.parameters, loop.optimizer_state, _ = device_tensors(tensors, *trees, *place)
            return
        stage, last_epoch = divmod(pretrained - 1, self.settings.pretrain_epochs)
        alone = open_stage(loop, stage, self._last_layer)
        trees = loop.parameters, alone.optimizer_state
        loop.parameters, alone.optimizer_state, top = device_tensors(tensors, *trees, *place, alone.parameters[-1])
        alone.parameters = (*loop.parameters[: stage + 1], top)
        self._begun = alone, last_epoch + 1

    def checkpoints(
        self,
        epoch: int,
        chains: Sequence[str],
        losses: NDArray[np.float64] | None = None,
        first_losses: Sequence[float | None] | None = None,
        pretrained: Pretrained | None = None,
    ) -> tuple[Checkpoint, ...]:
        """Return every network as it is now.

        Parameters
        ----------
        epoch : int
            The last one that is over.
        chains : sequence of str
            As `Checkpoint` has them, of each network.
        losses : ndarray of float64, shape (n_networks, n_steps), optional
            Of the next epoch's steps so far; by default none.
        first_losses : sequence of float or None, optional
        pretrained : Pretrained, optional
            What of the pre-training came last, if nothing came after it.
        """
        n, state, top, n_pretrained = len(self.seeds), self.loop.optimizer_state, None, 0
        if pretrained is not None:
            n_pretrained = pretrained.stage * self.settings.pretrain_epochs + pretrained.epoch + 1
            if n_pretrained < self.settings.n_pretraining_epochs:
                state, top = pretrained.loop.optimizer_state, pretrained.loop.parameters[-1]
        return tuple(
            Checkpoint(
                epoch, chain, host_tensors(parameters, state, self.backend, top), of_steps, first_loss, n_pretrained
            )
            for (parameters, state, top), chain, of_steps, first_loss in zip(
                self._split((self.loop.parameters, state, top)),
                chains,
                np.empty((n, 0)) if losses is None else losses,
                [None] * n if first_losses is None else first_losses,
                strict=True,
            )
        )

    @property
    def learning_rate(self) -> float:
        """That of the next step."""
        return float(self.backend.to_host(self.loop.optimizer_state.learning_rate))

    @property
    def n_steps(self) -> int:
        """Steps of an epoch."""
        return self.data.n_samples // self.settings.batch_size

    def pretrain(self, between: Callable[[], None] = lambda: None) -> Iterator[Pretrained]:
        """Train the hidden layers one after another, if the settings say so, and yield every epoch of it.

        Parameters
        ----------
        between : callable, optional
            Called within an epoch, every `PIECE` operations or so; what it raises ends the pre-training.
        """
        if self.settings.pretrain == "none":
            return

        def pieces(loop: Loop, inputs: tuple[NDArray[Any], ...]) -> Iterator[Piece]:
            for piece in loop.pieces(*inputs, most_steps=self._most_steps):
                yield piece
                if piece.first + piece.losses.shape[0] < self.n_steps:
                    between()

        (begun, n_done), self._begun = self._begun, (None, 0)
        yield from pretrain_layerwise(self.loop, self._last_layer, self._draw_stage, pieces, begun=begun, n_done=n_done)

    def _last_layer(self, stage: int) -> Layer | NormalizedLayer:
        """Return what is on top of the first ``stage`` + 1 hidden layers while these are pre-trained."""
        sizes = self.objective.network.layer_sizes
        n_in, n_out = sizes[stage + 1], sizes[-1]
        drawn = [initial_layer(n_in, n_out, PRETRAINING + stage, self.settings.init, seed) for seed in self.seeds]
        (layer,) = drawn if self.replicas is None else [Layer(*map(np.stack, zip(*drawn, strict=True)))]
        return self._to_device((layer,))[0]

    def _draw_stage(self, stage: int) -> Iterator[tuple[NDArray[np.int32], ...]]:
        """Yield what `_draw` returns for every epoch in which a hidden layer is pre-trained."""
        n_epochs = self.settings.pretrain_epochs
        for epoch in range(stage * n_epochs, (stage + 1) * n_epochs):
            yield self._draw(PRETRAINING + epoch)

    def run_epoch(self, epoch: int) -> NDArray[np.float64]:
        """Train on every batch of an epoch and return their losses, shape (n_steps,) or (n_steps, replicas)."""
        return self.loop.losses(self.loop.collect(self.pieces(epoch)))

    def pieces(self, epoch: int, first: int = 0) -> Iterator[Piece]:
        """Train on an epoch's batches from the step ``first`` on, about `PIECE` operations at a time.

        Where the pieces begin follows from settings and data alone: so a training that stopped between two of them and
        goes on is compiled, and rounds, as if it had not.
        """
        drawn, inputs = self._drawn
        inputs = inputs if drawn == epoch else self._draw(epoch)
        yield from self.loop.pieces(*inputs, most_steps=self._most_steps, first=first)
        if epoch + 1 < self.settings.epochs:  # while the device is at work, if it works by itself
            self._drawn = epoch + 1, self._draw(epoch + 1)

    @property
    def _most_steps(self) -> int:
        sizes = self.objective.network.layer_sizes
        n_weights = sum(n_in * n_out for n_in, n_out in pairwise(sizes)) * (self.replicas or 1)
        # Three products with every weight, each a multiplication and an addition per row.
        return max(1, int(PIECE // (6 * n_weights * self.settings.batch_size + CALLS)))

    def _draw(self, epoch: int) -> tuple[NDArray[np.int32], ...]:
        """Return what is random in an epoch's steps; of replicas, each with their axis after the first.

        Returns
        -------
        order : ndarray of int32, shape (n_steps, batch_size)
            Row numbers.
        keys : ndarray of int32, shape (n_steps, n_hidden, 2)
            Only with dropout: of the hidden layers' masks.
        """
        shape = self.data.n_samples, self.settings.batch_size
        if self.replicas is None:
            order = batch_order(*shape, self.settings.seed, epoch)
        else:
            order = batch_orders(*shape, self.seeds, epoch)
        if not self.settings.dropout:
            return (order,)
        n_hidden = len(self.settings.hidden_layer_sizes)
        keys = [dropout_keys(len(order), n_hidden, seed, epoch) for seed in self.seeds]
        return order, keys[0] if self.replicas is None else np.stack(keys, axis=1)

    @property
    def model(self) -> Model:
        """The network, or all networks side by side, as they are now."""
        data, arithmetic = self.data, self.arithmetic.for_inference()
        dtype = self.settings.dtype
        return Model(self.objective, self.loop.parameters, data.scale, data.n_classes, self.backend, arithmetic, dtype)

    def each(self) -> list[tuple[Model, PyTree]]:
        """Return every network with the state of its optimiser."""
        trees = self._split((self.loop.parameters, self.loop.optimizer_state))
        return [(replace(self.model, parameters=parameters), state) for parameters, state in trees]

    def _split(self, trees: tuple[PyTree, ...]) -> list[tuple[PyTree, ...]]:
        """Return every network's part of the trees."""
        return [trees] if self.replicas is None else unstack(trees, self.replicas, self.backend)


def _check_columns(limits: NDArray[Any], name: str, arithmetic: Arithmetic, backend: Backend) -> None:
    """Warn of features that vary no longer once they are rounded relative to the largest of all.

    Rounding keeps the order of numbers: what a column's least and greatest become are the limits of the rounded column.
    """
    rounded = backend.to_host(features_to_device(limits, backend, "float64", arithmetic, name))
    if erased := describe_erased(limits.astype(np.float64), rounded):
        warnings.warn(f"{name}: {erased}, or use --arithmetic native", UserWarning, stacklevel=5)


def check_targets(settings: Settings, data: Dataset, part: str) -> None:
    """Refuse numbers to predict of which the loss is not defined."""
    if settings.loss != "poisson":
        return
    most = MOST_EXACT_COUNT if settings.arithmetic == "exact" else math.inf
    for row, column in np.argwhere((data.targets < 0) | (data.targets > most))[:1]:
        place = f"{data.name}: row {row} of the {part} set, column {column} (both counted from 0)"
        problem = f"the number to predict is {data.targets[row, column]}"
        if data.targets[row, column] < 0:
            remedy = "correct or remove the row, or use --loss squared_error"
            raise data_error(place, f"{problem}, but the loss 'poisson' takes none below 0", remedy)
        problem = f"{problem}, but the loss 'poisson' takes none above 2**63 in exact arithmetic"
        raise data_error(place, problem, "choose another unit, or use --arithmetic native")


def _check_shapes(parameters: Parameters, network: Network, leading: tuple[int, ...]) -> None:
    sizes = network.layer_sizes
    if len(parameters) != len(sizes) - 1:
        raise SettingsError(f"initial: {len(parameters)} layers, but the network has {len(sizes) - 1}")
    for i, (layer, shape) in enumerate(zip(parameters, pairwise(sizes), strict=True)):
        kind = NormalizedLayer if network.batch_norm and i < len(sizes) - 2 else Layer
        if not isinstance(layer, kind):
            raise SettingsError(f"initial: layer {i} is a {type(layer).__name__}, not a {kind.__name__}")
        for name, array in layer._asdict().items():
            if array.shape != (wanted := (*leading, *(shape if name == "weight" else shape[1:]))):
                raise SettingsError(f"initial: the {name} of layer {i} has the shape {array.shape}, not {wanted}")
