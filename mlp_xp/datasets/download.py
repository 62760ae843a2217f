"""Fetching a gzip file from the first mirror that has it: it appears whole and checked, or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mlp_xp.errors import DownloadError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from http.client import HTTPResponse

_CHUNK = 1 << 16


def download(
    urls: Sequence[str],
    target: Path,
    *,
    size: int,
    sha256: str,
    progress: bool = False,
    timeout: float = 30.0,
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
        Seconds to wait for a connection or for the next bytes.

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
    from http.client import HTTPException  # with the imports of _fetch: most commands never download

    reasons = []
    for url in urls:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        except OSError as error:
            problem = f"{target.parent}: cannot be written to ({error.strerror}); check its permissions"
            raise DownloadError(problem) from error
        partial = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                _fetch(url, file, target.name, size, sha256, timeout, progress=progress)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except (OSError, HTTPException, ValueError, zlib.error) as error:
            reasons.append(f"  {url}: {error}")
        else:
            return target
        finally:
            partial.unlink(missing_ok=True)
    raise DownloadError("\n".join([f"{target.name} could not be downloaded:", *reasons]))


def _fetch(url: str, file: IO[bytes], name: str, size: int, sha256: str, timeout: float, *, progress: bool) -> None:
    """Copy what `url` gives into `file`, checking it on the way."""
    from urllib.request import urlopen

    from tqdm import tqdm

    response: HTTPResponse
    with urlopen(url, timeout=timeout) as response:  # noqa: S310 - the addresses are this package's constants
        promised = response.headers.get("Content-Length")
        total = int(promised) if promised else None
        received = inflated = 0
        inflate, digest = zlib.decompressobj(wbits=31), hashlib.sha256()
        hidden = None if progress else True  # None: shown on a terminal only
        with tqdm(desc=name, total=total, unit="B", unit_scale=True, disable=hidden) as bar:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                received += len(chunk)
                bar.update(len(chunk))
                plain = inflate.decompress(chunk, size + 1 - inflated)
                inflated += len(plain)
                digest.update(plain)
                if inflated > size or inflate.unused_data:
                    raise DownloadError(f"it goes on after the {size:,} bytes expected of its contents")
    if total is not None and received != total:
        raise DownloadError(f"it was cut off after {received:,} of {total:,} bytes")
    if not inflate.eof:
        raise DownloadError(f"it was cut off after {received:,} bytes, inside the gzip stream")
    if digest.hexdigest() != sha256:
        raise DownloadError(f"the SHA-256 of its contents is {digest.hexdigest()}, not {sha256}")
