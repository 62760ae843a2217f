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
    """

    def __init__(self, at: int, fault: Callable[[], None]) -> None:
        self.at, self._fault = at, fault
        self.operations: list[str] = []

    def _count(self, name: str, path: Path | None = None) -> bool:
        self.operations.append(name if path is None else f"{name} {path.name}")
        return len(self.operations) - 1 == self.at

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


for _name in ("create", "open_end", "open_locked", "sync", "rename", "sync_folder", "remove", "make_folder"):
    setattr(FaultyDisk, _name, _faulty(_name))
