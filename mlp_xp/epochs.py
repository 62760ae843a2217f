"""The epochs of a training as they come, with what none of them tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from mlp_xp.checkpoint import Checkpoint

AnyEpoch = TypeVar("AnyEpoch")
Other = TypeVar("Other")


@dataclass(frozen=True)
class Epochs(Generic[AnyEpoch]):
    """An iterator over the epochs of a training that also knows how that was begun.

    Attributes
    ----------
    records : iterator
        The epochs.
    start : tuple of Checkpoint or None
        Where every network begins, if not where the settings say: with given parameters, or at a given checkpoint.
    on_divergence : str
        As of `mlp_xp.training.train`.
    """

    records: Iterator[AnyEpoch]
    start: tuple[Checkpoint, ...] | None
    on_divergence: str

    def __iter__(self) -> Iterator[AnyEpoch]:
        return self

    def __next__(self) -> AnyEpoch:
        return next(self.records)

    def map(self, function: Callable[[AnyEpoch], Other]) -> Epochs[Other]:
        """Return the same training, with what the function makes of every epoch."""
        return Epochs(map(function, self.records), self.start, self.on_divergence)
