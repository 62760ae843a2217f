"""Signals: the first asks, the second ends, and nothing is left of the watch over them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from mlp_xp.stopping import AT_ONCE, Stop, stopping

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX's signals")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    threads = threading.active_count()
    yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert threading.active_count() == threads
    assert signal.set_wakeup_fd(-1) == -1


def never() -> None:
    raise AssertionError("there was no second signal")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_only_asks(number: signal.Signals) -> None:
    told: list[Stop] = []
    stop = Stop()
    with stopping(stop, told.append, never):
        assert not stop()
        assert stop.exit_code == 0
        signal.raise_signal(number)
        assert stop()
        assert (stop.signal, stop.exit_code) == (number, 128 + number)
    assert told == [stop]


def test_what_comes_while_the_first_is_announced_is_no_second() -> None:
    """However slow the terminal is, on which that is said."""
    stop = Stop()

    def announce(_: Stop) -> None:
        time.sleep(2 * AT_ONCE)

    with stopping(stop, announce, never):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(AT_ONCE / 2)
        signal.raise_signal(signal.SIGTERM)
    assert stop()


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        stop = Stop()
        with stopping(stop, lambda _: None, never):
            signal.raise_signal(signal.SIGINT)
            assert not stop()
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_can_do_without() -> None:
    found: list[bool] = []

    def work() -> None:
        stop = Stop()
        with stopping(stop, lambda _: None, never):
            found.append(stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]


DEEP = """
import hashlib, os, sys
from mlp_xp.stopping import Stop, stopping
with stopping(Stop(), lambda stop: os.write(2, b"asked, "), lambda: os.write(2, b"at once")):
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # minutes in C, where no handler of Python's runs
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("heard", [True, False], ids=["heard", "nobody reads"])
def test_the_second_signal_ends_at_once_also_within_a_librarys_code(heard: bool, number: signal.Signals) -> None:
    pipe, code = subprocess.PIPE, DEEP if heard else DEEP.replace("lambda: os.write(2,", "lambda: os.write(99,")
    with subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for pause in (0.005, 2 * AT_ONCE):  # as `timeout` does, and as a user does
            process.send_signal(number)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(pause)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (128 + number, b"asked, at once" if heard else b"asked, ")
