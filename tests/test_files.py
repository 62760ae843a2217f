"""Files appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from faults import FaultyDisk
from mlp_xp import disk
from mlp_xp.errors import RunError
from mlp_xp.files import append, keep_lines, make_folder, remove_leftovers, write_atomically, write_output, writing


def test_content_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"old", b"new"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="POSIX's pipes")
def test_what_is_no_file_is_written_to_and_stays(tmp_path: Path) -> None:
    """Else ``--output /dev/null`` would make of it, for its owner, a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    write_output(pipe, b"new")
    reader.join()
    assert found == [b"new"]
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_link_stays_and_leads_to_the_new_content(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "a" / "file")
    write_output(tmp_path / "link", b"new")
    write_output(tmp_path / "a" / "another", b"more")
    assert (tmp_path / "link").is_symlink()
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == {"file": b"new", "another": b"more"}
    with pytest.raises(IsADirectoryError):
        write_output(tmp_path / "a", b"new")


def test_a_link_that_leads_nowhere_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        write_output(tmp_path / "a", b"new")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux's links to open files")
def test_what_is_open_is_added_to(tmp_path: Path) -> None:
    """As by ``(echo first; mlp-xp predict … --output /dev/stdout; echo last) > file``."""
    with (tmp_path / "file").open("ab") as file:
        file.write(b"first, ")
        file.flush()
        write_output(Path(f"/proc/self/fd/{file.fileno()}"), b"new, ")
        file.write(b"last")
    assert (tmp_path / "file").read_bytes() == b"first, new, last"


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_the_mode_is_that_of_any_new_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"")
    (tmp_path / "other").touch()
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_rename_that_fails_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(self: Path, target: Path) -> Path:
        assert self.read_bytes() == b"new"
        raise PermissionError(f"{target} is open elsewhere")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(PermissionError, match="is open elsewhere"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("folder", ["folder", ".", ""])
def test_a_folder_is_not_replaced(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IsADirectoryError, match=r"it is a folder, not a file: .+"):
        write_atomically(Path(folder), b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        (("runs/a",), OSError(errno.ENOSPC, "full"), "runs/a: cannot be written: full; choose another --out"),
        (("b.csv", "--output"), OSError("why"), "b.csv: cannot be written: why; choose another --output"),
    ],
)
def test_what_cannot_be_written_is_named_with_the_option(place: tuple[str, ...], error: OSError, message: str) -> None:
    with pytest.raises(RunError) as caught, writing(*place):
        raise error
    assert str(caught.value) == message


def test_a_folder_is_made_with_its_parents_and_left_empty(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        make_folder(tmp_path / "file")
    with pytest.raises(OSError, match="file"):
        make_folder(tmp_path / "file" / "below")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc, where not even root can make files")
def test_a_folder_that_is_there_but_closed_is_found() -> None:
    with pytest.raises(OSError, match="/proc/self"):
        make_folder(Path("/proc/self"))


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "no" / "such" / "file"
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(path, b"")
    assert caught.value.filename == str(path)
    assert caught.value.filename2 is None


def test_what_could_not_be_added_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the line is on the disk when that is full."""

    def full() -> None:
        raise OSError(errno.ENOSPC, "full")

    path = tmp_path / "file"
    append(path, b"one\n", durable=False)
    failing = FaultyDisk(1, full)
    monkeypatch.setattr(disk, "DISK", failing)
    with pytest.raises(OSError, match="full"):
        append(path, b"another\n", durable=True)
    assert failing.operations == ["open_end file", "write", "truncate"]
    assert path.read_bytes() == b"one\n"


@pytest.mark.parametrize("write", [lambda path: append(path, b"more", durable=False), lambda path: keep_lines(path, 1)])
def test_nothing_is_written_through_a_link(write: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("one\ntwo\n")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="link in it is a link to another place"):
        write(tmp_path / "link")
    with pytest.raises(OSError, match="symbolic link"):  # also if it became one just now
        disk.DISK.open_end(tmp_path / "link")
    assert (tmp_path / "precious").read_text() == "one\ntwo\n"


@pytest.mark.parametrize("content", [b"a\nb\nc", b"a\nb\n", b"a\nb"])
def test_lines_are_kept_whole(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    keep_lines(tmp_path / "file", 2)
    assert (tmp_path / "file").read_bytes() == b"a\nb\n"


def test_leftovers_are_known_by_their_names(tmp_path: Path) -> None:
    """Others have hidden files and folders, too."""
    others = [".bashrc.20240101", ".deadbeef", ".cache.12345678", ".x.0123456789abcdef", "x.0123456789abcdef.mlp_xp"]
    for name in (*others, ".run.json.0123456789abcdef.mlp_xp"):
        (tmp_path / name).touch()
    (tmp_path / ".folder.0123456789abcdef.mlp_xp").mkdir()
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*others, ".folder.0123456789abcdef.mlp_xp"}


def test_new_folders_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = FaultyDisk(-1, lambda: None)
    monkeypatch.setattr(disk, "DISK", counting)
    make_folder(tmp_path / "a" / "b")
    assert counting.operations[:3] == ["make_folder b", "sync_folder a", f"sync_folder {tmp_path.name}"]
    make_folder(tmp_path / "a" / "b")
    assert counting.operations[5:7] == ["make_folder b", counting.operations[6]]
    assert "sync_folder" not in counting.operations[6]


@pytest.mark.skipif(not hasattr(os, "O_DIRECTORY"), reason="folders cannot be opened here")
@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_file_system_that_cannot_sync_folders_is_no_fault(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output error") if error == errno.EIO else contextlib.nullcontext():
        disk.Disk().sync_folder(tmp_path)


def test_a_folder_that_may_be_written_to_but_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(disk.Disk):
        def sync_folder(self, folder: Path) -> None:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(disk, "DISK", Closed())
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_folder_that_is_closed_is_named_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(disk.Disk):
        def create(self, path: Path) -> int:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(disk, "DISK", Closed())
    with pytest.raises(RunError, match=rf"^{tmp_path}: cannot be written: Permission denied; "), writing(tmp_path):
        make_folder(tmp_path)
