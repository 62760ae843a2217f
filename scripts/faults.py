"""A disk that fails at a chosen operation, to try what a run writes against a fault at every single point."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlp_xp.disk import Disk


class FaultyDisk(Disk):
    """Counts operations, and lets the fault happen instead of one of them.

    Parameters
    ----------
    at : int
        The operation's number, from 0; none if there are fewer.
    fault : callable
        Raises, or ends the process. Of a write, half is on the disk before.
    lasting : bool
        Let it happen instead of all operations from that one on.
    """

    def __init__(self, at: int, fault: Callable[[], None], *, lasting: bool = False) -> None:
        self.at, self._fault, self._lasting = at, fault, lasting
        self.operations: list[str] = []

    def _count(self, name: str, path: Path | None = None) -> bool:
        self.operations.append(name if path is None else f"{name} {path.name}")
        number = len(self.operations) - 1
        return number == self.at or (self._lasting and number > self.at >= 0)

    def write(self, descriptor: int, content: memoryview) -> int:
        """Write, and count."""
        if self._count("write"):
            os.write(descriptor, content[: len(content) // 2])
            self._fault()
        return super().write(descriptor, content)


def _faulty(name: str) -> Any:
    def operation(self: FaultyDisk, *arguments: Any) -> Any:
        path = arguments[0] if isinstance(arguments[0], Path) else None
        if self._count(name, path):
            self._fault()
        return getattr(Disk, name)(self, *arguments)

    return operation


OPERATIONS = (
    *("create", "open_read", "open_end", "open_locked", "truncate", "sync", "rename", "sync_folder", "remove"),
    "make_folder",
)
for _name in OPERATIONS:
    setattr(FaultyDisk, _name, _faulty(_name))
