"""Downloads against a server on this machine: whole and checked, or an error and nothing left behind."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import itertools
import os
import socket
import threading
import time
import tracemalloc
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple

import pytest

from mlp_xp.datasets.download import download
from mlp_xp.errors import DownloadError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = bytes(range(256)) * 2000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
GOOD = gzip.compress(CONTENT)


class Reply(NamedTuple):
    """What the server sends for a path; a `length` of None sends no Content-Length."""

    body: bytes
    length: int | None
    status: int = 200


REPLIES = {
    "/good": Reply(GOOD, len(GOOD)),
    "/no-length": Reply(GOOD, None),
    "/cut": Reply(GOOD[:-100], len(GOOD)),
    "/cut-no-length": Reply(GOOD[:-100], None),
    "/empty": Reply(b"", 0),
    "/other": Reply(gzip.compress(CONTENT[::-1]), None),
    "/shorter": Reply(gzip.compress(CONTENT[:-1]), None),
    "/longer": Reply(gzip.compress(CONTENT + b"?"), None),
    "/bomb": Reply(gzip.compress(bytes(200_000_000), 1), None),
    "/trailing": Reply(GOOD + b"?", None),
    "/trailing-later": Reply(GOOD + b"?" * 200_000, None),
    "/corrupt": Reply(GOOD[:10] + b"\x07" + GOOD[11:], len(GOOD)),
    "/page": Reply(b"<html>log in to the hotel's network</html>", None),
    "/odd-length": Reply(GOOD, -7),
}


asked: list[tuple[str, str | None, str | None]] = []
"""Of every request for a file that comes in parts: its path, its range, and of which version it wants the rest."""
HALF = len(GOOD) // 2
TWO = gzip.compress(CONTENT[::-1])
"""Of the right length when it is unpacked, and with another digest."""


class Handler(BaseHTTPRequestHandler):
    """Serves `REPLIES`, and files that come in parts."""

    def do_GET(self) -> None:
        part = getattr(self, f"send_{self.path.strip('/').replace('-', '_')}", None)
        if part is None:
            self.reply()
            return
        wanted = self.headers["Range"]
        asked.append((self.path, wanted, self.headers["If-Range"]))
        try:
            part(int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0)
        except (BrokenPipeError, ConnectionResetError):
            return  # the client had enough

    def send(self, status: int, body: bytes, length: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def send_in_thirds(self, first: int) -> None:
        """Send a third, and then no more."""
        end, given = first + len(GOOD) // 3 + 1, f"bytes {first}-{len(GOOD) - 1}/{len(GOOD)}"
        status = 206 if first else 200
        self.send(status, GOOD[first:end], len(GOOD) - first, Content_Range=given, ETag='"one"')

    def send_without_ranges(self, _: int) -> None:
        """Send half at first, and all when it is asked again."""
        self.send(200, GOOD[:HALF] if len(asked) == 1 else GOOD, len(GOOD))

    def send_other_range(self, first: int) -> None:
        """Send another part than the one that was asked for."""
        if first:
            self.send(206, GOOD[first - 1 :], len(GOOD) - first + 1, Content_Range=f"bytes {first - 1}-9/9")
        else:
            self.send(200, GOOD[:HALF], len(GOOD))

    def send_two_files(self, first: int) -> None:
        """Send the end of the right file after the beginning of another one; and all of it when it is asked anew."""
        if first:
            self.send(206, TWO[first:], len(TWO) - first, Content_Range=f"bytes {first}-")
        elif len(asked) == 1:
            self.send(200, TWO[:HALF], len(TWO))
        else:
            self.send(200, GOOD, len(GOOD))

    def send_glued(self, first: int) -> None:
        """Send the end of the right file after the beginning of another one, which its gzip trailer does not fit."""
        if first or len(asked) > 1:
            self.send(206 if first else 200, GOOD[first:], len(GOOD) - first, Content_Range=f"bytes {first}-")
        else:
            self.send(200, TWO[:HALF], len(TWO))

    def send_no_such_rest(self, first: int) -> None:
        """Know nothing of the rest, because the file is another one by now."""
        if first:
            self.send(416, b"", 0)
        else:
            self.send(200, TWO[:HALF] if len(asked) == 1 else GOOD, len(GOOD))

    def send_trickle(self, first: int) -> None:
        """Send a byte now and then."""
        self.send(206 if first else 200, b"", len(GOOD) - first, Content_Range=f"bytes {first}-")
        for i in range(first, len(GOOD)):
            self.wfile.write(GOOD[i : i + 1])
            time.sleep(0.02)

    def send_silence(self, first: int) -> None:
        """Send half, then nothing for long, without an end."""
        self.send(
            206 if first else 200,
            GOOD[first : None if first else HALF],
            len(GOOD) - first,
            Content_Range=f"bytes {first}-",
        )
        time.sleep(0.0 if first else 0.6)

    def send_too_little(self, first: int) -> None:
        """Send the beginning of a file as all of it."""
        self.send(206 if first else 200, GOOD[first:HALF], HALF - first, Content_Range=f"bytes {first}-")

    def send_to_a_file(self, _: int) -> None:
        self.send(302, b"", 0, Location="file:///etc/hostname")

    def send_to_ftp(self, _: int) -> None:
        self.send(302, b"", 0, Location="ftp://127.0.0.1/x")

    def send_to_another(self, _: int) -> None:
        self.send(302, b"", 0, Location="/good")

    def reply(self) -> None:
        reply = REPLIES.get(self.path, Reply(b"", 0, 404))
        self.send_response(reply.status)
        if reply.length is not None:
            self.send_header("Content-Length", "odd" if reply.length < 0 else str(reply.length))
        self.end_headers()
        try:
            self.wfile.write(reply.body)
        except (BrokenPipeError, ConnectionResetError):
            return  # the client had enough

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "mnist" / "file.gz"


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def fetch(target: Path, *urls: str, timeout: float = 5.0) -> Path:
    return download(urls, target, size=len(CONTENT), sha256=DIGEST, timeout=timeout, pause=0.0)


@pytest.mark.parametrize("path", ["/good", "/no-length"])
def test_a_good_file_is_put_in_place_as_it_came(server: str, target: Path, path: str) -> None:
    assert fetch(target, server + path) == target
    assert target.read_bytes() == GOOD
    assert names(target.parent) == [target.name]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/cut", f"it was cut off after {len(GOOD) - 100:,} of {len(GOOD):,} bytes"),
        ("/cut-no-length", f"it was cut off after {len(GOOD) - 100:,} bytes, inside the gzip stream"),
        ("/empty", "it was cut off after 0 bytes"),
        ("/other", f"the SHA-256 of its contents is {hashlib.sha256(CONTENT[::-1]).hexdigest()}, not {DIGEST}"),
        ("/shorter", f"the SHA-256 of its contents is .*, not {DIGEST}"),
        ("/longer", f"it goes on after the {len(CONTENT):,} bytes expected"),
        ("/bomb", "it goes on after"),
        ("/trailing", "it goes on after"),
        ("/trailing-later", "it goes on after"),
        ("/corrupt", "Error -3 while decompressing data: invalid block type"),
        ("/page", "Error -3 while decompressing data: incorrect header check"),
        ("/odd-length", "invalid literal for int"),
        ("/none", "HTTP Error 404: Not Found"),
    ],
)
def test_a_bad_file_is_an_error_and_leaves_nothing(server: str, target: Path, path: str, reason: str) -> None:
    with pytest.raises(DownloadError, match=rf"file\.gz could not be downloaded:\n  {server}{path}: {reason}"):
        fetch(target, server + path)
    assert names(target.parent) == []


def test_mirrors_are_tried_in_order(server: str, target: Path) -> None:
    assert fetch(target, server + "/none", server + "/other", server + "/good", "http://never/asked") == target
    assert target.read_bytes() == GOOD
    assert names(target.parent) == [target.name]


def test_when_all_fail_each_mirror_is_listed(server: str, target: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{closed.getsockname()[1]}/x"
        with pytest.raises(DownloadError) as caught:
            fetch(target, server + "/none", refused, "no scheme")
    lines = str(caught.value).splitlines()
    assert lines[1] == f"  {server}/none: HTTP Error 404: Not Found"
    assert lines[2].startswith(f"  {refused}: ")
    assert "refused" in lines[2].lower()
    assert lines[3].startswith("  no scheme: unknown url type")
    assert names(target.parent) == []


def test_a_server_that_does_not_answer(target: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(DownloadError, match="timed out"):
            fetch(target, url, timeout=0.1)


def test_an_older_file_is_kept_when_the_new_one_fails(server: str, target: Path) -> None:
    target.parent.mkdir(parents=True)
    target.write_bytes(b"old")
    with pytest.raises(DownloadError):
        fetch(target, server + "/cut")
    assert target.read_bytes() == b"old"


def test_an_interruption_leaves_nothing(server: str, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(target, server + "/good")
    assert names(target.parent) == []


def test_a_folder_that_cannot_be_written_to(server: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match=r"file: cannot be written to \(.+\); check its permissions"):
        fetch(tmp_path / "file" / "x.gz", server + "/good")


def test_no_more_is_decompressed_than_expected(server: str, target: Path) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(DownloadError):
            fetch(target, server + "/bomb")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "progress", "shown"),
    [(Terminal(), True, True), (Terminal(), False, False), (io.StringIO(), True, False)],
)
def test_the_bar_is_for_terminals(
    server: str,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    stream: io.StringIO,
    progress: bool,
    shown: bool,
) -> None:
    monkeypatch.setattr("sys.stderr", stream)
    download([server + "/good"], target, size=len(CONTENT), sha256=DIGEST, progress=progress)
    assert ("file.gz: 100%" in stream.getvalue()) is shown
    assert bool(stream.getvalue()) is shown


@pytest.fixture(autouse=True)
def _nothing_asked_yet() -> None:
    asked.clear()


def test_what_is_cut_off_is_taken_up(server: str, target: Path) -> None:
    assert fetch(target, server + "/in-thirds").read_bytes() == GOOD
    third = len(GOOD) // 3 + 1
    assert asked == [
        ("/in-thirds", None, None),
        ("/in-thirds", f"bytes={third}-", '"one"'),
        ("/in-thirds", f"bytes={2 * third}-", '"one"'),
    ]


@pytest.mark.parametrize(
    ("path", "n_times"), [("/without-ranges", 2), ("/two-files", 3), ("/glued", 3), ("/no-such-rest", 3)]
)
def test_what_does_not_fit_together_is_fetched_anew(server: str, target: Path, path: str, n_times: int) -> None:
    assert fetch(target, server + path).read_bytes() == GOOD
    assert [wanted for _, wanted, _ in asked] == [None, f"bytes={HALF}-", None][:n_times]
    assert names(target.parent) == [target.name]


def test_what_is_silent_for_too_long_is_taken_up(server: str, target: Path) -> None:
    assert fetch(target, server + "/silence", timeout=0.2).read_bytes() == GOOD
    assert [wanted for _, wanted, _ in asked] == [None, f"bytes={HALF}-"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/other-range", rf"it sent bytes {HALF - 1}-9/9 where bytes {HALF}- were asked for"),
        ("/trickle", r"it sent \d+ bytes in 0 s"),
        ("/too-little", rf"it was cut off after {HALF:,} bytes, inside the gzip stream"),
        ("/to-a-file", "HTTP Error 302: "),
        ("/to-ftp", "unknown url type: ftp"),
    ],
)
def test_a_server_that_misbehaves_is_given_up(server: str, target: Path, path: str, reason: str) -> None:
    with pytest.raises(DownloadError, match=rf"file\.gz could not be downloaded:\n  {server}{path}: .*{reason}"):
        fetch(target, server + path, timeout=0.15)
    assert names(target.parent) == []


def test_a_network_that_goes_down_is_waited_for(server: str, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which the system tells by errors that are none of a connection's."""
    read, n_reads = HTTPResponse.read1, itertools.count()

    def read_twice(response: HTTPResponse, size: int) -> bytes:
        if next(n_reads) == 1:
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        return read(response, size)

    monkeypatch.setattr(HTTPResponse, "read1", read_twice)
    monkeypatch.setattr("mlp_xp.datasets.download._CHUNK", 100)
    assert fetch(target, server + "/in-thirds").read_bytes() == GOOD
    assert [wanted for _, wanted, _ in asked][:2] == [None, "bytes=100-"]


def test_a_file_that_ends_too_soon_is_not_asked_for_again(server: str, target: Path) -> None:
    with pytest.raises(DownloadError):
        fetch(target, server + "/too-little")
    assert [wanted for _, wanted, _ in asked] == [None]


def test_a_redirection_is_followed(server: str, target: Path) -> None:
    assert fetch(target, server + "/to-another").read_bytes() == GOOD


def test_a_full_disk_is_said_once(server: str, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DownloadError, match=rf"^{target.parent}: cannot be written to \(No space left on device\); "):
        fetch(target, server + "/good", server + "/no-length")
    assert names(target.parent) == []


def test_a_full_disk_is_said_once_at_whatever_byte(server: str, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a slow line's small chunks come: none may wait in a buffer, which closing the file would write once more."""
    resource = pytest.importorskip("resource", reason="needs limits as POSIX has them")
    monkeypatch.setattr("mlp_xp.datasets.download._CHUNK", 100)
    # Writing beyond the limit of a file's size is refused as it is on a full disk.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, hard))
    try:
        with pytest.raises(DownloadError, match=rf"^{target.parent}: cannot be written to \("):
            fetch(target, server + "/good", server + "/no-length")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(target.parent) == []


def test_a_folder_in_the_way_is_said_once(server: str, target: Path) -> None:
    target.mkdir(parents=True)
    with pytest.raises(DownloadError, match=rf"^{target.parent}: cannot be written to \(Is a directory\); "):
        fetch(target, server + "/good", server + "/no-length")
    assert names(target.parent) == [target.name]


def test_what_a_killed_process_left_is_removed_in_time(server: str, target: Path) -> None:
    target.parent.mkdir(parents=True)
    old, young = (target.parent / f".{target.name}.{name}.part" for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    fetch(target, server + "/good")
    assert sorted(names(target.parent)) == sorted([target.name, young.name])
