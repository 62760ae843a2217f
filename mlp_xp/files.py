"""Writing files so that a reader sees the old content or the new, never a part of it, also after a crash."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from mlp_xp import disk
from mlp_xp.errors import RunError
from mlp_xp.reading import open_regular

_LEFTOVER = re.compile(r"\.[^/]+\.[0-9a-f]{16}\.mlp_xp")
"""Names of files that are written beside others, and of those that `make_folder` tries; nobody else has such names."""


@contextlib.contextmanager
def writing(
    path: Path | str, option: str = "--out", *, remedy: str | Callable[[], str] | None = None
) -> Iterator[None]:
    """Say what could not be written, why, and what to do: which option names another place, or else the remedy.

    Raises
    ------
    RunError
        For every `OSError` inside the ``with`` block that is none of the project's own.
    """
    try:
        yield
    except RunError:
        raise
    except OSError as error:
        problem = f"{error.filename or path}: cannot be written: {error.strerror or error}"
        advice = remedy() if callable(remedy) else remedy or f"choose another {option}"
        raise RunError(f"{problem}; {advice}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file by new content: written beside it, flushed to the disk, then renamed over it.

    Raises
    ------
    OSError
        If it cannot be written; the old file is then still whole and nothing is left beside it.
    """
    if path.is_dir():  # also "." and "/", which have no name to write beside
        raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file", str(path))
    temporary = _beside(path)
    try:
        descriptor = disk.DISK.create(temporary)
        try:
            _write_all(descriptor, content)
            disk.DISK.sync(descriptor)
        finally:
            os.close(descriptor)
        disk.DISK.rename(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            disk.DISK.remove(temporary)
        if isinstance(error, OSError):
            _name(error, path)
        raise
    disk.DISK.sync_folder(path.parent)


def write_output(path: Path, content: bytes) -> None:
    """Write a file that a user named: as a whole, unless it is a device or a pipe, which nothing may take the place of.

    A link stays, and what it leads to is replaced; what a process has open, as ``/dev/stdout``, is added to.

    Raises
    ------
    OSError
        If it cannot be written; an old file is then still whole.
    """
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    is_open = path.absolute().is_relative_to("/proc") or str(path.absolute()) in ("/dev/stdout", "/dev/stderr")
    if is_open or (target.exists() and not target.is_file() and not target.is_dir()):
        with path.open("ab") as file:
            file.write(content)
    else:
        write_atomically(target, content)


def _name(error: OSError, path: Path) -> None:
    """Let an error name the file that was asked for, not the one beside it."""
    if error.filename is not None:
        error.filename, error.filename2 = str(path), None


def _beside(path: Path) -> Path:
    """Return a name that no other file has."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.mlp_xp")


def refuse_link(path: Path) -> None:
    """Refuse to write through a link in a folder that a stranger may have made: it may lead anywhere.

    Raises
    ------
    OSError
        If it is one.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, f"{path.name} in it is a link to another place", str(path))


def append(path: Path, content: bytes, *, durable: bool) -> None:
    """Add to a file's end, or begin it.

    Parameters
    ----------
    durable : bool
        Whether to wait until the disk has it.

    Raises
    ------
    OSError
        If it cannot be written, or is a link; the file then ends where it did before, if the disk lets it.
    """
    refuse_link(path)
    descriptor = disk.DISK.open_end(path)
    try:
        size = os.fstat(descriptor).st_size
        try:
            _write_all(descriptor, content)
            if durable:
                disk.DISK.sync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                disk.DISK.truncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def keep_lines(path: Path, n: int) -> None:
    """Cut off what comes after a file's first n lines, which it has.

    Raises
    ------
    OSError
        If it cannot be written, or is a link; it is then still whole.
    """
    refuse_link(path)
    with open_regular(path) as file:
        kept = b"".join(itertools.islice(file, n))  # what comes after may not fit into memory
        is_longer = bool(file.read(1))
    is_whole = kept.endswith(b"\n")  # the last line may lack its end alone
    if is_longer or not is_whole:
        write_atomically(path, kept if is_whole else kept + b"\n")


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[disk.DISK.write(descriptor, rest) :]


def remove_leftovers(folder: Path) -> None:
    """Remove what a process that was killed while it wrote has left beside its files."""
    for path in folder.iterdir():
        if _LEFTOVER.fullmatch(path.name) and not path.is_dir():
            disk.DISK.remove(path)


def make_folder(folder: Path) -> None:
    """Make a folder if need be, and see that files can be written there, before hours of work end in an error.

    Raises
    ------
    OSError
        If it cannot be made or written to.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a folder")
    disk.DISK.make_folder(folder)
    probe = _beside(folder / "probe")
    try:
        os.close(disk.DISK.create(probe))
        disk.DISK.remove(probe)
    except OSError as error:
        _name(error, folder)
        raise
