"""Writing files so that a reader sees the old content or the new, never a part of it."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from mlp_xp.errors import RunError


@contextlib.contextmanager
def writing(path: Path | str, option: str = "--out") -> Iterator[None]:
    """Say what could not be written, why, and which option names another place.

    Raises
    ------
    RunError
        For every `OSError` inside the ``with`` block.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}; choose another {option}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file by new content: written beside it, flushed to the disk, then renamed over it.

    Raises
    ------
    OSError
        If it cannot be written; the old file is then still whole and nothing is left beside it.
    """
    if path.is_dir():  # also "." and "/", which have no name to write beside
        raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file", str(path))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename is not None:  # that of the file beside
            error.filename, error.filename2 = str(path), None
        raise


def make_folder(folder: Path) -> None:
    """Make a folder if need be, and see that files can be written there, before hours of work end in an error.

    Raises
    ------
    OSError
        If it cannot be made or written to.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a folder")
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".{secrets.token_hex(4)}"
    probe.touch(exist_ok=False)
    probe.unlink()
