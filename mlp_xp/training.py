"""The epoch loop: a generator of epoch records. Bars, files and plots are its readers and are not in it."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import PyTree
from mlp_xp.backend import Backend
from mlp_xp.batches import features_to_device
from mlp_xp.checkpoint import Checkpoint, device_tensors, host_tensors, unstack
from mlp_xp.datasets.dataset import Dataset, Split
from mlp_xp.datasets.files import data_error
from mlp_xp.digests import Digests, first_link, link
from mlp_xp.errors import SettingsError, TrainingDiverged
from mlp_xp.exactness import describe_erased, open_arithmetic
from mlp_xp.initializers import initial_parameters, initial_replicas
from mlp_xp.loop import Loop
from mlp_xp.losses import MOST_EXACT_COUNT, REGRESSION_LOSSES
from mlp_xp.model import Model, mean
from mlp_xp.network import Network, Parameters, map_parameters
from mlp_xp.objective import Objective
from mlp_xp.randomness import batch_order, batch_orders, dropout_keys
from mlp_xp.segments import Rows, open_rows
from mlp_xp.settings import Settings
from mlp_xp.step import TrainingStep

if TYPE_CHECKING:
    from numpy.typing import NDArray


NUMBERS = ("epoch", "loss", "test_loss", "accuracy")
"""Of an epoch, what its digests cover besides arrays."""
LARGEST = 2.0**900
"""Of any parameter; beyond, a library may saturate where another one has infinity."""


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training rows gave.

    Attributes
    ----------
    epoch : int
        From 0.
    loss : float
        Mean of the epoch's batch losses (penalty included), each taken before its step.
    test_loss : float
        Mean loss over every test row, after the epoch.
    accuracy : float or None
        Share of test rows that are labelled rightly, in [0, 1]; None for a regression.
    seconds : float
        Wall-clock time of the epoch, evaluation included.
    step_losses : ndarray of float64, shape (n_steps,)
    model : Model
        The network as it is after the epoch.
    optimizer_state : pytree
    digests : Digests
        Equal ones mean equal bits, on whatever machine.
    """

    epoch: int
    loss: float
    test_loss: float
    accuracy: float | None
    seconds: float
    step_losses: NDArray[np.float64]
    model: Model
    optimizer_state: PyTree
    digests: Digests

    def row(self) -> dict[str, Any]:
        """Return the numbers of the record, as a line of ``curve.jsonl`` has them; the arrays are left out."""
        numbers = {name: getattr(self, name) for name in (*NUMBERS, "seconds")}
        return numbers | {f"sha256_{name}": digest for name, digest in self.digests._asdict().items()}

    def checkpoint(self) -> Checkpoint:
        """Return all that the next epoch needs, as copies on the host."""
        tensors = host_tensors(self.model.parameters, self.optimizer_state, self.model.backend)
        return Checkpoint(self.epoch, self.digests.chain, tensors)

    def summary(self) -> str:
        """Return the lab's line: epoch, mean batch loss, and test accuracy (or, for a regression, test loss)."""
        result = f"{self.test_loss:.4f}" if self.accuracy is None else f"{self.accuracy:.2%}"
        return f"#summary:{self.epoch: 4d} {self.loss:.4f} {result}"


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
        _check_targets(settings, data, "training")
        n_outputs = data.n_targets
    elif settings.loss == "poisson":
        remedy = "choose 'cross_entropy', or predict the labels as numbers (--task regression)"
        raise SettingsError(f"loss = 'poisson': takes numbers ≥ 0 to predict, not classes; {remedy}")
    else:
        single = settings.loss == "binary_cross_entropy" and data.n_classes == 2
        n_outputs = 1 if single else data.n_classes
    network = Network((data.n_features, *settings.hidden_layer_sizes, n_outputs), settings.activation)
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
            _check_shapes(initial, sizes, () if replicas is None else (replicas,))
        elif replicas is None:
            initial = initial_parameters(sizes, settings.init, settings.seed)
        else:
            initial = initial_replicas(sizes, settings.init, self.seeds)
        self.arithmetic = open_arithmetic(settings.arithmetic, backend, settings.dtype)
        self.arithmetic.certify(sizes, settings.batch_size, data.scale)
        rounded = settings.arithmetic == "exact" and data.features.dtype != np.uint8
        limits = data.limits() if rounded else None
        rows = open_rows(data, backend, settings.dtype, self.arithmetic, limits)
        if limits is not None:
            _check_columns(limits, data.name, self.arithmetic, backend)
        round_state = self.arithmetic.round_state
        parameters = map_parameters(lambda array: round_state(backend.asarray(array, settings.dtype)), initial)
        optimizer = settings.make_optimizer()
        step = TrainingStep(
            self.objective, optimizer, data.scale, self.arithmetic, settings.dropout, settings.max_gradient_norm
        )
        self.loop = Loop(step, rows, backend, parameters, optimizer.init(parameters, self.arithmetic))
        self._drawn: tuple[int, tuple[NDArray[np.int32], ...]] = -1, ()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from where another training was.

        Raises
        ------
        RunError
            If the checkpoint does not fit the network and the optimiser.
        """
        loop = self.loop
        loop.parameters, loop.optimizer_state = device_tensors(
            checkpoint.tensors, loop.parameters, loop.optimizer_state, self.backend, self.settings.dtype
        )

    def run_epoch(self, epoch: int) -> NDArray[np.float64]:
        """Train on every batch of an epoch and return their losses, shape (n_steps,) or (n_steps, replicas)."""
        drawn, inputs = self._drawn
        pieces = self.loop.run(*(inputs if drawn == epoch else self._draw(epoch)))
        if epoch + 1 < self.settings.epochs:  # while the device is at work, if it works by itself
            self._drawn = epoch + 1, self._draw(epoch + 1)
        return self.loop.losses(pieces)

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
        if self.replicas is None:
            return [(self.model, self.loop.optimizer_state)]
        trees = unstack((self.loop.parameters, self.loop.optimizer_state), self.replicas, self.backend)
        return [(replace(self.model, parameters=parameters), state) for parameters, state in trees]


def train(
    settings: Settings,
    data: Split,
    backend: Backend,
    *,
    initial: Parameters | None = None,
    start: Checkpoint | None = None,
) -> Iterator[Epoch]:
    """Train a network, epoch by epoch.

    Parameters
    ----------
    settings : Settings
    data : Split
        Not to be written to before the last epoch: a backend may take the memory as it is. Features that are in a
        file are read in every epoch, in pieces of bounded size: with the same results, in memory that does not grow
        with their number.
    backend : Backend
        Where it is computed.
    initial : tuple of Layer, optional
        Host arrays to start from; by default drawn as the settings say.
    start : Checkpoint, optional
        Go on after its epoch; settings and data must be those it was made with.

    Yields
    ------
    Epoch
        One record per epoch, as soon as it is over.

    Raises
    ------
    SettingsError
        If the settings do not fit the data, or the initial parameters do not fit the network.
    DataError
        If the test set is not of the training set's kind, a number is not finite in the settings' dtype, or the loss
        does not take a number to predict. All are raised by the call itself. In any epoch, if features are in a file
        that has changed or cannot be read.
    TrainingDiverged
        If a loss is not finite.
    """
    return (epoch for (epoch,) in train_each(settings, data, backend, initial=initial, start=start))


def train_each(
    settings: Settings,
    data: Split,
    backend: Backend,
    *,
    initial: Parameters | None = None,
    start: Checkpoint | None = None,
    replicas: int | None = None,
) -> Iterator[tuple[Epoch, ...]]:
    """Train as `train` does, or ``replicas`` networks at once, as `Trainer` does; yield one record of each per epoch.

    A record's seconds are those from the epoch's beginning, for all networks together, until it was made.
    """
    if not isinstance(data, Split):
        raise SettingsError(f"data is a {type(data).__name__}: give what its split() returns")
    _check_kind(data)
    trainer = Trainer(settings, data.train, backend, initial, replicas)
    _check_targets(settings, data.test, "test")
    test_rows = open_rows(data.test, backend, settings.dtype, trainer.arithmetic.for_inference())
    if start is not None:
        trainer.restore(start)
        return _epochs(trainer, test_rows, start.epoch + 1, [start.chain])
    digests = data.train.digest(), data.test.digest()
    chains = [first_link(replace(settings, seed=seed), *digests) for seed in trainer.seeds]
    return _epochs(trainer, test_rows, 0, chains)


def _epochs(trainer: Trainer, test_rows: Rows, first: int, chains: Sequence[str]) -> Iterator[tuple[Epoch, ...]]:
    for epoch in range(first, trainer.settings.epochs):
        begin = time.perf_counter()
        # One contiguous row per network.
        losses = np.atleast_2d(np.ascontiguousarray(trainer.run_epoch(epoch).T))
        _check_finite(losses, epoch, trainer)
        evaluations = trainer.model.evaluate_each(test_rows)
        records = []
        for i, (model, state) in enumerate(trainer.each()):
            numbers = dict(zip(NUMBERS, (epoch, mean(losses[i]), *evaluations[i]), strict=True))
            tensors = host_tensors(model.parameters, state, trainer.backend)
            _check_end(evaluations[i].loss, tensors, epoch, trainer, i)
            digests = link(chains[i], numbers, losses[i], tensors)
            seconds = time.perf_counter() - begin
            records.append(
                Epoch(
                    **numbers,  # type: ignore[arg-type]
                    seconds=seconds,
                    step_losses=losses[i],
                    model=model,
                    optimizer_state=state,
                    digests=digests,
                )
            )
        chains = [record.digests.chain for record in records]
        yield tuple(records)


def _check_columns(limits: NDArray[Any], name: str, arithmetic: Arithmetic, backend: Backend) -> None:
    """Warn of features that vary no longer once they are rounded relative to the largest of all.

    Rounding keeps the order of numbers: what a column's least and greatest become are the limits of the rounded column.
    """
    rounded = backend.to_host(features_to_device(limits, backend, "float64", arithmetic, name))
    if erased := describe_erased(limits.astype(np.float64), rounded):
        warnings.warn(f"{name}: {erased}, or use --arithmetic native", UserWarning, stacklevel=5)


def _check_kind(data: Split) -> None:
    """Refuse a test set on which the network could not be tried, or would be tried on other numbers."""
    for name in ("n_features", "n_classes", "scale", "n_targets"):
        wanted, found = (getattr(part, name) for part in data)
        if found != wanted:
            problem = f"{name} = {found} in the test set, but {wanted} in the training set"
            raise data_error(data.test.name, problem, "give two parts of one data set, as split() does")


def _check_targets(settings: Settings, data: Dataset, part: str) -> None:
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


def _check_shapes(parameters: Parameters, sizes: tuple[int, ...], leading: tuple[int, ...]) -> None:
    if len(parameters) != len(sizes) - 1:
        raise SettingsError(f"initial: {len(parameters)} layers, but the network has {len(sizes) - 1}")
    for i, (layer, shape) in enumerate(zip(parameters, pairwise(sizes), strict=True)):
        for name, array, alone in (("weight", layer.weight, shape), ("bias", layer.bias, shape[1:])):
            if array.shape != (wanted := (*leading, *alone)):
                raise SettingsError(f"initial: the {name} of layer {i} has the shape {array.shape}, not {wanted}")


def _check_finite(losses: NDArray[np.float64], epoch: int, trainer: Trainer) -> None:
    """Refuse batch losses, shape (n_networks, n_steps), of which one is not finite."""
    for i, step in np.argwhere(~np.isfinite(losses))[:1]:
        raise _diverged(f"epoch {epoch}, step {step}: the loss", losses[i, step], trainer, i)


def _check_end(test_loss: float, tensors: Mapping[str, NDArray[Any]], epoch: int, trainer: Trainer, i: int) -> None:
    """Look at what the epoch's last step left, which no batch loss shows."""
    where = f"epoch {epoch}, after the last step"
    if not math.isfinite(test_loss):
        raise _diverged(f"{where}: the test loss", test_loss, trainer, i)
    for name, tensor in tensors.items():
        if not (largest := float(np.max(np.abs(tensor)))) < LARGEST:
            raise _diverged(f"{where}: the largest of {name}", largest, trainer, i)


def _diverged(what: str, value: float, trainer: Trainer, i: int) -> TrainingDiverged:
    """Return the error to raise for a value of the i-th network."""
    who = "" if trainer.replicas is None else f"seed {trainer.seeds[i]}: "
    return TrainingDiverged(
        f"{who}{what} is {value}; try a smaller --learning-rate (now {trainer.settings.learning_rate:g}), "
        "or scale the features (and the numbers of a regression) to magnitudes near 1 (--scale)"
    )
