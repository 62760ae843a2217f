"""Fetching a gzip file from the first mirror that has it: it appears whole and checked, or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
import time
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mlp_xp.errors import DownloadError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from http.client import HTTPResponse
    from urllib.request import OpenerDirector

_CHUNK = 1 << 16
ATTEMPTS = 5
"""At an address that has begun to send; the next one takes up where the last was cut off, if the server can."""
SLOWEST = 1024
"""Bytes per second: a server that sends fewer has stalled, though it never lets the connection time out."""
_DAY = 86400.0


class _Unwritable(DownloadError):  # noqa: N818 - what is the case
    """Where the file is to be put; no other address helps."""


class _CutOff(ConnectionError):  # noqa: N818 - an event
    """The rest may still be had."""


def download(
    urls: Sequence[str],
    target: Path,
    *,
    size: int,
    sha256: str,
    progress: bool = False,
    timeout: float = 30.0,
    pause: float = 0.5,
) -> Path:
    """Download a gzip file.

    Parameters
    ----------
    urls : sequence of str
        Where the same file can be had, tried in order.
    target : Path
        Where to put it, still compressed; folders are made as needed.
    size : int
        Number of bytes of the decompressed file; little more is ever decompressed.
    sha256 : str
        Their SHA-256 in hexadecimal.
    progress : bool
        Show a progress bar, if standard error is a terminal.
    timeout : float
        Seconds to wait for a connection or for the next bytes, and over which `SLOWEST` counts.
    pause : float
        Seconds to wait before a download that was cut off is taken up; doubled every time.

    Returns
    -------
    Path
        `target`, which now exists.

    Raises
    ------
    DownloadError
        No address gave the file (the text lists each with its reason), or its folder cannot be written to.
        Nothing is left behind.
    """
    from http.client import HTTPException  # with the imports of _opener: most commands never download

    reasons = []
    for url in urls:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_old_parts(target)
            handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        except OSError as error:
            raise _unwritable(target, error) from error
        partial = Path(name)
        try:
            with os.fdopen(handle, "wb", buffering=0) as file:  # so that closing it has nothing to write, and to fail
                transfer = _Transfer(url, file, target, size, timeout, progress=progress)
                _fetch(transfer, sha256, pause)
                transfer.keep(partial)
        except _Unwritable:
            raise
        except (OSError, HTTPException, ValueError, zlib.error) as error:
            reasons.append(f"  {url}: {error}")
        else:
            return target
        finally:
            partial.unlink(missing_ok=True)
    raise DownloadError("\n".join([f"{target.name} could not be downloaded:", *reasons]))


def _remove_old_parts(target: Path) -> None:
    """Remove what processes that were killed have left; what is younger than a day may be at work."""
    for part in target.parent.glob(f".{target.name}.*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _DAY:
                part.unlink()


def _fetch(transfer: _Transfer, sha256: str, pause: float) -> None:
    """Receive all of a file, in several attempts if need be, and check it."""
    from http import HTTPStatus
    from http.client import HTTPException
    from urllib.error import HTTPError

    for attempt in range(1, ATTEMPTS + 1):
        try:
            transfer.receive()
            found = transfer.digest.hexdigest()
            if found == sha256:
                return
            raise DownloadError(f"the SHA-256 of its contents is {found}, not {sha256}")
        except HTTPError as error:
            if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not transfer.received:
                raise
            transfer.restart()  # there is no such rest: the file is another one by now
        except _Unwritable:
            raise
        except (DownloadError, zlib.error):
            if not transfer.taken_up:
                raise
            transfer.restart()  # the two parts may have been of two files
        except (OSError, HTTPException):  # the network: it was cut off, it timed out, there is no way to the host, …
            if attempt == ATTEMPTS or not transfer.received:
                raise
            time.sleep(pause * 2 ** (attempt - 1))
    raise DownloadError("what came in several parts did not fit together")


class _Transfer:
    """What has come of a file, decompressed and digested on the way."""

    def __init__(self, url: str, file: IO[bytes], target: Path, size: int, timeout: float, *, progress: bool) -> None:
        self._url, self._file, self._target, self._size, self._timeout = url, file, target, size, timeout
        self._hidden = None if progress else True  # None: shown on a terminal only
        self.restart()

    def restart(self) -> None:
        """Begin with the first byte."""
        self._file.seek(0)
        self._file.truncate()
        self.received = self._inflated = 0
        self._inflate, self.digest = zlib.decompressobj(wbits=31), hashlib.sha256()
        self.taken_up, self._version = False, ""

    def receive(self) -> None:
        """Receive what is missing."""
        from urllib.request import Request

        from tqdm import tqdm

        headers = {"Range": f"bytes={self.received}-"} if self.received else {}
        if self.received and self._version:
            headers["If-Range"] = self._version
        response: HTTPResponse
        with _opener().open(Request(self._url, headers=headers), timeout=self._timeout) as response:  # noqa: S310
            if self.received and response.status == 206:
                if not (found := response.headers.get("Content-Range", "")).startswith(f"bytes {self.received}-"):
                    raise DownloadError(f"it sent {found or 'no range'} where bytes {self.received}- were asked for")
                self.taken_up = True
            else:
                self.restart()
            version = response.headers.get("ETag", "")
            self._version = "" if version.startswith("W/") else version
            promised = response.headers.get("Content-Length")
            total = self.received + int(promised) if promised else None
            bar = {"desc": self._target.name, "unit": "B", "unit_scale": True, "disable": self._hidden}
            with tqdm(total=total, initial=self.received, **bar) as shown:
                since, n_since = time.monotonic(), self.received
                while chunk := response.read1(_CHUNK):  # as much as is there: `read` would wait for all of it
                    self._take(chunk)
                    shown.update(len(chunk))
                    if (seconds := time.monotonic() - since) > self._timeout:
                        if self.received - n_since < SLOWEST * seconds:
                            raise _CutOff(f"it sent {self.received - n_since:,} bytes in {seconds:.0f} s")
                        since, n_since = time.monotonic(), self.received
        if total is not None and self.received != total:
            raise _CutOff(f"it was cut off after {self.received:,} of {total:,} bytes")
        if not self._inflate.eof:
            # If it is all that was promised, there is no rest to be had.
            error = _CutOff if total is None else DownloadError
            raise error(f"it was cut off after {self.received:,} bytes, inside the gzip stream")

    def _take(self, chunk: bytes) -> None:
        try:
            if self._file.write(chunk) < len(chunk):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise _unwritable(self._target, error) from error
        self.received += len(chunk)
        plain = self._inflate.decompress(chunk, self._size + 1 - self._inflated)
        self._inflated += len(plain)
        self.digest.update(plain)
        if self._inflated > self._size or self._inflate.unused_data:
            raise DownloadError(f"it goes on after the {self._size:,} bytes expected of its contents")

    def keep(self, partial: Path) -> None:
        """Wait until the disk has it, and give it its name."""
        try:
            os.fsync(self._file.fileno())
            self._file.close()  # before it is renamed, as Windows wants it
            partial.replace(self._target)
        except OSError as error:
            raise _unwritable(self._target, error) from error


def _unwritable(target: Path, error: OSError) -> _Unwritable:
    return _Unwritable(f"{target.parent}: cannot be written to ({error.strerror}); check its permissions and its space")


def _opener() -> OpenerDirector:
    """Return what opens http and https, and follows no redirection to anything else."""
    from urllib import request

    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        request.UnknownHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPRedirectHandler,
        request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener
