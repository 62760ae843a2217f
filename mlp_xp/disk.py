"""The operations on files that a run's safety hangs on, each by itself, so that a test can make any of them fail.

They are what POSIX gives: a file that is written beside an old one, flushed to the disk and renamed over it is after a
crash the old one or the new one (Pillai et al., "All file systems are not created equal", OSDI 2014).
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path


class Disk:
    """The operating system's own operations; all raise `OSError`."""

    def create(self, path: Path) -> int:
        """Open a new file for writing, and return its descriptor."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)

    def open_read(self, path: Path) -> int:
        """Open a file for reading; of a pipe, without waiting for somebody to write to it."""
        return os.open(path, os.O_RDONLY | _NO_WAIT | _BINARY)

    def open_end(self, path: Path) -> int:
        """Open a file, made if need be, for writing at its end; not through a link, which may lead anywhere."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _NO_LINK | _BINARY, 0o666)

    def open_locked(self, path: Path) -> int:
        """Open a file, made if need be, that is there to be locked; not through a link."""
        return os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINK | _BINARY, 0o666)

    def write(self, descriptor: int, content: memoryview) -> int:
        """Write some bytes at least, and return how many."""
        return os.write(descriptor, content)

    def truncate(self, descriptor: int, size: int) -> None:
        """Let a file end after so many bytes."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Wait until the disk has what was written."""
        os.fsync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another's name and place."""
        source.replace(target)

    def sync_folder(self, folder: Path) -> None:
        """Wait until the disk has the names in a folder, where the system lets folders be opened."""
        if not _FOLDER:
            return
        descriptor = os.open(folder, os.O_RDONLY | _FOLDER)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of file systems that have no such thing
                raise
        finally:
            os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Remove a file that may be gone already."""
        path.unlink(missing_ok=True)

    def make_folder(self, folder: Path) -> None:
        """Make a folder with those above it, and wait until the disk has them; it may be there already."""
        made = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for each in made:
            with contextlib.suppress(PermissionError):  # one may be allowed to write into a folder, but not to open it
                self.sync_folder(each.parent)


_BINARY = getattr(os, "O_BINARY", 0)
_FOLDER = getattr(os, "O_DIRECTORY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)

DISK = Disk()
"""The one that is used."""
