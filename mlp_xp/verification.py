"""Verifying a recorded run: its files must agree with one another, and the training, done again, with them.

Digests find what was altered without computing anything; but whoever alters a run can make new digests too. So the
epochs asked for are trained again, from the nearest checkpoint before them, and compared to the last bit. In exact
arithmetic every backend must come to the same bits; in native arithmetic only the same library on a like machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_xp.backend import Backend
from mlp_xp.checkpoint import LAYERS, Checkpoint
from mlp_xp.datasets.dataset import Split
from mlp_xp.datasets.source import DataSource
from mlp_xp.digests import Digests, chain, digest_arrays, first_link, link
from mlp_xp.errors import Disagreement, MLPXPError, RunError, SettingsError
from mlp_xp.model import mean
from mlp_xp.recorded import read_curve, read_description, read_steps, read_tensors
from mlp_xp.runs import CURVE, RUN, STEPS, WEIGHTS, checkpoint_path
from mlp_xp.settings import Settings
from mlp_xp.training import Epoch, train

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUMBERS = ("epoch", "loss", "test_loss", "accuracy")


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
    curve : list of dict
    steps : dict of ndarray
        Epoch -> its batches' losses.

    Raises
    ------
    RunError
        If a file is missing or cannot be read.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        description = read_description(self.folder)
        try:
            self.settings = Settings.from_dict(description["settings"])
            data = description["data"]
            self.source = None if data["source"] is None else DataSource.from_dict(data["source"])
            self.sha256_data = (str(data["sha256_train"]), str(data["sha256_test"]))
            self.sha256_start = str(description["sha256_start"])
        except KeyError as error:
            raise RunError(f"{self.folder / RUN}: {error} is missing") from error
        except (TypeError, MLPXPError) as error:
            raise RunError(f"{self.folder / RUN}: {error}") from error
        self.curve = read_curve(self.folder)
        self.steps = read_steps(self.folder)
        if not self.curve:
            raise RunError(f"{self.folder / CURVE} is empty: no epoch of this run was finished")

    def digests(self, epoch: int) -> Digests:
        """Return what the curve says of an epoch."""
        return Digests(*(self.curve[epoch][f"sha256_{name}"] for name in Digests._fields))

    def losses(self, epoch: int) -> NDArray[np.float64]:
        """Return an epoch's batch losses."""
        return self.steps.get(epoch, np.zeros(0))

    def tensors(self, epoch: int) -> dict[str, NDArray[Any]] | None:
        """Return an epoch's checkpoint, or None if it was not kept."""
        path = checkpoint_path(self.folder, epoch)
        return read_tensors(path) if path.exists() else None


def check_files(run: RecordedRun, data: Split) -> None:
    """See that data, settings, curve, losses, checkpoints and weights are those that the digests cover.

    Raises
    ------
    Disagreement
        Says which file and what in it is not as it was recorded.
    """
    for part, samples, recorded in zip(("training", "test"), data, run.sha256_data, strict=True):
        if (found := samples.digest()) != recorded:
            raise Disagreement(
                f"the {part} rows are not those of the run: SHA-256 {_short(found)}, {RUN} says {_short(recorded)}"
            )
    if first_link(run.settings, *run.sha256_data) != run.sha256_start:
        raise Disagreement(f"{RUN}: the settings or the data's digests are not those that the run started with")
    if len(run.curve) > run.settings.epochs:
        raise Disagreement(f"{CURVE} has {len(run.curve)} lines, but {RUN} asks for {run.settings.epochs} epochs")
    previous = run.sha256_start
    for epoch, row in enumerate(run.curve):
        _check_epoch(run, epoch, row, previous)
        previous = row["sha256_chain"]
    weights = read_tensors(run.folder / WEIGHTS)
    if digest_arrays(weights) != run.digests(len(run.curve) - 1).layers:
        last = run.tensors(len(run.curve) - 1)
        where = "" if last is None else f": {_first_difference(weights, last)}"
        raise Disagreement(f"{WEIGHTS} does not hold the parameters after epoch {len(run.curve) - 1}{where}")
    if extra := sorted(set(run.steps) - set(range(len(run.curve)))):
        raise Disagreement(f"{STEPS} has steps of epoch {extra[0]}, which {CURVE} has not")


def _check_epoch(run: RecordedRun, epoch: int, row: Mapping[str, Any], previous: str) -> None:
    line, stated, losses = f"{CURVE}, line {epoch + 1}", run.digests(epoch), run.losses(epoch)
    if row["epoch"] != epoch:
        raise Disagreement(f"{line}: epoch {row['epoch']} stands where epoch {epoch} should")
    if digest_arrays({"losses": losses}) != stated.losses:
        raise Disagreement(f"{STEPS}: the losses of epoch {epoch} are not those that {line} was written with")
    if row["loss"] != mean(losses):
        raise Disagreement(f"{line}: the loss is {row['loss']!r}, but the mean of {STEPS} is {mean(losses)!r}")
    if (tensors := run.tensors(epoch)) is not None:
        found = link(previous, {}, losses, tensors)
        for name in ("layers", "optimizer"):
            if getattr(found, name) != getattr(stated, name):
                path = checkpoint_path(run.folder, epoch).relative_to(run.folder)
                raise Disagreement(f"{path}: its tensors {name!r} are not those that {line} was written with")
    if chain(previous, {name: row[name] for name in NUMBERS}, stated[:3]) != stated.chain:
        raise Disagreement(f"{line}: its numbers or digests are not those that its chain covers")


def verify(
    run: RecordedRun, data: Split, backend: Backend, *, first: int = 0, last: int | None = None
) -> Iterator[Epoch]:
    """Train the epochs ``first`` to ``last`` again and compare them with the record, to the last bit.

    Parameters
    ----------
    run : RecordedRun
        Its files must have passed `check_files`.
    data : Split
    backend : Backend
        Any; in native arithmetic the one that trained.
    first, last : int
        Epochs, from 0; by default all.

    Yields
    ------
    Epoch
        Every epoch that agrees, those between the nearest checkpoint and ``first`` included.

    Raises
    ------
    SettingsError
        If there are no such epochs.
    Disagreement
        Names the first epoch, step and tensor that differ.
    """
    last = len(run.curve) - 1 if last is None else last
    if not 0 <= first <= last < len(run.curve):
        raise SettingsError(f"epochs {first}-{last}: the run has the epochs 0-{len(run.curve) - 1}")
    start = None
    for epoch in range(first - 1, -1, -1):
        if (tensors := run.tensors(epoch)) is not None:
            start = Checkpoint(epoch, run.digests(epoch).chain, tensors)
            break
    for again in train(run.settings, data, backend, start=start):
        _compare(run, again)
        yield again
        if again.epoch == last:
            return


def _compare(run: RecordedRun, again: Epoch) -> None:
    epoch, row, losses = again.epoch, run.curve[again.epoch], run.losses(again.epoch)
    if losses.shape != again.step_losses.shape:
        raise Disagreement(f"epoch {epoch}: {again.step_losses.size} steps, but {STEPS} has {losses.size}")
    if (different := np.flatnonzero(losses != again.step_losses)).size:
        step = int(different[0])
        raise Disagreement(
            f"epoch {epoch}, step {step}: the loss is {again.step_losses[step]!r}, but {STEPS} says {losses[step]!r}"
        )
    stated = run.digests(epoch)
    for name in ("layers", "optimizer"):
        if getattr(again.digests, name) != getattr(stated, name):
            recorded = run.tensors(epoch)
            where = "" if recorded is None else f": {_first_difference(again.checkpoint().tensors, recorded)}"
            what = "parameters" if name == LAYERS else "optimiser's state"
            raise Disagreement(f"epoch {epoch}, after its last step: the {what} differ{where}")
    for name in NUMBERS:
        if getattr(again, name) != row[name]:
            found = getattr(again, name)
            raise Disagreement(f"epoch {epoch}: {name} is {found!r}, but {CURVE} says {row[name]!r}")


def _first_difference(found: Mapping[str, NDArray[Any]], recorded: Mapping[str, NDArray[Any]]) -> str:
    for name in found:
        if name not in recorded or found[name].shape != recorded[name].shape:
            return f"{name} is not there, or of another shape"
        if (different := np.argwhere(found[name] != recorded[name])).size:
            place = tuple(map(int, different[0]))
            return f"{name}{list(place)} is {found[name][place].item()!r}, recorded {recorded[name][place].item()!r}"
    return "a tensor is missing"


def _short(digest: str) -> str:
    return f"{digest[:16]}…"
