"""Writing a run folder, epoch by epoch, so that whatever happens the training can go on from its last checkpoint.

An epoch's lines and weights are on the disk before its checkpoint is, and no checkpoint goes before a newer one is
there. So what a checkpoint needs is there if it is; what is beyond it, a training that goes on replaces.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np

from mlp_xp import disk
from mlp_xp.checkpoint import BEGINNING, LAYERS, Checkpoint, Position, select
from mlp_xp.checkpoint_files import list_positions, place, remove_all_but, write_checkpoint
from mlp_xp.divergence import Rollback
from mlp_xp.epochs import Epochs
from mlp_xp.errors import RunError, TrainingInterrupted
from mlp_xp.files import (
    append,
    keep_lines,
    make_folder,
    refuse_link,
    remove_leftovers,
    write_atomically,
    writing,
)
from mlp_xp.lock import FolderLock
from mlp_xp.recorded import raise_passing, read_description, read_replicas
from mlp_xp.replicas import ReplicatedEpoch
from mlp_xp.run_folder import (
    CHECKPOINTS,
    CURVE,
    FILES,
    PICTURE,
    REPLICA,
    REPLICAS,
    RUN,
    STEPS,
    STEPS_HEADER,
    WEIGHTS,
    how_to_go_on,
)
from mlp_xp.tensor_files import tensor_bytes
from mlp_xp.training import Epoch

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Past(NamedTuple):
    """What a training that goes on has behind it.

    Attributes
    ----------
    checkpoint : Checkpoint or None
        Where it goes on; None for its beginning.
    curve : list of dict
        The lines of ``curve.jsonl`` up to there.
    losses : list of ndarray of float64
        The epochs' batch losses up to there.
    """

    checkpoint: Checkpoint | None = None
    curve: Sequence[dict[str, Any]] = ()
    losses: Sequence[NDArray[np.float64]] = ()


class RunWriter:
    """Writes a run folder, epoch by epoch.

    Parameters
    ----------
    folder : path
        Made if need be; an old run in it is removed, unless it goes on.
    lock : FolderLock
        Of the folder, or of that of all replicas: held as long as this one writes.
    description : dict
        What ``run.json`` says; among it how checkpoints are kept.
    past : Past, optional
        Of a run that goes on.
    whole : path, optional
        The folder of replicas that this one belongs to, if it does.

    Raises
    ------
    RunError
        If a file cannot be written, or the folder is no longer the one that is locked; also by the methods.
    """

    def __init__(
        self,
        folder: Path,
        lock: FolderLock,
        description: dict[str, Any],
        past: Past | None = None,
        *,
        whole: Path | None = None,
    ) -> None:
        self.folder, self._lock, self._description, self._whole = folder, lock, description, whole
        self.curve = [] if past is None else list(past.curve)
        self.losses = [] if past is None else list(past.losses)
        self._every: int = description["checkpoints"]["every"]
        self._newest: int = description["checkpoints"]["newest"]
        self._has_begun = past is not None
        start = None if past is None else past.checkpoint
        self._has_interrupted = start is not None and not start.position.is_between_epochs
        with self._writing():
            if past is None:
                begin_folder(folder, RUN, description)
            else:
                self._take_up(past)
            if not (folder / STEPS).exists():
                write_atomically(folder / STEPS, f"{STEPS_HEADER}\n".encode())
        self._has_begun = True

    def _take_up(self, past: Past) -> None:
        """Make the folder what it was when the checkpoint was written, but for ``run.json``, which may say more."""
        checkpoint, folder = past.checkpoint, self.folder
        make_folder(folder)
        remove_leftovers(folder)
        write_atomically(folder / RUN, json_bytes(self._description))
        if _is_folder(folder / CHECKPOINTS):
            remove_leftovers(folder / CHECKPOINTS)
            remove_all_but(folder, {*_ends(range(len(self.curve))), *_needed(checkpoint)})
        if not self.curve:
            for name in (CURVE, STEPS, WEIGHTS):  # of which any may have been begun, and no more
                disk.DISK.remove(folder / name)
            return
        keep_lines(folder / CURVE, len(self.curve))
        keep_lines(folder / STEPS, 1 + sum(map(len, self.losses)))
        if checkpoint is not None and (end := checkpoint.beginning if checkpoint.position.step else checkpoint):
            write_atomically(folder / WEIGHTS, tensor_bytes(select(end.tensors, LAYERS)))

    def begin(self, checkpoint: Checkpoint) -> None:
        """Write where a training begins that does not begin where its settings say."""
        with self._writing():
            for each in (checkpoint.beginning, checkpoint):
                if each is not None:
                    self._write_checkpoint(each)
        self._has_interrupted = True

    def write(self, epoch: Epoch) -> None:
        """Add an epoch."""
        folder, checkpoint = self.folder, epoch.checkpoint()
        due = self._is_due(epoch.epoch)
        with self._writing():
            self._note(epoch.rollbacks)
            append(folder / STEPS, _steps(epoch.epoch, epoch.step_losses), durable=due)
            append(folder / CURVE, line_bytes(epoch.row()), durable=due)
            write_atomically(folder / WEIGHTS, tensor_bytes(select(checkpoint.tensors, LAYERS)))
            if due:
                self._write_checkpoint(checkpoint)
        self.curve.append(epoch.row())
        self.losses.append(epoch.step_losses)

    def _is_due(self, epoch: int) -> bool:
        """Tell whether a checkpoint is written after an epoch; if any are, one is after the last."""
        is_last = epoch + 1 == self._description["settings"]["epochs"]
        return self._every > 0 and (is_last or (epoch + 1) % self._every == 0)

    def _note(self, rollbacks: Sequence[Rollback]) -> None:
        if rollbacks:
            self._description["rollbacks"] += [rollback._asdict() for rollback in rollbacks]
            write_atomically(self.folder / RUN, json_bytes(self._description))

    def keep(self, checkpoint: Checkpoint, rollbacks: Sequence[Rollback]) -> None:
        """Write a checkpoint at which the training stops, and that of its epoch's beginning, unless they are there."""
        wanted = [each for each in (checkpoint.beginning, checkpoint) if each is not None]
        with self._writing():
            # One within an epoch may be of a try that was rolled back.
            missing = [each for each in wanted if each.position.step or not place(self.folder, each.position).exists()]
            if checkpoint.position == BEGINNING or not missing:
                return
            self._note(rollbacks)
            for name in (STEPS, CURVE) if self.curve else ():
                append(self.folder / name, b"", durable=True)  # what was not urgent before
            for each in missing:
                self._write_checkpoint(each)

    def settle(self, checkpoint: Checkpoint) -> None:
        """Remove the checkpoints of earlier stops within an epoch, once all that `keep` wrote are there."""
        ends = [position for position in list_positions(self.folder) if position.is_between_epochs]
        with self._writing():
            remove_all_but(self.folder, {*ends, *_needed(checkpoint)})

    def _write_checkpoint(self, checkpoint: Checkpoint) -> None:
        if not _is_folder(self.folder / CHECKPOINTS):
            disk.DISK.make_folder(self.folder / CHECKPOINTS)
        write_checkpoint(self.folder, checkpoint, self._description["id"])

    def prune(self) -> None:
        """Remove checkpoints that are neither among the newest nor the best."""
        n_epochs = len(self.curve)
        if n_epochs == 0 or not self._is_due(n_epochs - 1):
            return
        kept = set(range(n_epochs))
        if self._newest:
            due = [epoch for epoch in range(n_epochs) if self._is_due(epoch)]
            best = min(due, key=lambda epoch: (self.curve[epoch]["test_loss"], epoch))
            kept = {*due[-self._newest :], best}
        elif not self._has_interrupted:
            return  # all stay, and to look for others would take the longer the more there are
        with self._writing():
            remove_all_but(self.folder, _ends(kept))
        self._has_interrupted = False

    def end(self) -> None:
        """Leave the checkpoints that a training leaves that never stopped."""
        self.prune()
        if self._every == 0:
            with self._writing():
                remove_all_but(self.folder, ())

    def finish(self) -> None:
        """Draw the picture, if there is anything to draw."""
        if self.curve:
            from mlp_xp.plots import plot_run, png  # matplotlib is slow to import, and comes last

            figure = plot_run(np.concatenate(self.losses), self.curve, title(self._description))
            with self._writing():
                write_atomically(self.folder / PICTURE, png(figure))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with writing(self.folder, remedy=partial(remedy, self._whole or self.folder) if self._has_begun else None):
            self._lock.check()
            if self._whole is not None:
                refuse_link(self.folder)
            yield


def _ends(epochs: Iterable[int]) -> set[Position]:
    """Return the moments at which these epochs are over."""
    return {Position(epoch + 1, 0) for epoch in epochs}


def _needed(checkpoint: Checkpoint | None) -> set[Position]:
    """Return the moments whose checkpoints are needed to go on from one."""
    return {each.position for each in (checkpoint, checkpoint and checkpoint.beginning) if each is not None}


class Whole(Protocol):
    """What is written besides many networks' own folders."""

    def write(self) -> None:
        """Add the epoch that all writers have."""

    def finish(self) -> None:
        """Draw the picture."""


AnyEpoch = TypeVar("AnyEpoch", Epoch, ReplicatedEpoch)


def begin(writers: Sequence[RunWriter], epochs: Epochs[Any]) -> None:
    """Write where every network begins, if a training does not begin where its settings say.

    Raises
    ------
    RunError
        If it cannot be written.
    """
    if epochs.start is not None:
        for writer, checkpoint in zip(writers, epochs.start, strict=True):
            writer.begin(checkpoint)


def recorded(
    lock: FolderLock, writers: Sequence[RunWriter], whole: Whole, epochs: Iterable[AnyEpoch]
) -> Iterator[AnyEpoch]:
    """Write epochs as they come, and hand them on; however that ends, the lock is released.

    Raises
    ------
    RunError
        If a file cannot be written, or the folder is no longer the one that is locked.
    """
    try:
        for epoch in epochs:
            each = epoch.replicas if isinstance(epoch, ReplicatedEpoch) else (epoch,)
            for writer, one in zip(writers, each, strict=True):
                writer.write(one)
            whole.write()
            for writer in writers:  # not before all have the new one
                writer.prune()
            yield epoch
    except BaseException as error:
        if isinstance(error, TrainingInterrupted):
            for writer, checkpoint in zip(writers, error.checkpoints, strict=True):
                writer.keep(checkpoint, error.rollbacks)
            for writer, checkpoint in zip(writers, error.checkpoints, strict=True):  # not before all have theirs
                writer.settle(checkpoint)
        # Python that is ending imports nothing any more: a loop that was left, whose epochs still had a name.
        if not sys.is_finalizing():
            with contextlib.suppress(RunError):  # the other error is the one to tell of
                whole.finish()
        raise
    else:
        for writer in writers:
            writer.end()
        whole.finish()
    finally:
        lock.release()


def remedy(folder: Path) -> str:
    """Return what to do about a run whose files cannot be written."""
    return how_to_go_on(folder, "when that is mended, ")


def title(description: Mapping[str, Any]) -> str:
    """Return what is written above the picture of a run that is described so."""
    return f"{description['data']['name']} on {description['backend']['name']}"


def begin_folder(folder: Path, name: str, description: Mapping[str, Any]) -> None:
    """Make a folder if need be, write its first file, and remove all other files of an old run.

    Raises
    ------
    OSError
        If the file cannot be written: an old run is then still whole.
    """
    make_folder(folder)
    remove_leftovers(folder)
    replicas = _replicas(folder)
    write_atomically(folder / name, json_bytes(description))
    disk.DISK.remove(folder / (RUN if name == REPLICAS else REPLICAS))  # first: both would tell of two runs
    _clear(folder, [other for other in FILES if other != name])
    for replica in replicas:
        _clear(replica, FILES)
        with contextlib.suppress(OSError):
            replica.rmdir()


def _replicas(folder: Path) -> list[Path]:
    """Return the folders of an old run's replicas: not those of other runs that only have such names."""
    run = _id(read_replicas, folder) if (folder / REPLICAS).exists() else None
    paths = [path for path in folder.glob(f"{REPLICA}*/") if re.fullmatch("[0-9]+", path.name[len(REPLICA) :])]
    return [path for path in paths if run is not None and not path.is_symlink() and _id(read_description, path) == run]


def _id(read: Callable[[Path], dict[str, Any]], folder: Path) -> object:
    """Return what tells a run from any other one, None if it does not say."""
    try:
        return read(folder).get("id")
    except RunError as error:
        raise_passing(error)
        return None


def _clear(folder: Path, names: Iterable[str]) -> None:
    """Remove files and checkpoints; what else the user keeps there stays."""
    for name in names:
        disk.DISK.remove(folder / name)
    if _is_folder(folder / CHECKPOINTS):
        remove_leftovers(folder / CHECKPOINTS)
        remove_all_but(folder, ())
        with contextlib.suppress(OSError):
            (folder / CHECKPOINTS).rmdir()


def _is_folder(path: Path) -> bool:
    """Tell whether there is a folder, and refuse a link."""
    refuse_link(path)
    return path.is_dir()


def json_bytes(description: Mapping[str, Any]) -> bytes:
    """Return a description as the files have it."""
    return (json.dumps(description, indent=2) + "\n").encode()


def line_bytes(row: Mapping[str, Any]) -> bytes:
    """Return a line of ``curve.jsonl``."""
    return (json.dumps(row) + "\n").encode()


def _steps(epoch: int, losses: NDArray[np.float64]) -> bytes:
    return "".join(f"{epoch},{step},{loss!r}\n" for step, loss in enumerate(losses.tolist())).encode()
