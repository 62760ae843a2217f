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
        """Train on the row numbers in ``x[0]``, and with the shares and the penalty that may follow.

        Parameters
        ----------
        carry : tuple
            The parameters and the optimiser's state.
        x : tuple of arrays
            Row numbers, int32 of shape (..., n); or these, the ``shares`` and the ``l2`` of
            `mlp_xp.objective.Objective.value_and_gradient`. A batch that is not full may be filled up with any
            rows whose share is 0.
        constants : DeviceData
        """
        parameters, state = carry
        n_outputs = self.objective.network.layer_sizes[-1]
        features, targets = gather(constants, x[0], self.scale, n_outputs, self.arithmetic)
        loss, gradient = self.objective.value_and_gradient(parameters, features, targets, self.arithmetic, *x[1:])
        return self.optimizer.update(gradient, state, parameters, self.arithmetic), (loss,)
