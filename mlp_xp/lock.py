"""A lock that keeps two processes from one folder. The system drops it with the process that holds it."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import weakref
from pathlib import Path

from mlp_xp import disk
from mlp_xp.errors import RunError
from mlp_xp.reading import open_regular

NAME = ".lock"
"""Of the file that is locked; it is there as long as somebody works in the folder, or was killed there."""
_PLACE = 1 << 30
"""The byte that Windows locks, beyond all that is written: others can still read who holds the lock."""


class FolderLock:
    """Holds a folder for this process until `release`, until it is garbage, or until the process ends in any way.

    Parameters
    ----------
    folder : path
        An existing one.

    Raises
    ------
    RunError
        If another one holds it; the text names the folder and the process.
    OSError
        If the lock's file cannot be opened or written.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / NAME
        while True:
            descriptor = disk.DISK.open_locked(path)
            try:
                if not _lock(descriptor):
                    raise _busy(folder)
                if _is_at(path, descriptor):  # and was not removed by its last holder between the two calls
                    disk.DISK.truncate(descriptor, 0)
                    disk.DISK.write(descriptor, memoryview(f"process {os.getpid()} on {platform.node()}\n".encode()))
                    break
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        self._path, self._descriptor = path, descriptor
        self._release = weakref.finalize(self, _unlock, path, descriptor, os.getpid())

    def check(self) -> None:
        """See that the folder's path still leads to what was locked: before each writing, which goes by the path.

        Raises
        ------
        RunError
            If it does not: another process may be at work there.
        OSError
            If the folder is gone, or cannot be looked into.
        """
        if not _is_at(self._path, self._descriptor):
            folder = self._path.parent
            folder.stat()
            raise RunError(
                f"{folder}: no longer the folder that this training began in: it was moved, removed or replaced, or "
                f"{NAME} in it was; nothing is written there; go on with the run from where it is now, with mlp-xp "
                "train --resume, or train again, with another --out"
            )

    def release(self) -> None:
        """Let others in; a second call does nothing."""
        self._release()


def refuse_busy(folder: Path) -> None:
    """Refuse a folder that another process, or this one, holds.

    Raises
    ------
    RunError
        If one does.
    """
    is_free = True
    with contextlib.suppress(OSError), open_regular(folder / NAME) as file:
        is_free = _lock(file.fileno(), shared=True)
    if not is_free:
        raise _busy(folder)


def _busy(folder: Path) -> RunError:
    return RunError(
        f"{folder}: another process is at work in this folder ({_holder(folder / NAME)}); wait until it is done, or "
        "stop it"
    )


def _unlock(path: Path, descriptor: int, maker: int) -> None:
    is_ours = False
    with contextlib.suppress(OSError):  # a forked child has the lock, too, but it is its parent's
        is_ours = os.getpid() == maker and _is_at(path, descriptor)
    if os.name != "posix":  # Windows removes no file that is open
        os.close(descriptor)
    if is_ours:
        with contextlib.suppress(OSError):
            disk.DISK.remove(path)
    if os.name == "posix":
        os.close(descriptor)


def _holder(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return file.read(200).decode(errors="replace").strip() or "it has just begun"
    except OSError:
        return "it has just begun"


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int, *, shared: bool = False) -> bool:  # noqa: ARG001 - Windows has no such lock
        """Tell whether the lock could be had, at once."""
        os.lseek(descriptor, _PLACE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _lock(descriptor: int, *, shared: bool = False) -> bool:
        """Tell whether the lock could be had, at once; a shared one is kept from nobody but who works."""
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
