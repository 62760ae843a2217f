"""Stopping at Ctrl-C or at the system's word: first politely, so that all can be saved, then at once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AT_ONCE = 0.5
"""Seconds after the first signal in which others are the same one: ``timeout`` signals a process and then its group."""
_OVER = 0
"""No signal: what ends the watching thread."""


class Stop:
    """Whether somebody wants the work to stop; call it to ask.

    Attributes
    ----------
    signal : signal.Signals or None
        The first that came.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __call__(self) -> bool:
        """Tell whether a signal came."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """What a shell reports of a program that the signal ended, 128 + its number; 0 if there was none."""
        return 0 if self.signal is None else 128 + self.signal


@contextlib.contextmanager
def stopping(stop: Stop, on_signal: Callable[[Stop], None], on_second: Callable[[], None]) -> Iterator[None]:
    """Catch SIGINT and SIGTERM while the ``with`` block lasts: the first asks to stop, a second one ends the process.

    What comes within `AT_ONCE` seconds is the first one again. The second is seen by a thread of its own, so that it
    also ends a process that is deep in a library's code, where Python's own handlers wait for that to return. Outside
    of the main thread no signal can be caught, and none is.

    Parameters
    ----------
    stop : Stop
        Told of the first signal.
    on_signal : callable
        Told of the first signal, by that thread: Python's own handlers may have to wait. It must not raise.
    on_second : callable
        Called by that thread right before the process ends with 128 + the signal's number and no more ado.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _: FrameType | None = None) -> None:
        if stop.signal is None:
            stop.signal = signal.Signals(number)

    def on_first(number: int) -> None:
        ask(number)
        on_signal(stop)

    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(receiver, on_first, on_second), name="signals", daemon=True)
    watcher.start()
    # Whoever started this program in the background may have it ignore Ctrl-C: that stays so.
    caught = [each for each in SIGNALS if signal.getsignal(each) != signal.SIG_IGN]
    before = {}
    wakeup = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)  # first: what is caught is announced
    try:
        for each in caught:
            before[each] = signal.signal(each, ask)
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        sender.send(bytes([_OVER]))
        watcher.join()
        receiver.close()
        sender.close()


def _watch(receiver: socket.socket, on_first: Callable[[int], None], on_second: Callable[[], None]) -> None:
    """Wait for the signals, whose numbers Python's own C code writes as soon as they come."""
    first = None
    while (number := receiver.recv(1)[0]) != _OVER:
        if number not in SIGNALS:
            continue
        if first is None:
            on_first(number)
            first = time.monotonic()  # not before: what came while it was announced has waited
        elif time.monotonic() - first >= AT_ONCE:
            try:
                on_second()
                sys.stderr.flush()
            finally:  # whatever became of the terminal
                os._exit(128 + number)
