"""Opening data files, gzip or plain: whatever goes wrong is a DataError that names the file."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from mlp_xp.errors import DataError
from mlp_xp.reading import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 24
_BUFFER = 1 << 17

MOST_OF_A_LINE = 1 << 21
"""Bytes of a line of text: a million digits with their commas; a row takes up to thirty times as much memory."""


def data_error(place: object, problem: str, remedy: str) -> DataError:
    """Return the error to raise: where it is, what is wrong, and what to do about it."""
    return DataError(f"{place}: {problem}; {remedy}")


def as_path(text: str | os.PathLike[str]) -> Path:
    """Return a path with ``~`` resolved, if that is a home folder."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises for an unknown user


def exists(path: Path) -> bool:
    """Tell whether there is something of that name that could be opened."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises for closed folders and overlong names


def most_inflated(size: int) -> int:
    """Return how many bytes may come out of a compressed file of ``size`` bytes: far more than of any honest data.

    Deflate alone can make a thousand of one, and others a million; MNIST's images have 4.7.
    """
    return max(1 << 24, 100 * size)


class _Inflated(io.RawIOBase):
    """What comes out of a gzip file, up to a limit."""

    def __init__(self, inflated: gzip.GzipFile, path: Path, most: int) -> None:
        self._inflated, self._path, self._most = inflated, path, most

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._inflated.readinto(buffer)
        if self._inflated.tell() > self._most:
            raise data_error(
                self._path,
                f"inflates to more than {self._most:,} bytes, a hundred times its size, as no honest data do",
                "decompress it yourself (gunzip) if you trust it",
            )
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            while self.readinto(memoryview(bytearray(_BUFFER))):
                pass  # the end is where nothing more comes out
        return self._inflated.seek(offset, io.SEEK_CUR if whence == io.SEEK_END else whence)

    def tell(self) -> int:
        return self._inflated.tell()


class _Lines(io.RawIOBase):
    """What comes out of a file, as long as its lines are of bounded length: a text's reader takes each as a whole."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path, self._length = file, path, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._file.read(min(len(buffer), _BUFFER))
        buffer[: len(piece)] = piece
        # Of the line that has not ended yet; that within a piece is shorter than the piece.
        ended = max(piece.rfind(b"\n"), piece.rfind(b"\r"))
        self._length = len(piece) - ended - 1 if ended >= 0 else self._length + len(piece)
        if self._length > MOST_OF_A_LINE:
            problem = f"a line has more than {MOST_OF_A_LINE:,} bytes"
            raise data_error(self._path, problem, "write a sample per line; .npy holds the widest tables")
        return len(piece)


@contextmanager
def open_binary(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading bytes, decompressed if it is gzip (its first two bytes say, not its name).

    Raises
    ------
    DataError
        Inside the ``with`` block or at its start, if the file cannot be read or its compression is broken.
    """
    try:
        with _reading(path), open_regular(path) as raw:
            if cast("io.BufferedReader", raw).peek(2)[:2] == _GZIP_MAGIC:
                with gzip.GzipFile(fileobj=raw) as inflated:
                    most = most_inflated(os.fstat(raw.fileno()).st_size)
                    yield io.BufferedReader(_Inflated(inflated, path, most), _BUFFER)
            else:
                yield raw
    except (zlib.error, EOFError) as error:
        raise data_error(path, f"corrupt gzip ({error})", "get or make the file again") from error


@contextmanager
def open_unbuffered(path: Path) -> Iterator[io.FileIO]:
    """Open a file for reading bytes as they are, straight into the memory of an array; raises as `open_binary`."""
    with _reading(path), open_regular(path, buffering=0) as raw:
        yield cast("io.FileIO", raw)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except gzip.BadGzipFile as error:  # is an OSError
        raise data_error(path, f"corrupt gzip ({error})", "get or make the file again") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise data_error(path, f"cannot be read ({reason})", "check the path and its permissions") from error


def announce(file: io.FileIO, offset: int, length: int) -> None:
    """Tell the system, where it listens, what will be read next: a disk finds many places sooner than one by one."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), offset, length, os.POSIX_FADV_WILLNEED)


def is_plain(stream: IO[bytes]) -> bool:
    """Tell whether a file of `open_binary` is not compressed, so that any part of it can be read by itself."""
    return isinstance(stream, io.BufferedReader) and isinstance(stream.raw, io.FileIO)


def file_state(stream: IO[bytes] | io.FileIO) -> tuple[int, int]:
    """Return an open file's size and time of its last change in nanoseconds: other ones mean other contents."""
    status = os.fstat(stream.fileno())
    return status.st_size, status.st_mtime_ns


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Open a file for reading text: UTF-8 with or without a byte-order mark, any line ends, gzip or plain.

    Bytes that are not UTF-8 become U+FFFD: harmless in a header, and no number anywhere else.
    """
    with open_binary(path) as binary:
        lines = io.BufferedReader(_Lines(binary, path), _BUFFER)
        with io.TextIOWrapper(lines, "utf-8-sig", errors="replace") as text:
            yield text


def read_at_most(stream: IO[bytes], limit: int) -> bytearray:
    """Read up to `limit` bytes, claiming memory only for bytes that are really there."""
    content = bytearray()
    while len(content) < limit and (chunk := stream.read(min(_CHUNK, limit - len(content)))):
        content += chunk
    return content
