"""The epoch loop: a generator of epoch records. Bars, files and plots are its readers and are not in it."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mlp_xp.array_types import PyTree
from mlp_xp.backend import Backend
from mlp_xp.checkpoint import BEGINNING, Checkpoint, host_tensors
from mlp_xp.datasets.dataset import Split
from mlp_xp.datasets.files import data_error
from mlp_xp.digests import Digests, first_link, link
from mlp_xp.divergence import (
    LARGEST,
    LARGEST_GROWTH,
    STREAK,
    Rollback,
    diagnose,
    find_divergence,
    is_growth,
    untrained_loss,
)
from mlp_xp.epochs import Epochs
from mlp_xp.errors import RunError, SettingsError, TrainingDiverged, TrainingInterrupted
from mlp_xp.loop import Piece
from mlp_xp.model import Model, mean
from mlp_xp.network import Parameters
from mlp_xp.pretraining import Pretrained
from mlp_xp.segments import Rows, open_rows
from mlp_xp.settings import Settings, plain
from mlp_xp.trainer import Trainer, check_targets

if TYPE_CHECKING:
    from numpy.typing import NDArray


NUMBERS = ("epoch", "loss", "test_loss", "accuracy")
"""Of an epoch, what its digests cover besides arrays."""
ON_DIVERGENCE = ("stop", "rollback")
MOST_ROLLBACKS = 10
"""Of a training: the learning rate is then a thousandth of what was asked for, and is not what is wrong."""
LearningRates: TypeAlias = Mapping[int, float]
NO_RATES: LearningRates = {}


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
    first_loss : float or None
        Of the training's very first step, as `Checkpoint` has it.
    rollbacks : tuple of Rollback
        What went wrong since the epoch before, and with which learning rate it was tried again.
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
    first_loss: float | None = None
    rollbacks: tuple[Rollback, ...] = ()

    def row(self) -> dict[str, Any]:
        """Return the numbers of the record, as a line of ``curve.jsonl`` has them; the arrays are left out."""
        numbers = {name: getattr(self, name) for name in (*NUMBERS, "seconds")}
        return numbers | {f"sha256_{name}": digest for name, digest in self.digests._asdict().items()}

    def checkpoint(self) -> Checkpoint:
        """Return all that the next epoch needs, as copies on the host."""
        tensors = host_tensors(self.model.parameters, self.optimizer_state, self.model.backend)
        return Checkpoint(self.epoch, self.digests.chain, tensors, first_loss=self.first_loss)

    def summary(self) -> str:
        """Return the lab's line: epoch, mean batch loss, and test accuracy (or, for a regression, test loss)."""
        result = f"{self.test_loss:.4f}" if self.accuracy is None else f"{self.accuracy:.2%}"
        return f"#summary:{self.epoch: 4d} {self.loss:.4f} {result}"


def never() -> bool:
    """Tell that nobody wants the training to stop."""
    return False


def train(
    settings: Settings,
    data: Split,
    backend: Backend,
    *,
    initial: Parameters | None = None,
    start: Checkpoint | None = None,
    on_pretrained: Callable[[Pretrained], None] | None = None,
    stop: Callable[[], bool] = never,
    on_divergence: str = "stop",
    learning_rates: LearningRates = NO_RATES,
    largest_growth: float = LARGEST_GROWTH,
) -> Epochs[Epoch]:
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
        Go on from there; settings and data must be those it was made with.
    on_pretrained : callable, optional
        Told of every epoch of a pre-training, which comes before the first record.
    stop : callable, optional
        Asked every second or so, between two steps, whether to stop.
    on_divergence : str
        "stop", or "rollback": begin the epoch again with half the learning rate, up to `MOST_ROLLBACKS` times. A
        pre-training, and the epoch of a ``start`` within one that does not know its beginning, cannot begin again.
    learning_rates : mapping of int to float
        Other learning rates, from an epoch on: what rollbacks made of a training that is done again.
    largest_growth : float
        The training diverges, too, if its mean loss over `mlp_xp.divergence.STREAK` steps on end is more than so many
        times what it is before anything is learnt: in its very first step (of a pre-training, if there is one) or, if
        that is more, over all training rows with outputs of 0. > 1; infinity for any finite losses.

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
    RunError
        If ``start`` does not fit; by the call itself.
    TrainingDiverged
        If a loss or a parameter is not finite, or the loss explodes: names the step, the layer and the likely cause.
    TrainingInterrupted
        If ``stop`` says so; it holds the checkpoint to go on from.
    MemoryError, DeviceLost
        If memory does not suffice, or the device stops working.
    """
    each = train_each(
        settings,
        data,
        backend,
        initial=initial,
        start=None if start is None else (start,),
        on_pretrained=on_pretrained,
        stop=stop,
        on_divergence=on_divergence,
        learning_rates=learning_rates,
        largest_growth=largest_growth,
    )
    return each.map(operator.itemgetter(0))


def train_each(
    settings: Settings,
    data: Split,
    backend: Backend,
    *,
    initial: Parameters | None = None,
    start: Sequence[Checkpoint] | None = None,
    replicas: int | None = None,
    on_pretrained: Callable[[Pretrained], None] | None = None,
    stop: Callable[[], bool] = never,
    on_divergence: str = "stop",
    learning_rates: LearningRates = NO_RATES,
    largest_growth: float = LARGEST_GROWTH,
) -> Epochs[tuple[Epoch, ...]]:
    """Train as `train` does, or ``replicas`` networks at once, as `Trainer` does; yield one record of each per epoch.

    A record's seconds are those from the epoch's beginning, for all networks together, until it was made. ``start``
    has a checkpoint of each, all of one moment; if one network diverges, all do.
    """
    check_is_split(data)
    if not isinstance(backend, Backend):
        raise SettingsError(f"backend is a {type(backend).__name__}: give what mlp_xp.open_backend returns")
    if on_divergence not in ON_DIVERGENCE:
        raise SettingsError(f"on_divergence = {on_divergence!r}: must be {' or '.join(ON_DIVERGENCE)}")
    if not is_growth(growth := plain(largest_growth)):
        raise SettingsError(f"largest_growth = {largest_growth!r}: must be a number > 1, or infinity")
    growth = float(growth)
    _check_kind(data)
    with backend.working():
        trainer = Trainer(settings, data.train, backend, initial, replicas)
        check_targets(settings, data.test, "test")
        test_rows = open_rows(data.test, backend, settings.dtype, trainer.arithmetic.for_inference())
        is_given = initial is not None or start is not None
        if start is None:
            digests = data.train.digest(), data.test.digest()
            chains = [first_link(replace(settings, seed=seed), *digests) for seed in trainer.seeds]
            start = trainer.checkpoints(-1, chains)
        else:
            trainer.restore(start)
    untrained = cache(partial(untrained_loss, trainer.objective, data.train, backend, settings.dtype))
    course = _Course(trainer, test_rows, tuple(start), stop, dict(learning_rates), growth, untrained)
    records = course.run(on_pretrained, rolls_back=on_divergence == "rollback")
    return Epochs(records, course.good if is_given else None, on_divergence, growth, settings)


@dataclass
class _Course:
    """A training as it goes on.

    Attributes
    ----------
    trainer : Trainer
    test_rows : Rows
    good : tuple of Checkpoint
        Every network at the last moment that is known to be good: the end of an epoch, or where the training began.
    stop, learning_rates, largest_growth
        As of `train`.
    untrained_loss : callable
        Returns that over all rows, with outputs of 0.
    """

    trainer: Trainer
    test_rows: Rows
    good: tuple[Checkpoint, ...]
    stop: Callable[[], bool]
    learning_rates: dict[int, float]
    largest_growth: float
    untrained_loss: Callable[[], float]

    def run(
        self, on_pretrained: Callable[[Pretrained], None] | None, *, rolls_back: bool
    ) -> Iterator[tuple[Epoch, ...]]:
        """Yield every network's record of every epoch."""
        start = self.good[0]
        if start.position[:2] == (0, 0) and start.pretrained < self.trainer.settings.n_pretraining_epochs:
            self._pretrain(on_pretrained)
        rollbacks: list[Rollback] = []
        n_rollbacks = 0
        while (epoch := self.good[0].position.epoch) < self.trainer.settings.epochs:
            self._may_stop()
            try:
                with self.trainer.backend.working():
                    records = self._run_epoch(epoch, rollbacks)
            except TrainingDiverged as error:
                n_rollbacks += 1
                can_roll_back = n_rollbacks <= MOST_ROLLBACKS and None not in self._beginnings()
                error.can_roll_back = can_roll_back and not rolls_back
                if rolls_back and n_rollbacks > MOST_ROLLBACKS:
                    error.args = (f"{error}; the learning rate was halved {MOST_ROLLBACKS} times already",)
                if not (rolls_back and can_roll_back):
                    raise
                rollbacks.append(self._roll_back(str(error)))
                continue
            except TrainingInterrupted as interruption:
                interruption.rollbacks = tuple(rollbacks)
                raise
            rollbacks = []
            yield records

    def _pretrain(self, on_pretrained: Callable[[Pretrained], None] | None) -> None:
        chains = [each.chain for each in self.good]
        with self.trainer.backend.working():
            for pretrained in self.trainer.pretrain(self._may_stop):
                losses = _by_network(pretrained.losses)
                where = f"pre-training of layer {pretrained.stage}, epoch {pretrained.epoch}, "
                self._check_losses(losses, where, None)
                first_losses = self._first_losses(losses)
                checkpoints = self.trainer.checkpoints(-1, chains, None, first_losses, pretrained)
                for i, checkpoint in enumerate(checkpoints):
                    self._check_tensors(checkpoint.tensors, f"{where}after the last step: ", losses, i, None)
                self.good = checkpoints
                if on_pretrained is not None:
                    on_pretrained(pretrained)
                self._may_stop()

    def _may_stop(self) -> None:
        if self.stop():
            raise TrainingInterrupted(self.good)

    def _roll_back(self, reason: str) -> Rollback:
        """Go back to the epoch's beginning and halve the learning rate."""
        rate = self.trainer.learning_rate / 2
        self.good = tuple(beginning for beginning in self._beginnings() if beginning is not None)
        self.trainer.restore(self.good)
        epoch = self.good[0].position.epoch
        self.learning_rates[epoch] = rate
        return Rollback(epoch, rate, reason)

    def _beginnings(self) -> list[Checkpoint | None]:
        """Return every network as the epoch began, None if that is not known."""
        return [each.beginning if each.position.step else each for each in self.good]

    def _run_epoch(self, epoch: int, rollbacks: Sequence[Rollback]) -> tuple[Epoch, ...]:
        """Train for an epoch, or for the rest of it; its end is then the last good moment."""
        begin, trainer = time.perf_counter(), self.trainer
        losses, last_piece = self._take_steps(epoch)
        evaluations = trainer.model.evaluate_each(self.test_rows)
        first_losses = self._first_losses(losses)
        records, checkpoints = [], []
        for i, (model, state) in enumerate(trainer.each()):
            numbers = dict(zip(NUMBERS, (epoch, mean(losses[i]), *evaluations[i]), strict=True))
            tensors = host_tensors(model.parameters, state, trainer.backend)
            where = f"epoch {epoch}, after the last step: "
            if not math.isfinite(test_loss := evaluations[i].loss):
                raise self._diverged(f"{where}the test loss is {test_loss}", losses, i, None, last_piece)
            self._check_tensors(tensors, where, losses, i, last_piece)
            digests = link(self.good[i].chain, numbers, losses[i], tensors)
            seconds = time.perf_counter() - begin
            checkpoints.append(Checkpoint(epoch, digests.chain, tensors, first_loss=first_losses[i]))
            records.append(
                Epoch(
                    **numbers,  # type: ignore[arg-type]
                    seconds=seconds,
                    step_losses=losses[i],
                    model=model,
                    optimizer_state=state,
                    digests=digests,
                    first_loss=first_losses[i],
                    rollbacks=tuple(rollbacks),
                )
            )
        self.good = tuple(checkpoints)
        return tuple(records)

    def _take_steps(self, epoch: int) -> tuple[NDArray[np.float64], Piece]:
        """Return the losses of an epoch's steps, shape (n_networks, n_steps), and the last piece of them."""
        trainer, where = self.trainer, f"epoch {epoch}, "
        losses = np.stack([each.losses for each in self.good])
        waiting: Piece | None = None
        if not losses.shape[1] and (rate := self.learning_rates.get(epoch)) is not None:
            trainer.loop.set_learning_rate(rate, trainer.settings.dtype)
        for piece in trainer.pieces(epoch, losses.shape[1]):
            # A device that works by itself is at this piece, while the losses of the one before are looked at.
            losses = self._join(losses, waiting, where)
            waiting = piece
            n_done = piece.first + piece.losses.shape[0]
            if n_done < trainer.n_steps and self.stop():
                losses = self._join(losses, piece, where)
                if self._find_divergence(losses[:, -STREAK:], self._first_losses(losses), n_steps=1):
                    raise TrainingInterrupted(self.good)  # it may be about to explode: nothing to go on from
                raise TrainingInterrupted(self._checkpoints_between(epoch, losses, piece))
        if waiting is None:
            raise RunError(f"the checkpoint has {losses.shape[1]} steps of epoch {epoch}, which has {trainer.n_steps}")
        return self._join(losses, waiting, where), waiting

    def _join(self, losses: NDArray[np.float64], piece: Piece | None, where: str) -> NDArray[np.float64]:
        """Return an epoch's losses so far and those of a piece, once they are there and found to be good."""
        if piece is None:
            return losses
        joined = np.concatenate([losses, _by_network(self.trainer.loop.losses([piece.losses]))], axis=1)
        self._check_losses(joined, where, piece)
        return joined

    def _checkpoints_between(self, epoch: int, losses: NDArray[np.float64], piece: Piece) -> tuple[Checkpoint, ...]:
        """Return where an epoch is that is not over."""
        chains = [each.chain for each in self.good]
        checkpoints = self.trainer.checkpoints(epoch - 1, chains, losses, self._first_losses(losses))
        for i, checkpoint in enumerate(checkpoints):
            self._check_tensors(checkpoint.tensors, f"epoch {epoch}, ", losses, i, piece)
        pairs = zip(checkpoints, self._beginnings(), strict=True)
        return tuple(replace(checkpoint, beginning=beginning) for checkpoint, beginning in pairs)

    def _first_losses(self, losses: NDArray[np.float64]) -> list[float | None]:
        """Return the very first loss of every network, given those of the epoch so far, or of a pre-training's."""
        if self.good[0].position == BEGINNING:
            return list(losses[:, 0].tolist())
        return [each.first_loss for each in self.good]

    def _find_divergence(
        self, losses: NDArray[np.float64], first_losses: Sequence[float | None], n_steps: int
    ) -> tuple[int, int, str] | None:
        return find_divergence(losses, first_losses, self.untrained_loss, self.largest_growth, n_steps)

    def _check_losses(self, losses: NDArray[np.float64], where: str, piece: Piece | None) -> None:
        """Refuse an epoch's batch losses so far, shape (n_networks, n_steps), if one of them is not good."""
        if found := self._find_divergence(losses, self._first_losses(losses), self.trainer.n_steps):
            i, step, what = found
            raise self._diverged(f"{where}step {step}: {what}", losses, i, step, piece)

    def _check_tensors(
        self, tensors: Mapping[str, NDArray[Any]], where: str, losses: NDArray[np.float64], i: int, piece: Piece | None
    ) -> None:
        """Refuse what the last step left, which no batch loss shows."""
        for name, tensor in tensors.items():
            if not (largest := float(np.max(np.abs(tensor)))) < LARGEST:
                raise self._diverged(f"{where}the largest of {name} is {largest}", losses, i, None, piece)

    def _diverged(
        self, what: str, losses: NDArray[np.float64], i: int, step: int | None, piece: Piece | None
    ) -> TrainingDiverged:
        """Return the error to raise for the i-th network; ``step`` is None for what comes after the last one."""
        trainer, parts = self.trainer, [what]
        if trainer.replicas is not None:
            parts = [f"seed {trainer.seeds[i]}: {what}"]
        if piece is not None:
            noticed = losses.shape[1] if step is None else step
            network = None if trainer.replicas is None else i
            is_first = self.good[0].position.epoch == 0
            parts.append(diagnose(trainer.loop, piece, losses[i], noticed, network, is_first_epoch=is_first))
        parts.append(
            f"try a smaller --learning-rate (now {trainer.learning_rate:g}), or scale the features (and the numbers of "
            "a regression) to magnitudes near 1 (--scale)"
        )
        error = TrainingDiverged("; ".join(parts))
        error.explodes = step is not None and math.isfinite(losses[i, step])
        return error


def check_is_split(data: object) -> None:
    """Refuse data that were not split.

    Raises
    ------
    SettingsError
    """
    if not isinstance(data, Split):
        raise SettingsError(f"data is a {type(data).__name__}: give what its split() returns")


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
