"""The epoch loop: a generator of epoch records. Bars, files and plots are its readers and are not in it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_xp.array_types import PyTree
from mlp_xp.backend import Backend
from mlp_xp.checkpoint import Checkpoint, host_tensors
from mlp_xp.datasets.dataset import Split
from mlp_xp.datasets.files import data_error
from mlp_xp.digests import Digests, first_link, link
from mlp_xp.errors import SettingsError, TrainingDiverged
from mlp_xp.model import Model, mean
from mlp_xp.network import Parameters
from mlp_xp.pretraining import Pretrained
from mlp_xp.segments import Rows, open_rows
from mlp_xp.settings import Settings
from mlp_xp.trainer import Trainer, check_targets

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


def train(
    settings: Settings,
    data: Split,
    backend: Backend,
    *,
    initial: Parameters | None = None,
    start: Checkpoint | None = None,
    on_pretrained: Callable[[Pretrained], None] | None = None,
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
    on_pretrained : callable, optional
        Told of every epoch of a pre-training, which comes before the first record.

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
    each = train_each(settings, data, backend, initial=initial, start=start, on_pretrained=on_pretrained)
    return (epoch for (epoch,) in each)


def train_each(
    settings: Settings,
    data: Split,
    backend: Backend,
    *,
    initial: Parameters | None = None,
    start: Checkpoint | None = None,
    replicas: int | None = None,
    on_pretrained: Callable[[Pretrained], None] | None = None,
) -> Iterator[tuple[Epoch, ...]]:
    """Train as `train` does, or ``replicas`` networks at once, as `Trainer` does; yield one record of each per epoch.

    A record's seconds are those from the epoch's beginning, for all networks together, until it was made.
    """
    if not isinstance(data, Split):
        raise SettingsError(f"data is a {type(data).__name__}: give what its split() returns")
    _check_kind(data)
    trainer = Trainer(settings, data.train, backend, initial, replicas)
    check_targets(settings, data.test, "test")
    test_rows = open_rows(data.test, backend, settings.dtype, trainer.arithmetic.for_inference())
    if start is not None:
        trainer.restore(start)
        return _epochs(trainer, test_rows, start.epoch + 1, [start.chain], on_pretrained)
    digests = data.train.digest(), data.test.digest()
    chains = [first_link(replace(settings, seed=seed), *digests) for seed in trainer.seeds]
    return _epochs(trainer, test_rows, 0, chains, on_pretrained)


def _epochs(
    trainer: Trainer,
    test_rows: Rows,
    first: int,
    chains: Sequence[str],
    on_pretrained: Callable[[Pretrained], None] | None,
) -> Iterator[tuple[Epoch, ...]]:
    if first == 0:
        for pretrained in trainer.pretrain():
            stage, epoch, losses = pretrained
            _check_finite(_by_network(losses), f"pre-training of layer {stage}, epoch {epoch}", trainer)
            if on_pretrained is not None:
                on_pretrained(pretrained)
    for epoch in range(first, trainer.settings.epochs):
        begin = time.perf_counter()
        losses = _by_network(trainer.run_epoch(epoch))
        _check_finite(losses, f"epoch {epoch}", trainer)
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


def _check_kind(data: Split) -> None:
    """Refuse a test set on which the network could not be tried, or would be tried on other numbers."""
    for name in ("n_features", "n_classes", "scale", "n_targets"):
        wanted, found = (getattr(part, name) for part in data)
        if found != wanted:
            problem = f"{name} = {found} in the test set, but {wanted} in the training set"
            raise data_error(data.test.name, problem, "give two parts of one data set, as split() does")


def _by_network(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the losses of an epoch's steps with one contiguous row per network."""
    return np.atleast_2d(np.ascontiguousarray(losses.T))


def _check_finite(losses: NDArray[np.float64], where: str, trainer: Trainer) -> None:
    """Refuse batch losses, shape (n_networks, n_steps), of which one is not finite."""
    for i, step in np.argwhere(~np.isfinite(losses))[:1]:
        raise _diverged(f"{where}, step {step}: the loss", losses[i, step], trainer, i)


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
