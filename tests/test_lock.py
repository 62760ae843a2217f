"""One process at a time works in a folder; a dead one leaves nothing that would keep others out."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import mlp_xp.lock
from mlp_xp.backend import Backend
from mlp_xp.cli import main
from mlp_xp.datasets import Split
from mlp_xp.errors import RunError
from mlp_xp.lock import NAME, FolderLock, refuse_busy
from stopped_runs import NATIVE, After, start

COMMAND = [sys.executable, "-m", "mlp_xp", "train"]


def test_a_folder_is_held_until_it_is_released(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(RunError, match=rf"^{tmp_path}: another process .* \(process {os.getpid()} on .*\); wait until"):
        FolderLock(tmp_path)
    lock.release()
    lock.release()
    assert list(tmp_path.iterdir()) == []
    FolderLock(tmp_path).release()


def test_a_lock_that_nobody_has_any_more_is_released(tmp_path: Path) -> None:
    lock: FolderLock | None = FolderLock(tmp_path)
    assert lock is not None
    del lock
    gc.collect()
    FolderLock(tmp_path).release()


def test_a_file_that_its_last_holder_removes_meanwhile_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking: else two would hold locks on files of which one has no name any more."""
    lock, locked = mlp_xp.lock._lock, [0]

    def removing(descriptor: int) -> bool:
        locked[0] += 1
        if locked[0] == 1:
            (tmp_path / NAME).unlink()
        return lock(descriptor)

    monkeypatch.setattr(mlp_xp.lock, "_lock", removing)
    held = FolderLock(tmp_path)
    assert locked[0] == 2
    with pytest.raises(RunError, match="another process is at work"):
        FolderLock(tmp_path)
    held.release()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "folder" / NAME).symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic link"):
        FolderLock(tmp_path / "folder")
    assert (tmp_path / "precious").read_text() == "precious"


def test_who_looks_sees_who_is_at_work(tmp_path: Path) -> None:
    refuse_busy(tmp_path)
    lock = FolderLock(tmp_path)
    with pytest.raises(RunError, match=rf"another process is at work in this folder \(process {os.getpid()} on "):
        refuse_busy(tmp_path)
    lock.release()
    refuse_busy(tmp_path)
    (tmp_path / NAME).mkdir()
    refuse_busy(tmp_path)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX's signals")
def test_of_eight_processes_one_works_and_seven_are_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["train", "--hidden", "8", "--epochs", "1", "--out", str(run)]) == 0
    (run / NAME).write_text("process 1 on a machine that was switched off\n")  # nobody holds it
    command = [*COMMAND, "--resume", str(run), "--epochs", "100000"]
    started = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(8)]
    refused: list[bytes] = []
    deadline = time.monotonic() + 120
    try:
        while len(refused) < 7:
            assert time.monotonic() < deadline, f"{len(started)} are at work"
            done = [each for each in started if each.poll() is not None]
            for each in done:
                started.remove(each)
                _, errors = each.communicate()
                assert each.returncode == 2, errors
                refused.append(errors)
        (working,) = started
        expected = f"mlp-xp: error: {run}: another process is at work in this folder ("
        for errors in refused:
            assert errors.decode().startswith(expected)
            assert errors.count(b"\n") == 1
        assert any(f"(process {working.pid} on ".encode() in errors for errors in refused)
        working.kill()
        working.communicate()
        started.clear()
        assert working.returncode == -signal.SIGKILL
        assert (run / NAME).exists()
    finally:
        for each in started:
            each.kill()
            each.communicate()
    FolderLock(run).release()


MOVES: dict[str, Callable[[Path], object]] = {
    "moved": lambda run: run.rename(run.with_name("moved")),
    "removed": shutil.rmtree,
}


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("no_pictures", "short_pieces")
@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
@pytest.mark.parametrize("is_over", [False, True], ids=["at work", "over"])
@pytest.mark.parametrize("stop", [100, 3, 4], ids=["goes on", "stops", "stops within an epoch"])
@pytest.mark.parametrize("n", [None, 2], ids=["alone", "replicas"])
def test_where_another_run_is_now_nothing_is_written(
    n: int | None,
    stop: int,
    is_over: bool,
    move: Callable[[Path], object],
    tmp_path: Path,
    digits: Split,
    numpy_backend: Backend,
) -> None:
    run = tmp_path / "run"
    first = start(run, NATIVE, digits, numpy_backend, n, stop=After(stop))
    next(first)
    move(run)
    second = start(run, replace(NATIVE, seed=2), digits, numpy_backend, n)  # its checkpoints have the same names
    for _ in second if is_over else [next(second)]:
        pass
    before = files(tmp_path)
    with pytest.raises(RunError, match=rf"^{run}: no longer the folder that this training began in: it was moved, "):
        list(first)
    assert files(tmp_path) == before, "of the second run, the lock included, and of the first where it is now"


@pytest.mark.usefixtures("no_pictures", "short_pieces")
@pytest.mark.parametrize("drawn", [0, 1], ids=["in the first epoch", "later"])
@pytest.mark.parametrize("n", [None, 2], ids=["alone", "replicas"])
def test_a_folder_that_is_gone_is_not_made_again(
    n: int | None, drawn: int, tmp_path: Path, digits: Split, numpy_backend: Backend
) -> None:
    run = tmp_path / "run"
    epochs = start(run, NATIVE, digits, numpy_backend, n, stop=After(3 * drawn + 1))
    for _ in range(drawn):
        next(epochs)
    shutil.rmtree(run)
    with pytest.raises(RunError, match=rf"^{run}: cannot be written: No such file or directory; the folder is gone; "):
        list(epochs)
    assert not run.exists()


@pytest.mark.parametrize("is_hidden", [False, True], ids=["the lock alone", "the folder, too"])
def test_why_a_folder_cannot_be_looked_into_is_told(
    is_hidden: bool, tmp_path: Path, digits: Split, numpy_backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if what looks for something to go on from may not look either."""
    run, stat = tmp_path / "run", os.stat
    epochs = start(run, NATIVE, digits, numpy_backend, None)
    next(epochs)

    def refuse(path: Path, **how: bool) -> os.stat_result:
        if path == run / NAME or (is_hidden and path == run):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **how)

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(RunError, match=rf"^{run / NAME}: cannot be written: Permission denied; .*{run}$"):
        list(epochs)


def test_a_lock_of_anothers_is_left_alone(tmp_path: Path) -> None:
    first = FolderLock(tmp_path)
    (tmp_path / NAME).unlink()
    second = FolderLock(tmp_path)
    first.release()
    with pytest.raises(RunError, match="another process is at work"):
        FolderLock(tmp_path)
    second.check()
    second.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX's fork")
@pytest.mark.parametrize("end", ["del lock", "lock.release()", "sys.exit()"])
def test_a_forked_child_leaves_its_parents_lock(end: str, tmp_path: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
from mlp_xp.errors import RunError
from mlp_xp.lock import FolderLock
folder = Path(sys.argv[1])
lock = FolderLock(folder)
if (child := os.fork()) == 0:
    {end}
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
lock.check()
try:
    FolderLock(folder)
except RunError:
    print("still held")
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("still held\n", "")
    assert list(tmp_path.iterdir()) == []
