"""One step of training, as a pure function that every backend's `scan` can run."""

from __future__ import annotations

from dataclasses import dataclass

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array, PyTree
from mlp_xp.batches import DeviceData, gather
from mlp_xp.network import Parameters
from mlp_xp.objective import Objective
from mlp_xp.optimizers import Optimizer


@dataclass(frozen=True)
class TrainingStep:
    """A step for `Backend.scan`: one batch's loss, its gradient, and the optimiser's update.

    Equal settings give equal steps, so a backend that compiles does so once for all of them.
    """

    objective: Objective
    optimizer: Optimizer
    scale: float
    arithmetic: Arithmetic

    def __call__(
        self, carry: tuple[Parameters, PyTree], x: tuple[Array, ...], constants: DeviceData
    ) -> tuple[tuple[Parameters, PyTree], tuple[Array, ...]]:
        """Train on the row numbers in ``x[0]``."""
        parameters, state = carry
        n_outputs = self.objective.network.layer_sizes[-1]
        features, targets = gather(constants, x[0], self.scale, n_outputs, self.arithmetic)
        loss, gradient = self.objective.value_and_gradient(parameters, features, targets, self.arithmetic)
        return self.optimizer.update(gradient, state, parameters, self.arithmetic), (loss,)
