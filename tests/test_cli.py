"""The command as a whole: exit codes, pipes, terminals, Ctrl-C."""

from __future__ import annotations

import io
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlp_xp
from mlp_xp.cli import COMMANDS, main
from mlp_xp.cli.progress import say

COMMAND = [sys.executable, "-m", "mlp_xp"]
# A job in the background starts with SIGINT ignored, and its children inherit that.
INTERRUPTIBLE = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "import sys; from mlp_xp.cli import main; sys.exit(main())",
]
QUICK = ["--hidden", "8", "--epochs", "2", "--batch-size", "200"]


@contextmanager
def started(arguments: list[str], **pipes: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command; whatever the test finds, no process is left behind."""
    with subprocess.Popen(arguments, **pipes) as command:
        try:
            yield command
        finally:
            command.kill()


def test_help_and_version_wait_for_no_library() -> None:
    code = (
        "import sys\nfrom mlp_xp.cli import main\n"
        "try: main(['--help'])\n"
        "finally: print({'numpy', 'matplotlib', 'jax'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("set()\n")
    assert all(command in result.stdout for command in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"mlp-xp {mlp_xp.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: mlp-xp {command}")


@pytest.mark.parametrize("arguments", [[], ["trian"], ["train", "--hiden", "3"], ["predict"]])
def test_a_command_line_that_makes_no_sense_is_a_users_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: mlp-xp" in capsys.readouterr().err


def test_the_module_is_the_command() -> None:
    result = subprocess.run([*COMMAND, "train", *QUICK], capture_output=True, text=True, check=True)
    assert [line.split()[1] for line in result.stdout.splitlines()] == ["0", "1"]
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == ["mlp-xp"] * 3


def test_errors_leave_with_2_and_no_traceback() -> None:
    result = subprocess.run([*COMMAND, "train", "--backend", "nump"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("mlp-xp: error: unknown backend 'nump'; known, closest first: numpy, ")
    assert result.stderr.count("\n") == 1


def test_too_little_memory_is_one_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    """These weights do not fit into any machine's address space."""
    assert main(["train", "--hidden", f"{2**28},{2**28}"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("mlp-xp: error: the memory does not suffice (Unable to allocate ")
    assert output.err.endswith("; give less data, a smaller network (--hidden) or smaller batches (--batch-size)\n")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    ["train --out=", "compare --backends numpy,readonly --out=", "predict run --input digits.csv --output="],
)
def test_an_empty_name_of_what_is_to_be_written_is_refused(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It would pass for no name, and hours of training would not be kept."""
    with pytest.raises(SystemExit, match="2"):
        main(arguments.split())
    option = arguments.split()[-1].removesuffix("=")
    expected = f"error: argument {option}: an empty name; give one, or leave the option out\n"
    assert capsys.readouterr().err.endswith(expected)


def test_a_line_comes_at_once_also_through_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe))
    say("#summary")
    assert pipe.getvalue() == b"#summary\n"


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    arguments = [*COMMAND, "train", *QUICK, "--epochs", "10000", "--out", str(tmp_path / "run")]
    with started(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        assert command.stdout.readline().startswith(b"#summary:   0 ")
        command.stdout.close()
        assert [line.partition(b":")[0] for line in command.stderr.read().splitlines()] == [b"mlp-xp"] * 2
        assert command.wait(60) == 128 + signal.SIGPIPE
    assert (tmp_path / "run" / "loss.png").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_behind_the_output_is_one_clear_error() -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device, not a path to work with
        result = subprocess.run([*COMMAND, "train", *QUICK], stdout=full, stderr=subprocess.PIPE, check=False)
    assert result.returncode == 2
    assert result.stderr.endswith(b"mlp-xp: error: the output cannot be written: No space left on device\n")
    assert b"Traceback" not in result.stderr


@pytest.mark.skipif(os.name != "posix", reason="POSIX's shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_what_is_closed_is_done_without(closed: str, tmp_path: Path) -> None:
    """Also: no file of the run is taken for it."""
    run = tmp_path / "run"
    line = f"{shlex.join([*COMMAND, 'train', *QUICK, '--out', str(run)])} {closed}"
    result = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=False)
    assert result.returncode == 0
    assert result.stdout.count(b"#summary") == (2 if closed == "2>&-" else 0)
    assert (b"mlp-xp: recorded in" in result.stderr) == (closed == ">&-")
    assert b"Traceback" not in result.stderr
    assert main(["verify", str(run)]) == 0


def test_ctrl_c_keeps_what_was_saved(tmp_path: Path) -> None:
    arguments = [*INTERRUPTIBLE, "train", *QUICK, "--epochs", "10000", "--out", str(tmp_path / "run")]
    with started(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        assert command.stdout is not None
        command.stdout.readline()
        command.send_signal(signal.SIGINT)
        _, errors = command.communicate(timeout=60)
    assert command.returncode == 130
    assert re.search(rb"\nmlp-xp: SIGINT: finishing the step, .*\nmlp-xp: interrupted after [1-9]\d* epochs; ", errors)
    assert errors.endswith(f"; go on with: mlp-xp train --resume {tmp_path / 'run'}\n".encode())
    assert b"Traceback" not in errors
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"run.json", "curve.jsonl", "steps.csv", "weights.safetensors", "loss.png", "checkpoints"}


def test_a_terminal_gets_a_bar_and_the_results_stay_clean() -> None:
    """Standard error is a terminal, standard output a pipe: the bar is on the former alone."""
    fcntl, pty, termios = (pytest.importorskip(name, reason="POSIX's") for name in ("fcntl", "pty", "termios"))
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    shown = b""
    with started([*COMMAND, "train", *QUICK], stdout=subprocess.PIPE, stderr=end) as command:
        os.close(end)
        try:
            while chunk := os.read(terminal, 1 << 16):
                shown += chunk
        except OSError:  # how Linux says that the other end is closed
            pass
        os.close(terminal)
        output, _ = command.communicate(timeout=60)
    assert command.returncode == 0
    assert [line[:13] for line in output.splitlines()] == [b"#summary:   0", b"#summary:   1"]
    assert b"digits on numpy:   0%|" in shown
    assert b"#summary" not in shown
    assert b"\rmlp-xp: nothing is kept" in shown  # the bar is gone when the command ends


def test_ctrl_c_while_it_starts_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mlp_xp.cli.import_module", interrupted)
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "mlp-xp: interrupted\n"


def test_a_console_without_every_character_is_written_to() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "mlp_xp", "train", "--replicas", "2", "--epochs", "1", "--hidden", "4"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert r"\xb1" in done.stdout


SMALL = "--epochs 1 --batch-size 10"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize(
    ("command", "picture"),
    [
        (f"train --hidden 2 {SMALL}", "loss.png"),
        (f"train --hidden 2 {SMALL} --replicas 2", "loss.png"),
        (f"compare --backends numpy,readonly --hidden 2 {SMALL}", "compare.png"),
        (f"study gradients --depth 2 --width 2 --pretrain-epochs 1 {SMALL}", "gradients.png"),
        ("study kmeans --clusters 2", "kmeans.png"),
        ("study pca", "pca.png"),
    ],
)
def test_a_file_of_any_name_is_drawn(command: str, picture: str, tmp_path: Path) -> None:
    """It may have dollars, which are no mathematics, and bytes that are no text."""
    data = tmp_path / os.fsdecode(b"a_$x_{1$caf\xe9.csv")
    rows = np.random.default_rng(0).normal(size=(40, 3)).tolist()
    data.write_text("".join(f"{i % 2},{','.join(map(repr, row))}\n" for i, row in enumerate(rows)))
    out = tmp_path / "out"
    assert main([*command.split(), "--data", str(data), "--out", str(out)]) in (0, 1)
    assert (out / picture).read_bytes().startswith(b"\x89PNG")
