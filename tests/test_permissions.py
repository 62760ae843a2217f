"""What is said when a permission is lost while a training goes on, and after it: nobody is told to overwrite a run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlp_xp.cli import main

AS_ANYONE = """
import ctypes, os, sys
if os.geteuid() == 0:
    drop, override, search = 24, 1, 2  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH of Linux
    for capability in (override, search):
        if ctypes.CDLL(None).prctl(drop, capability, 0, 0, 0):
            sys.exit("root cannot be kept out")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Lets a process of root's keep to permissions, too, from the next program on."""
LOSING = """
import sys
import mlp_xp.cli.train as training
from pathlib import Path
say, place = training.say, Path(sys.argv[1])
def losing(line):
    say(line)
    if line.startswith("#summary:   1"):
        place.chmod(0)
training.say = losing
from mlp_xp.cli import main
sys.exit(main(sys.argv[2:]))
"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions")


def command(*arguments: str) -> str:
    """Run a command that must fail, and return the last line of what it says."""
    whole = [sys.executable, "-c", AS_ANYONE, *arguments]
    done = subprocess.run(whole, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Path]:
    (parent := tmp_path / "parent").mkdir()
    yield parent
    for place in (parent, parent / "run", parent / "run" / "checkpoints"):
        place.chmod(0o755)


@pytest.mark.parametrize(
    ("lost", "read"),
    [("parent/run", "run.json"), ("parent/run/checkpoints", "checkpoints"), ("parent", "run.json")],
    ids=["the run", "its checkpoints", "the folder around it"],
)
def test_a_run_that_cannot_be_looked_into_is_not_to_be_overwritten(
    lost: str, read: str, parent: Path, tmp_path: Path
) -> None:
    run = parent / "run"
    options = ["--hidden", "8", "--batch-size", "200", "--epochs", "4", "--out", str(run)]
    said = command("-c", LOSING, str(tmp_path / lost), "train", *options)
    way = f"what it has learnt may be kept; when that is mended, go on with: mlp-xp train --resume {run}"
    assert re.fullmatch(rf"mlp-xp: error: {run}/\S+: cannot be written: Permission denied; {way}", said)
    said = command("-m", "mlp_xp", "train", "--resume", str(run))
    assert re.search(rf"{run}.*: cannot be read: Permission denied; mend that, then try again$", said)
    said = command("-m", "mlp_xp", "verify", str(run))
    assert said == f"mlp-xp: error: {run / read}: cannot be read: Permission denied; mend that, then try again"
    (tmp_path / lost).chmod(0o755)
    assert main(["train", "--resume", str(run)]) == 0
    assert main(["verify", str(run)]) == 0


@pytest.mark.parametrize("arguments", [["verify"], ["predict", "--input", "rows.csv"]], ids=["verify", "predict"])
def test_a_name_that_no_folder_has_is_said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "x" * 300]) == 2
    assert "x/run.json: cannot be read: File name too long; " in capsys.readouterr().err


def test_a_folder_that_is_gone_may_come_back(tmp_path: Path) -> None:
    run = tmp_path / "run"
    program = LOSING.replace("place.chmod(0)", "place.rename(place.with_name('elsewhere'))")
    options = ["--hidden", "8", "--batch-size", "200", "--epochs", "4", "--out", str(run)]
    said = command("-c", program, str(run), "train", *options)
    assert said.endswith(f"; the folder is gone; if it comes back, go on with: mlp-xp train --resume {run}")
    shutil.move(tmp_path / "elsewhere", run)
    assert main(["train", "--resume", str(run)]) == 0
