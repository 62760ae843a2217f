"""One process at a time works in a folder; a dead one leaves nothing that would keep others out."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mlp_xp.lock
from mlp_xp.cli import main
from mlp_xp.errors import RunError
from mlp_xp.lock import NAME, FolderLock, refuse_busy

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
