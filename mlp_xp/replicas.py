"""Many at once: networks that differ in their seed alone, trained in one batched computation, and their spread.

It answers whether a difference, between libraries or between settings, is larger than what the seed alone makes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlp_xp.backend import Backend
from mlp_xp.checkpoint import Checkpoint
from mlp_xp.datasets.dataset import Split
from mlp_xp.divergence import LARGEST_GROWTH
from mlp_xp.epochs import Epochs
from mlp_xp.errors import SettingsError
from mlp_xp.pretraining import Pretrained
from mlp_xp.settings import Settings
from mlp_xp.training import NUMBERS, Epoch, never, train_each

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

FEWEST = 2
"""Replicas: of a single one there is no spread."""


class Spread(NamedTuple):
    """How a number varies between replicas; all have the number's shape.

    Attributes
    ----------
    mean : ndarray of float64, shape (...)
    standard_deviation : ndarray of float64, shape (...)
        The estimate from a sample: the squares are divided by N - 1.
    least, most : ndarray of float64, shape (...)
    """

    mean: NDArray[np.float64]
    standard_deviation: NDArray[np.float64]
    least: NDArray[np.float64]
    most: NDArray[np.float64]

    @classmethod
    def of(cls, values: ArrayLike) -> Spread:
        """Return the spread over the last axis, whose N ≥ 2 entries are the replicas'."""
        each = np.asarray(values, dtype=np.float64)
        largest = np.max(np.abs(each), axis=-1)
        unit = np.where(largest > 0, largest, 1.0)  # the square of a huge loss would overflow
        relative = each / unit[..., None]
        mean, deviation = np.mean(relative, axis=-1) * unit, np.std(relative, axis=-1, ddof=1) * unit
        return cls(mean, deviation, np.min(each, axis=-1), np.max(each, axis=-1))

    def row(self) -> dict[str, float]:
        """Return the four numbers of a single number's spread, as JSON can hold them."""
        return {name: float(value) for name, value in self._asdict().items()}


@dataclass(frozen=True)
class ReplicatedEpoch:
    """What one pass over the training rows gave every replica.

    Attributes
    ----------
    replicas : tuple of Epoch
        Each is what its training alone would have yielded, but for the seconds.
    """

    replicas: tuple[Epoch, ...]

    @property
    def epoch(self) -> int:
        """From 0."""
        return self.replicas[0].epoch

    @property
    def seconds(self) -> float:
        """Wall-clock time of the epoch for all replicas together, evaluation included."""
        return max(replica.seconds for replica in self.replicas)

    @property
    def step_losses(self) -> NDArray[np.float64]:
        """Losses of the batches, shape (n_steps, n_replicas)."""
        return np.stack([replica.step_losses for replica in self.replicas], axis=-1)

    @property
    def loss(self) -> Spread:
        """Of the means of the batch losses."""
        return Spread.of([replica.loss for replica in self.replicas])

    @property
    def test_loss(self) -> Spread:
        """Of the mean losses over the test rows."""
        return Spread.of([replica.test_loss for replica in self.replicas])

    @property
    def accuracy(self) -> Spread | None:
        """Of the shares of test rows that are labelled rightly; None for a regression."""
        shares = [replica.accuracy for replica in self.replicas if replica.accuracy is not None]
        return Spread.of(shares) if shares else None

    def row(self) -> dict[str, Any]:
        """Return the spreads, as a line of the replicas' ``curve.jsonl`` has them."""
        names = *NUMBERS, "seconds"
        return spread_of_rows([{name: getattr(replica, name) for name in names} for replica in self.replicas])

    def summary(self) -> str:
        """Return the lab's line, as `mlp_xp.training.Epoch.summary` has it, with mean ± standard deviation."""
        loss, deviation = self.loss[:2]
        result, form = (self.test_loss, ".4f") if self.accuracy is None else (self.accuracy, ".2%")
        return (
            f"#summary:{self.epoch: 4d} {loss:.4f} ± {deviation:.4f} "
            f"{result.mean:{form}} ± {result.standard_deviation:{form}}"
        )


def spread_of_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the spreads of an epoch, given every replica's `mlp_xp.training.Epoch.row`."""
    each = {name: [row[name] for row in rows] for name in ("loss", "test_loss", "accuracy")}
    spreads = {name: None if None in values else Spread.of(values).row() for name, values in each.items()}
    return {"epoch": rows[0]["epoch"], **spreads, "seconds": max(row["seconds"] for row in rows)}


def settings_of_replicas(settings: Settings, n: int) -> list[Settings]:
    """Return the settings of every replica: the seed counts up from that of the settings."""
    return [replace(settings, seed=settings.seed + i) for i in range(n)]


def train_replicas(
    settings: Settings,
    data: Split,
    backend: Backend,
    n: int,
    *,
    start: Sequence[Checkpoint] | None = None,
    on_pretrained: Callable[[Pretrained], None] | None = None,
    stop: Callable[[], bool] = never,
    on_divergence: str = "stop",
    largest_growth: float = LARGEST_GROWTH,
) -> Epochs[ReplicatedEpoch]:
    """Train n networks in one batched computation, epoch by epoch.

    Replica r is the training that `mlp_xp.training.train` makes of the settings with the seed ``settings.seed + r``:
    the same initial parameters and batches, hence the same curve within rounding, and the same bits in
    exact arithmetic.

    Parameters
    ----------
    settings : Settings
    data : Split
        Not to be written to before the last epoch: a backend may take the memory as it is.
    backend : Backend
        Where it is computed.
    n : int
        How many, ≥ 2.
    start : sequence of Checkpoint, optional
        Go on from there: one of each replica, all of one moment.
    on_pretrained, stop, on_divergence, largest_growth
        As of `mlp_xp.training.train`.

    Yields
    ------
    ReplicatedEpoch
        One record per epoch, as soon as it is over.

    Raises
    ------
    SettingsError
        If ``n`` is no such number, or as `mlp_xp.training.train`.
    DataError
        As `mlp_xp.training.train`. Both are raised by the call itself.
    TrainingDiverged
        If a loss of any replica is not finite; names its seed.
    """
    if not isinstance(n, int) or isinstance(n, bool) or n < FEWEST:
        raise SettingsError(f"replicas = {n!r}: must be a whole number ≥ {FEWEST}")
    each = train_each(
        settings,
        data,
        backend,
        start=start,
        replicas=n,
        on_pretrained=on_pretrained,
        stop=stop,
        on_divergence=on_divergence,
        largest_growth=largest_growth,
    )
    return each.map(ReplicatedEpoch)
