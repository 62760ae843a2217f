"""The epochs of a training as they come, with what none of them tells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from mlp_xp.checkpoint import Checkpoint
from mlp_xp.divergence import LARGEST_GROWTH
from mlp_xp.settings import Settings

Record = TypeVar("Record")
Other = TypeVar("Other")


@dataclass(frozen=True)
class Epochs(Generic[Record]):
    """An iterator over the epochs of a training that also knows how that was begun.

    Attributes
    ----------
    records : iterator
        The epochs.
    start : tuple of Checkpoint or None
        Where every network begins, if not where the settings say: with given parameters, or at a given checkpoint.
    on_divergence : str
    largest_growth : float
        Both as of `mlp_xp.training.train`.
    settings : Settings or None
        Of the training, if known.
    """

    records: Iterator[Record]
    start: tuple[Checkpoint, ...] | None
    on_divergence: str = "stop"
    largest_growth: float = LARGEST_GROWTH
    settings: Settings | None = None

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        return next(self.records)

    def map(self, function: Callable[[Record], Other]) -> Epochs[Other]:
        """Return the same training, with what the function makes of every epoch."""
        mapped = map(function, self.records)
        return Epochs(mapped, self.start, self.on_divergence, self.largest_growth, self.settings)

    def watch(self) -> dict[str, str | float | None]:
        """Return how the losses are watched, as JSON can hold it: it has no infinity."""
        growth = self.largest_growth
        return {"on_divergence": self.on_divergence, "largest_growth": growth if math.isfinite(growth) else None}


def as_epochs(records: Iterable[Record]) -> Epochs[Record]:
    """Return epochs that tell how they were begun; of others it is taken that the settings say all."""
    return records if isinstance(records, Epochs) else Epochs(iter(records), None)
