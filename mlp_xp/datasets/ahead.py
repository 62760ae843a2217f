"""Reading ahead: what is needed next comes from the disk while what was read before is in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")
_U = TypeVar("_U")


def read_ahead(read: Callable[[_T], _U], items: Iterable[_T]) -> Iterator[_U]:
    """Yield ``read(item)`` of every item; while it is in use, another thread reads the next one."""
    with ThreadPoolExecutor(1) as thread:
        pending = None
        for item in items:
            upcoming = thread.submit(read, item)
            if pending is not None:
                yield pending.result()
            pending = upcoming
        if pending is not None:
            yield pending.result()
