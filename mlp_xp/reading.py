"""Reading files that a stranger may have made: regular ones only, and never more of them than is asked for."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mlp_xp import disk


@contextlib.contextmanager
def open_regular(path: Path, *, buffering: int = -1) -> Iterator[BinaryIO]:
    """Open a file for reading bytes; ``buffering`` as of `open`.

    Raises
    ------
    OSError
        If it cannot be opened, or is no file like others: a pipe or a device might never come to an end.
    """
    descriptor = disk.DISK.open_read(path)
    if not stat.S_ISREG(mode := os.fstat(descriptor).st_mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError("it is a pipe or a device, not a file")
    with open(descriptor, "rb", buffering=buffering) as file:  # noqa: PTH123 - it is open already
        yield file


def read_bytes(path: Path, most: int) -> bytes:
    """Return what is in a file.

    Parameters
    ----------
    path : path
    most : int
        Bytes it may have.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it has more.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return content
