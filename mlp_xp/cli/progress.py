"""Progress, on a terminal only: a bar on standard error, so that standard output and logs stay clean."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(items: Iterable[Item], total: int, label: str, unit: str = "epoch", *, n_done: int = 0) -> Iterator[Item]:
    """Hand the items on and show how far they are; nothing is shown where standard error is not a terminal."""
    with tqdm(total=total, desc=label, unit=unit, disable=None, leave=False, initial=n_done) as bar:
        for item in items:
            bar.update()
            yield item


def pretraining(total: int, n_done: int = 0) -> Callable[[object], None]:
    """Return what is to be called after every epoch of a pre-training: it shows how far that is, until it is over."""
    bars: list[tqdm[None]] = []

    def advance(_: object) -> None:
        if not bars:  # not before: what is said first would be written into it
            bars.append(tqdm(total=total, desc="pre-training", unit="epoch", disable=None, leave=False, initial=n_done))
        bars[0].update()
        if bars[0].n >= total:
            bars[0].close()

    return advance


def say(line: str) -> None:
    """Print a line of results on standard output, above the bar if there is one, at once also into a pipe."""
    tqdm.write(line)
    sys.stdout.flush()


def note(line: str) -> None:
    """Print a remark on standard error, where it does not mix with the results; above the bar if there is one."""
    with contextlib.suppress(OSError):  # nobody reads it: no reason to stop
        tqdm.write(f"mlp-xp: {line}", file=sys.stderr)


def note_at_once(line: str) -> None:
    """Print a remark where `note` may not: in a signal's handler, which may have interrupted a print."""
    over_the_bar = "\r\x1b[K" if sys.stderr.isatty() else ""
    with contextlib.suppress(OSError, ValueError):  # the terminal may be gone, and then the signal counts all the more
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{over_the_bar}mlp-xp: {line}\n".encode())
