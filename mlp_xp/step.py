"""One step of training, as a pure function that every backend's `scan` can run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array, PyTree
from mlp_xp.batches import DeviceData, gather
from mlp_xp.clipping import clip_by_norm
from mlp_xp.dropout import keep_mask
from mlp_xp.network import Parameters
from mlp_xp.objective import Objective
from mlp_xp.optimizers import Optimizer


class Batch(NamedTuple):
    """Rows to learn from, as `mlp_xp.objective.Objective.value_and_gradient` takes them."""

    features: Array
    targets: Array
    shares: Array | None
    l2: Array | None
    masks: list[Array]


@dataclass(frozen=True)
class TrainingStep:
    """A step for `Backend.scan`: one batch's loss, its gradient, and the optimiser's update.

    Equal settings give equal steps, so a backend that compiles does so once for all of them.

    Parameters
    ----------
    objective : Objective
    optimizer : Optimizer
    scale : float
        Factor of the features.
    arithmetic : Arithmetic
    dropout : float
        Share of the hidden units that are left out, in [0, 1).
    max_gradient_norm : float or None
        A longer gradient is shortened to that norm; None for never.
    n_frozen : int
        How many of the first layers are not learnt; the optimiser's state is that of the others.
    """

    objective: Objective
    optimizer: Optimizer
    scale: float
    arithmetic: Arithmetic
    dropout: float = 0.0
    max_gradient_norm: float | None = None
    n_frozen: int = 0

    def __call__(
        self, carry: tuple[Parameters, PyTree], x: tuple[Array, ...], constants: DeviceData
    ) -> tuple[tuple[Parameters, PyTree], tuple[Array, ...]]:
        """Train on the rows of a batch.

        Parameters
        ----------
        carry : tuple
            The parameters and the optimiser's state.
        x : tuple of arrays
            Row numbers, int32 of shape (..., n). Then, with dropout, the keys of the hidden layers' masks, int32 of
            shape (..., n_hidden, 2). Then, perhaps, ``shares`` and ``l2`` of
            `mlp_xp.objective.Objective.value_and_gradient`: a batch that is not full may be filled up with any rows
            whose share is 0.
        constants : DeviceData
        """
        carry, loss, _ = self.descend(carry, self.batch(x, constants))
        return carry, (loss,)

    def batch(self, x: tuple[Array, ...], constants: DeviceData) -> Batch:
        """Return what the step is taken on."""
        rows, *weighting = x
        masks: list[Array] = []
        if self.dropout:
            keys, *weighting = weighting
            masks = [
                keep_mask(keys[..., i, :], (*rows.shape, n_out), self.dropout, self.arithmetic)
                for i, n_out in enumerate(self.objective.network.layer_sizes[1:-1])
            ]
        n_outputs = self.objective.network.layer_sizes[-1]
        features, targets = gather(constants, rows, self.scale, n_outputs, self.arithmetic)
        shares, l2 = weighting or (None, None)
        return Batch(features, targets, shares, l2, masks)

    def descend(
        self, carry: tuple[Parameters, PyTree], batch: Batch
    ) -> tuple[tuple[Parameters, PyTree], Array, Parameters]:
        """Return the carry after the step, the loss before it, and the gradient it followed."""
        parameters, state = carry
        features, targets, shares, l2, masks = batch
        loss, gradient, learnt = self.objective.learn(
            parameters, features, targets, self.arithmetic, shares, l2, masks, self.n_frozen
        )
        if self.max_gradient_norm is not None:
            gradient = clip_by_norm(gradient, self.max_gradient_norm, self.arithmetic)
        learnt, state = self.optimizer.update(gradient, state, learnt, self.arithmetic)
        return ((*parameters[: self.n_frozen], *learnt), state), loss, gradient
