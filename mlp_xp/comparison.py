"""The same training on several backends, and where and by how much their loss curves part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlp_xp.backend import Backend
from mlp_xp.datasets.dataset import Split
from mlp_xp.errors import TrainingDiverged
from mlp_xp.settings import Settings
from mlp_xp.training import Epoch, train

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Tolerance(NamedTuple):
    """How far two libraries may part: in the first ``early_steps`` steps, and later.

    Relative to the largest loss so far, or to 1 if that is less.
    """

    early_steps: int
    early: float
    late: float


TOLERANCES = {"float32": Tolerance(100, 1e-6, 5e-3), "float64": Tolerance(0, 1e-12, 1e-12)}
"""Rounding alone, as measured on the lab over 4,800 steps: 2.8e-3 in float32, under 1e-15 in float64. Products are
summed in different orders, which shows in the last digits only (with smooth activations 5e-7 over the first five
epochs) until, in float32, some ReLU unit falls on the other side of zero on one of the libraries: from that step on
the two trainings go apart. A longer training, or a learning rate at the edge of divergence, can leave these bounds
without any mistake; float64, where rounding is 1e9 times smaller, tells the two apart."""


@dataclass(frozen=True)
class Difference:
    """The largest difference of two curves and where it is."""

    value: float
    epoch: int
    step: int
    within_tolerance: bool


@dataclass(frozen=True)
class Training:
    """What one backend's training gave.

    Attributes
    ----------
    name : str
        The backend's name.
    description : dict
        What `mlp_xp.backend.Backend.describe` says.
    curve : list of dict
        Per epoch, as `mlp_xp.training.Epoch.row` gives it.
    step_losses : ndarray of float64, shape (n_epochs × n_steps,)
        Every batch's loss over all epochs.
    """

    name: str
    description: dict[str, Any]
    curve: list[dict[str, Any]]
    step_losses: NDArray[np.float64]

    @property
    def device(self) -> str:
        """Name of the device."""
        return str(self.description["device"])

    @property
    def label(self) -> str:
        """Library and device, for people."""
        return f"{self.name} ({self.device})"

    @property
    def seconds(self) -> float:
        """Wall-clock time of all epochs."""
        return float(sum(row["seconds"] for row in self.curve))


@dataclass(frozen=True)
class Comparison:
    """Trainings with the same settings and data; the first is what the others are held against."""

    settings: Settings
    data_name: str
    trainings: Sequence[Training]

    @property
    def title(self) -> str:
        """A line for people."""
        return f"{self.data_name}, {self.settings.dtype}: the same training, {len(self.trainings)} times"

    @property
    def allowed(self) -> NDArray[np.float64]:
        """The largest difference that is taken for rounding, at every step."""
        first = self.trainings[0].step_losses
        tolerance = TOLERANCES[self.settings.dtype]
        early = np.arange(first.size) < tolerance.early_steps
        return np.where(early, tolerance.early, tolerance.late) * np.maximum.accumulate(np.maximum(first, 1.0))

    def difference(self, training: Training) -> Difference:
        """Return the largest difference of a training's batch losses from the first one's."""
        difference = np.abs(training.step_losses - self.trainings[0].step_losses)
        where = int(np.argmax(difference))
        steps_per_epoch = difference.size // self.settings.epochs
        within = bool(np.all(difference <= self.allowed))
        return Difference(float(difference[where]), *divmod(where, steps_per_epoch), within)

    @property
    def within_tolerance(self) -> bool:
        """Whether every backend stays within the dtype's tolerance."""
        return all(self.difference(training).within_tolerance for training in self.trainings)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON can hold it."""
        return {
            "data": self.data_name,
            "settings": self.settings.to_dict(),
            "tolerance": TOLERANCES[self.settings.dtype]._asdict(),
            "within_tolerance": self.within_tolerance,
            "backends": [
                {
                    "name": training.name,
                    "description": training.description,
                    "seconds": training.seconds,
                    "difference": vars(self.difference(training)),
                    "curve": training.curve,
                    "step_losses": training.step_losses.tolist(),
                }
                for training in self.trainings
            ],
        }


def compare(
    settings: Settings,
    data: Split,
    backends: Sequence[Backend],
    on_epoch: Callable[[Backend, Epoch], None] | None = None,
) -> Comparison:
    """Train the same network on every backend.

    Parameters
    ----------
    settings : Settings
    data : Split
    backends : sequence of Backend
        The first is the reference.
    on_epoch : callable
        Told of every epoch as soon as it is over.

    Raises
    ------
    SettingsError, TrainingDiverged
        As `mlp_xp.training.train`; the latter names the backend.
    """

    def run(backend: Backend) -> Training:
        curve, step_losses = [], []
        try:
            for epoch in train(settings, data, backend):
                if on_epoch is not None:
                    on_epoch(backend, epoch)
                curve.append(epoch.row())
                step_losses.append(epoch.step_losses)
        except TrainingDiverged as error:
            raise TrainingDiverged(f"{backend.name}: {error}") from error
        return Training(backend.name, backend.describe(), curve, np.concatenate(step_losses))

    return Comparison(settings, data.train.name, [run(backend) for backend in backends])
