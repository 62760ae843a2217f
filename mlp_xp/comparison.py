"""The same training on several backends, and where and by how much their loss curves part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlp_xp.backend import Backend
from mlp_xp.datasets.dataset import Split
from mlp_xp.errors import SettingsError, TrainingDiverged
from mlp_xp.replicas import ReplicatedEpoch, Spread, train_replicas
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


EXACT = Tolerance(0, 0.0, 0.0)
TOLERANCES = {"float32": Tolerance(100, 1e-6, 5e-3), "float64": Tolerance(0, 1e-12, 1e-12)}
"""Rounding alone, as measured on the lab over 4,800 steps: 2.8e-3 in float32, under 1e-15 in float64. Products are
summed in different orders, which shows in the last digits only (with smooth activations 5e-7 over the first five
epochs) until, in float32, some ReLU unit falls on the other side of zero on one of the libraries: from that step on
the two trainings go apart. A longer training, or a learning rate at the edge of divergence, can leave these bounds
without any mistake; float64, where rounding is 1e9 times smaller, tells the two apart."""


@dataclass(frozen=True)
class Place:
    """A step of a training; both numbers count from 0."""

    epoch: int
    step: int

    def __str__(self) -> str:
        return f"epoch {self.epoch}, step {self.step}"


@dataclass(frozen=True)
class Difference:
    """How far a curve goes from the reference, over the steps that both have.

    Attributes
    ----------
    value : float or None
        The largest difference; None if there is no step to compare.
    at : Place or None
        Where that is.
    first_outside : Place or None
        The first step beyond the tolerance; None if there is none.
    within_tolerance : bool
        Whether there is none, the training came to its end and, in exact arithmetic, left the same bits.
    same_bits : bool
        Whether losses, parameters and optimiser's state are the same to the last bit after every epoch.
    """

    value: float | None
    at: Place | None
    first_outside: Place | None
    within_tolerance: bool
    same_bits: bool


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
    diverged : str or None
        If the training diverged: where, and what was not finite. The epochs before that one are kept.
    """

    name: str
    description: dict[str, Any]
    curve: list[dict[str, Any]]
    step_losses: NDArray[np.float64]
    diverged: str | None = None

    @property
    def device(self) -> str:
        """Name of the device."""
        return str(self.description["device"])

    @property
    def label(self) -> str:
        """Library and device, for people."""
        return f"{self.name} ({self.device})"

    @property
    def chain(self) -> str | None:
        """The last epoch's `mlp_xp.digests.Digests.chain`."""
        return str(self.curve[-1]["sha256_chain"]) if self.curve else None

    @property
    def seconds(self) -> float:
        """Wall-clock time of all epochs."""
        return float(sum(row["seconds"] for row in self.curve))


@dataclass(frozen=True)
class SeedSpread:
    """What the seed alone changes: trainings on the reference that differ in nothing else.

    Attributes
    ----------
    n : int
        Number of seeds, counted up from that of the settings.
    standard_deviation : ndarray of float64, shape (n_epochs × n_steps,)
        Of every batch's loss, between the seeds.
    """

    n: int
    standard_deviation: NDArray[np.float64]

    def of_epoch(self, epoch: int, n_epochs: int) -> float:
        """Return the standard deviation of an epoch's batch losses: the root of its mean square over the steps."""
        deviations = np.split(self.standard_deviation, n_epochs)[epoch]
        return float(np.sqrt(np.mean(deviations**2)))


@dataclass(frozen=True)
class Comparison:
    """Trainings with the same settings and data; the first is what the others are held against.

    ``seeds`` says, if that was asked for, how much the reference's own curve varies with the seed.
    """

    settings: Settings
    data_name: str
    trainings: Sequence[Training]
    seeds: SeedSpread | None = None

    @property
    def title(self) -> str:
        """A line for people."""
        arithmetic = f"{self.settings.arithmetic} arithmetic in {self.settings.dtype}"
        return f"{self.data_name}, {arithmetic}: the same training, {len(self.trainings)} times"

    @property
    def tolerance(self) -> Tolerance:
        """What is taken for rounding: in exact arithmetic, nothing."""
        return EXACT if self.settings.arithmetic == "exact" else TOLERANCES[self.settings.dtype]

    @property
    def allowed(self) -> NDArray[np.float64]:
        """The largest difference that is taken for rounding, at every step."""
        first = self.trainings[0].step_losses
        tolerance = self.tolerance
        early = np.arange(first.size) < tolerance.early_steps
        return np.where(early, tolerance.early, tolerance.late) * np.maximum.accumulate(np.maximum(first, 1.0))

    def difference(self, training: Training) -> Difference:
        """Return how far a training's batch losses go from the first one's."""
        first, n = self.trainings[0].step_losses, training.step_losses.size
        if n == 0:
            return Difference(None, None, None, within_tolerance=False, same_bits=False)
        difference = np.abs(training.step_losses - first[:n])
        outside = ~(difference <= self.allowed[:n])  # NaN is outside, too

        def place(step: np.intp) -> Place:
            return Place(*divmod(int(step), first.size // self.settings.epochs))

        first_outside = place(np.argmax(outside)) if np.any(outside) else None
        within = first_outside is None and training.diverged is None
        same_bits = training.chain == self.trainings[0].chain
        if self.tolerance == EXACT:
            within = within and same_bits
        return Difference(float(np.max(difference)), place(np.argmax(difference)), first_outside, within, same_bits)

    @property
    def within_tolerance(self) -> bool:
        """Whether every backend stays within the dtype's tolerance."""
        return all(self.difference(training).within_tolerance for training in self.trainings)

    def beside_seeds(self) -> str:
        """Return a sentence: how the largest difference between the backends compares with that between the seeds."""
        if self.seeds is None:
            raise SettingsError("the spread between seeds is not known: compare with replicas=N")
        differences = [(self.difference(training), training.label) for training in self.trainings[1:]]
        known = [(found.value, found.at, label) for found, label in differences if found.value is not None and found.at]
        if not known:
            return "no other backend finished an epoch: there is no difference to hold against that between seeds"
        value, at, label = max(known, key=lambda one: one[0])
        spread = self.seeds.of_epoch(at.epoch, self.settings.epochs)
        stated = f"{spread:.2e} (standard deviation of a batch's loss)"
        if value == 0.0:
            return f"the backends' curves do not differ; the spread between {self.seeds.n} seeds in epoch 0 is {stated}"
        times = f"{value / spread:.2g} times" if spread else "beyond"
        verdict = "less than" if value < spread else "as much as" if value < 2 * spread else "more than"
        return (
            f"the largest difference between backends, {value:.2e} ({label}, {at}), is {times} the spread between "
            f"{self.seeds.n} seeds in that epoch, {stated}: {verdict} the seed alone changes"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON can hold it."""
        seeds = self.seeds and {"n": self.seeds.n, "standard_deviation": self.seeds.standard_deviation.tolist()}
        return {
            **({} if seeds is None else {"seeds": seeds}),
            "data": self.data_name,
            "settings": self.settings.to_dict(),
            "tolerance": self.tolerance._asdict(),
            "within_tolerance": self.within_tolerance,
            "backends": [
                {
                    "name": training.name,
                    "description": training.description,
                    "seconds": training.seconds,
                    "diverged": training.diverged,
                    "difference": asdict(self.difference(training)),
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
    on_epoch: Callable[[Backend, Epoch | ReplicatedEpoch], None] | None = None,
    replicas: int | None = None,
) -> Comparison:
    """Train the same network on every backend, and, if asked for, with other seeds on the first one.

    Parameters
    ----------
    settings : Settings
    data : Split
    backends : sequence of Backend
        The first is the reference.
    on_epoch : callable
        Told of every epoch as soon as it is over.
    replicas : int, optional
        Number of seeds, ≥ 2, whose spread on the reference the comparison shall know.

    Returns
    -------
    Comparison
        Of a training that diverged, the epochs before that.

    Raises
    ------
    SettingsError
        As `mlp_xp.training.train`, and `mlp_xp.replicas.train_replicas`.
    TrainingDiverged
        If the reference's training diverges, with any of the seeds: there is nothing to hold the others against.
    """
    reference = backends[0]

    def run(backend: Backend) -> Training:
        curve, step_losses, diverged = [], [np.empty(0)], None
        try:
            for epoch in train(settings, data, backend):
                if on_epoch is not None:
                    on_epoch(backend, epoch)
                curve.append(epoch.row())
                step_losses.append(epoch.step_losses)
        except TrainingDiverged as error:
            if backend is reference:
                raise TrainingDiverged(f"{backend.name}: {error}") from error
            diverged = str(error).partition(";")[0]  # what follows is advice
        return Training(backend.name, backend.describe(), curve, np.concatenate(step_losses), diverged)

    def spread(n: int) -> SeedSpread:
        deviations = []
        try:
            for epoch in train_replicas(settings, data, reference, n):
                if on_epoch is not None:
                    on_epoch(reference, epoch)
                deviations.append(Spread.of(epoch.step_losses).standard_deviation)
        except TrainingDiverged as error:
            raise TrainingDiverged(f"{reference.name}: {error}") from error
        return SeedSpread(n, np.concatenate(deviations))

    first = run(reference)
    seeds = None if replicas is None else spread(replicas)  # before the others, since it may end in an error
    return Comparison(settings, data.train.name, [first, *map(run, backends[1:])], seeds)
