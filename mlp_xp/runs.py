"""Recording a training: its run folder (see `mlp_xp.run_folder`) is written while it goes on."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mlp_xp.backend import Backend
from mlp_xp.datasets.dataset import Split
from mlp_xp.datasets.source import DataSource
from mlp_xp.description import describe_run
from mlp_xp.epochs import as_epochs
from mlp_xp.errors import RunError
from mlp_xp.files import make_folder, writing
from mlp_xp.lock import FolderLock
from mlp_xp.run_folder import CHECKPOINTS, FILES, REPLICA, REPLICAS, RUN, resume_command
from mlp_xp.run_writer import RunWriter, begin, recorded
from mlp_xp.settings import Settings
from mlp_xp.training import Epoch


def record(
    folder: Path | str,
    settings: Settings,
    data: Split,
    backend: Backend,
    epochs: Iterable[Epoch],
    *,
    source: DataSource | None = None,
    checkpoint_every: int = 1,
    keep_checkpoints: int | None = None,
    overwrite: bool = False,
) -> Iterator[Epoch]:
    """Write a run folder while a training goes on, and hand every epoch on.

    The folder is made and locked, ``run.json`` written and an old run's other files removed by this call itself; the
    rest follows as epochs are drawn from the iterator it returns. The lock is held until that is exhausted, closed or
    garbage. `mlp_xp.resuming.resume` goes on with what was recorded.

    Parameters
    ----------
    folder : path
        Made if need be.
    settings, data, backend
        What `mlp_xp.training.train` was given.
    epochs : iterable of Epoch
        What it returned, itself: others do not tell of given parameters, without which nothing could go on before the
        first checkpoint, nor of what is to be done if the training diverges.
    source : DataSource, optional
        What ``data`` were loaded from, so that they can be loaded again; None for arrays of one's own.
    checkpoint_every : int
        Write a checkpoint after every so many epochs, and after the last, from which the training can go on and
        `mlp_xp.verification.verify` can start; 0 for none.
    keep_checkpoints : int, optional
        Keep so many of the newest, and the one with the least test loss; 0 for all. By default
        `mlp_xp.description.NEWEST`, but all in exact arithmetic, whose runs can be verified on other machines.
    overwrite : bool
        Whether a run that is already there may be replaced. It is gone as soon as this call returns, not only when
        the new one has finished an epoch; if ``run.json`` cannot be written, it stays as it was.

    Raises
    ------
    RunError
        If the folder holds a run already, another process is at work in it, or it cannot be written.
    SettingsError
        If ``checkpoint_every`` or ``keep_checkpoints`` is negative, the first epoch is another than epoch 0, or the
        settings are not those that the epochs are trained with.
    """
    folder, epochs = Path(folder), as_epochs(epochs)
    description = describe_run(settings, data, backend, epochs, source, checkpoint_every, keep_checkpoints)
    lock = take_folder(folder, overwrite)
    try:
        writer = RunWriter(folder, lock, description)
        begin([writer], epochs)
    except BaseException:
        lock.release()
        raise
    return recorded(lock, [writer], Alone(writer), epochs)


class Alone(NamedTuple):
    """What is written besides the only network's folder: nothing, but its picture is drawn at the end."""

    writer: RunWriter

    def write(self) -> None:
        """Add nothing."""

    def finish(self) -> None:
        """Draw the picture."""
        self.writer.finish()


def take_folder(folder: Path, overwrite: bool) -> FolderLock:
    """Lock a folder, made if need be, that holds no run, or one that may be replaced.

    Raises
    ------
    RunError
        If it holds one that may not, cannot be locked, or cannot be written.
    """
    check_free(folder, overwrite)
    with writing(folder):
        make_folder(folder)
        lock = FolderLock(folder)
    try:
        check_free(folder, overwrite)  # another process may just have left
    except BaseException:
        lock.release()
        raise
    return lock


def check_free(folder: Path, overwrite: bool, *, whole: Path | None = None) -> None:
    """Refuse a folder that holds a run already, unless that may be replaced, and one of replicas, unless it is theirs.

    Parameters
    ----------
    folder : path
    overwrite : bool
    whole : path, optional
        The folder of the replicas to which it belongs.

    Raises
    ------
    RunError
        If it does, or cannot be looked into.
    """
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a folder")
        if whole is None and folder.name.startswith(REPLICA) and (folder.parent / REPLICAS).exists():
            raise RunError(f"{folder} belongs to the replicas of {folder.parent}; choose another --out")
        taken = any((folder / name).exists() for name in (*FILES, CHECKPOINTS))
    if taken and not overwrite:
        how = ""
        if any((folder / name).exists() for name in (RUN, REPLICAS)):
            how = f", or go on with it: {resume_command(folder)}"
        raise RunError(f"{folder} already holds a run; choose another --out, or replace it with --overwrite{how}")
