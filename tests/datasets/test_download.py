"""Downloads against a server on this machine: whole and checked, or an error and nothing left behind."""

from __future__ import annotations

import gzip
import hashlib
import io
import socket
import threading
import tracemalloc
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


class Handler(BaseHTTPRequestHandler):
    """Serves `REPLIES`."""

    def do_GET(self) -> None:
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
    return download(urls, target, size=len(CONTENT), sha256=DIGEST, timeout=timeout)


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
