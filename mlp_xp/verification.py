"""Verifying a recorded run: its files must agree with one another, and the training, done again, with them.

Digests find what was altered without computing anything; but whoever alters a run can make new digests too. So the
epochs asked for are trained again, from the nearest checkpoint before them, and compared to the last bit. In exact
arithmetic every backend must come to the same bits; in native arithmetic only the same library on a like machine.

What a training does not decide is not verified: when and how fast it was, versions, the picture. Nor are the epochs
that were not trained again: there, as for the checkpoint that was started from, the files agree, and that is all.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import product, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_xp.backend import Backend
from mlp_xp.checkpoint import LAYERS, OPTIMIZER, Checkpoint, select
from mlp_xp.datasets.dataset import Split
from mlp_xp.description import describe_data
from mlp_xp.digests import Digests, chain, digest_arrays, first_link
from mlp_xp.errors import Disagreement, RunError, SettingsError, TrainingDiverged
from mlp_xp.model import mean
from mlp_xp.recorded import (
    REMEDY,
    list_checkpoints,
    read_curve,
    read_description,
    read_source,
    read_steps,
    read_tensors,
    understanding,
)
from mlp_xp.run_folder import CURVE, RUN, STEPS, WEIGHTS, checkpoint_path
from mlp_xp.settings import Settings
from mlp_xp.training import NUMBERS, Epoch, train

if TYPE_CHECKING:
    from numpy.typing import NDArray

INTERRUPTED = "if the training was interrupted while it wrote the file, go on with it: mlp-xp train --resume RUN"


class RecordedRun:
    """A run folder's contents, read and checked for form, not yet for truth.

    Parameters
    ----------
    folder : path

    Attributes
    ----------
    settings : Settings
    source : DataSource or None
        Where the data came from; None if they were arrays of the library's user.
    data : dict
        What is said of the data, as `mlp_xp.description.describe_data` says it.
    sha256_start : str
        The chain's first link.
    backend, device : str
        Names of those that trained.
    curve : list of dict
        The lines of ``curve.jsonl``.
    steps : Steps
        The lines of ``steps.csv``.
    replicas : int
        How many networks were trained beside each other, this one among them.
    learning_rates : dict of int to float
        From an epoch on, which had diverged and was begun again with another one.
    backends : list of str
        All that trained, in order.
    checkpoints : list of int
        The epochs after which one was kept, in order.

    Raises
    ------
    RunError
        If a file is missing or cannot be read.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        description = read_description(self.folder)
        with understanding(self.folder / RUN, "a run with digests"):
            self.settings = Settings.from_dict(description["settings"])
            self.data: dict[str, Any] = description["data"]
            self.source = read_source(description)
            self.sha256_start = description["sha256_start"]
            self.backend, self.device = (str(description["backend"][name]) for name in ("name", "device"))
            self.replicas = int(description.get("replicas", 1))
            self.learning_rates = {
                int(each["epoch"]): float(each["learning_rate"]) for each in description.get("rollbacks", [])
            }
            went_on = [str(each["backend"]["name"]) for each in description.get("resumed", [])]
            self.backends = list(dict.fromkeys([self.backend, *went_on]))
        self.curve = read_curve(self.folder)
        if not self.curve:
            raise RunError(f"{self.folder / CURVE} is empty: no epoch of this run was finished; {REMEDY}")
        self.checkpoints = list_checkpoints(self.folder)
        self.steps = read_steps(self.folder)

    def digests(self, epoch: int) -> Digests:
        """Return what the curve says of an epoch."""
        return Digests(*(self.curve[epoch][f"sha256_{name}"] for name in Digests._fields))

    def losses(self, epoch: int) -> NDArray[np.float64]:
        """Return an epoch's batch losses."""
        return self.steps.of_epoch(epoch)

    def checkpoint_name(self, epoch: int) -> str:
        """Return where a checkpoint is, for people."""
        return checkpoint_path(self.folder, epoch).relative_to(self.folder).as_posix()

    def checkpoint(self, epoch: int) -> Checkpoint:
        """Return a checkpoint that was kept."""
        return Checkpoint(epoch, self.digests(epoch).chain, read_tensors(checkpoint_path(self.folder, epoch)))

    def learning_rate(self, epoch: int) -> float:
        """Return that of an epoch's last step."""
        begun = [first for first in self.learning_rates if first <= epoch]
        return self.learning_rates[max(begun)] if begun else self.settings.learning_rate

    def begin(self, first: int) -> int:
        """Return the epoch that training must begin with to reach ``first``: the one after the nearest checkpoint."""
        return max((epoch + 1 for epoch in self.checkpoints if epoch < first), default=0)


def check_files(run: RecordedRun, data: Split) -> None:
    """See that data, settings, curve, losses, checkpoints and weights are those that the digests cover.

    Raises
    ------
    Disagreement
        Says which file and what in it is not as it was recorded.
    """
    for name, found in describe_data(data).items():
        if (recorded := run.data.get(name)) != found:
            raise Disagreement(f"the data: {name} is {found!r}, but {RUN} says {reprlib.repr(recorded)}")
    if first_link(run.settings, run.data["sha256_train"], run.data["sha256_test"]) != run.sha256_start:
        raise Disagreement(f"{RUN}: sha256_start is not that of these settings and data: one of them was altered")
    if run.settings.batch_size > data.train.n_samples:
        raise Disagreement(f"{RUN}: batch_size = {run.settings.batch_size}, of {data.train.n_samples} training rows")
    for epoch, row in enumerate(run.curve):
        if row["epoch"] != epoch:
            raise Disagreement(f"{CURVE}, line {epoch + 1}: epoch {row['epoch']} where epoch {epoch} belongs")
    n_epochs, n_steps = len(run.curve), data.train.n_samples // run.settings.batch_size
    if n_epochs > run.settings.epochs:
        raise Disagreement(f"{CURVE} has {n_epochs} lines, but {RUN} asks for {run.settings.epochs} epochs")
    expected = product(range(n_epochs), range(n_steps))
    steps = zip(run.steps.epochs, run.steps.numbers, strict=True)
    for line, (step, wanted) in enumerate(zip_longest(steps, expected), start=2):
        if step != wanted:
            raise Disagreement(f"{STEPS}, line {line}: {_step(step)} where, by {CURVE}, {_step(wanted)} belongs")
    if run.checkpoints and (extra := run.checkpoints[-1]) >= n_epochs:
        raise Disagreement(f"{run.checkpoint_name(extra)} is there, but {CURVE} has no epoch {extra}; {INTERRUPTED}")
    previous = run.sha256_start
    for epoch in range(n_epochs):
        _check_epoch(run, epoch, previous)
        previous = run.digests(epoch).chain
    _check_weights(run)


def _step(step: tuple[int, int] | None) -> str:
    return "nothing" if step is None else f"step {step[1]} of epoch {step[0]}"


def _check_epoch(run: RecordedRun, epoch: int, previous: str) -> None:
    line, row, stated, losses = f"{CURVE}, line {epoch + 1}", run.curve[epoch], run.digests(epoch), run.losses(epoch)
    if digest_arrays({"losses": losses}) != stated.losses:
        raise Disagreement(f"{line}: sha256_losses is not that of the losses of epoch {epoch} in {STEPS}")
    if row["loss"] != mean(losses):
        raise Disagreement(f"{line}: the loss is {row['loss']!r}, but the mean of those in {STEPS} is {mean(losses)!r}")
    if epoch in run.checkpoints:
        tensors, name = run.checkpoint(epoch).tensors, run.checkpoint_name(epoch)
        if stray := sorted(set(tensors) - set(select(tensors, LAYERS)) - set(select(tensors, OPTIMIZER))):
            raise Disagreement(f"{name}: the tensor {stray[0]!r} is not of a training")
        for part in (LAYERS, OPTIMIZER):
            if digest_arrays(select(tensors, part)) != getattr(stated, part):
                raise Disagreement(f"{line}: sha256_{part} is not that of the tensors {part!r} in {name}")
        with np.errstate(over="ignore"):
            rate = np.asarray(run.learning_rate(epoch), run.settings.dtype)
        if not np.array_equal(tensors.get(f"{OPTIMIZER}.learning_rate", ()), rate):
            raise Disagreement(f"{name}: the learning rate is not the {rate} of {RUN}")
    if chain(previous, {name: row[name] for name in NUMBERS}, stated[:3]) != stated.chain:
        raise Disagreement(f"{line}: sha256_chain does not cover this line and the one before: one was altered")


def _check_weights(run: RecordedRun) -> None:
    weights, last = read_tensors(run.folder / WEIGHTS), len(run.curve) - 1
    if digest_arrays(weights) != run.digests(last).layers:
        where = ""
        if last in run.checkpoints:
            kept = select(run.checkpoint(last).tensors, LAYERS)
            where = f": {_first_difference(weights, kept, run.checkpoint_name(last))}"
        raise Disagreement(f"{WEIGHTS} does not hold the parameters after epoch {last}{where}; {INTERRUPTED}")


def verify(
    run: RecordedRun, data: Split, backend: Backend, *, first: int = 0, last: int | None = None
) -> Iterator[Epoch]:
    """Check a run's files, then train the epochs ``first`` to ``last`` again and compare them to the last bit.

    Parameters
    ----------
    run : RecordedRun
    data : Split
    backend : Backend
        Any; in native arithmetic the one that trained.
    first, last : int
        Epochs, from 0; by default all.

    Yields
    ------
    Epoch
        Every epoch that agrees, from `RecordedRun.begin` on.

    Raises
    ------
    SettingsError
        If there are no such epochs, or the run's settings cannot be trained with; raised by the call itself.
    RunError
        If a file cannot be read; raised by the call itself.
    Disagreement
        Of files, raised by the call itself, as `check_files` does; or of the training, which names the first epoch,
        step and tensor that differ.
    """
    last = len(run.curve) - 1 if last is None else last
    if not 0 <= first <= last < len(run.curve):
        raise SettingsError(f"epochs {first}-{last}: give a span of 0-{len(run.curve) - 1}, which the run has")
    check_files(run, data)
    before = run.begin(first) - 1
    start = None if before < 0 else run.checkpoint(before)
    try:
        # What exploded, or was tried in vain, is not to be tried again: only what came of it.
        how: dict[str, Any] = {"learning_rates": run.learning_rates, "largest_growth": math.inf}
        epochs = train(run.settings, data, backend, start=start, **how)
    except RunError as error:  # the checkpoint does not fit
        raise Disagreement(f"{run.checkpoint_name(before)} and {RUN}: {error}") from error
    return _compared(run, epochs, last)


def _compared(run: RecordedRun, epochs: Iterable[Epoch], last: int) -> Iterator[Epoch]:
    try:
        for again in epochs:
            _compare(run, again)
            yield again
            if again.epoch == last:
                return
    except TrainingDiverged as error:
        what, _, _ = str(error).partition(";")  # what follows is advice for whoever trains
        raise Disagreement(f"{what}, but the record goes on") from error


def _compare(run: RecordedRun, again: Epoch) -> None:
    epoch, row, losses, stated = again.epoch, run.curve[again.epoch], run.losses(again.epoch), run.digests(again.epoch)
    if (different := np.flatnonzero(losses != again.step_losses)).size:
        step = int(different[0])
        found, recorded = again.step_losses[step].item(), losses[step].item()
        raise Disagreement(f"epoch {epoch}, step {step}: the loss is {found!r}, but {STEPS} says {recorded!r}")
    for part in (LAYERS, OPTIMIZER):
        if getattr(again.digests, part) != getattr(stated, part):
            where = _where(run, again, part)
            raise Disagreement(
                f"epoch {epoch}, after its last step: the tensors {part!r} are not those recorded{where}"
            )
    for name in NUMBERS:
        if (found := getattr(again, name)) != row[name]:
            raise Disagreement(f"epoch {epoch}: {name} is {found!r}, but {CURVE} says {row[name]!r}")


def _where(run: RecordedRun, again: Epoch, part: str) -> str:
    """Return the first difference of an epoch's tensors, if a file has them."""
    found = select(again.checkpoint().tensors, part)
    if again.epoch in run.checkpoints:
        kept = select(run.checkpoint(again.epoch).tensors, part)
        return f": {_first_difference(found, kept, run.checkpoint_name(again.epoch))}"
    if part == LAYERS and again.epoch == len(run.curve) - 1:
        return f": {_first_difference(found, read_tensors(run.folder / WEIGHTS), WEIGHTS)}"
    return ""


def _first_difference(found: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]], source: str) -> str:
    """Return where tensors of unequal digests differ from those of ``source``."""
    return next(_differences(found, other, source))


def _differences(found: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]], source: str) -> Iterator[str]:
    for name in sorted(found.keys() | other.keys()):
        if name not in other:
            yield f"{name} is not in {source}"
        elif name not in found:
            yield f"{name} is in {source} alone"
        elif _kind(found[name]) != _kind(other[name]):
            yield f"{name} is {_kind(found[name])}, but {_kind(other[name])} in {source}"
        else:
            for index in np.argwhere(found[name] != other[name]):
                place = tuple(index.tolist())
                left, right = (tensors[name][place].item() for tensors in (found, other))
                yield f"{name}{list(place) or ''} is {left!r}, but {right!r} in {source}"


def _kind(tensor: NDArray[Any]) -> str:
    return f"{tensor.dtype} of shape {tensor.shape}"
