"""What a solver is given: the objective and the rows it learns from, on a device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array, PyTree, leaves, rebuild
from mlp_xp.backend import Backend
from mlp_xp.batches import DeviceData
from mlp_xp.inference import EvaluationStep, infer
from mlp_xp.namespaces import is_foreign
from mlp_xp.network import Parameters, map_parameters
from mlp_xp.objective import Objective
from mlp_xp.segments import DeviceRows

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Problem:
    """A network's objective over some rows.

    Attributes
    ----------
    objective : Objective
        Without the penalty, which is ``alpha`` / 2 × the sum of all squared weights / the sum of a batch's row weights.
    alpha : float
    data : DeviceData
        All rows.
    targets : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        Those of ``data``, on the host.
    weights : ndarray of float64, shape (n_samples,), or None
        Of the rows.
    backend : Backend
    arithmetic : Arithmetic
    dtype : str
        Of the parameters.
    """

    objective: Objective
    alpha: float
    data: DeviceData
    targets: NDArray[Any]
    weights: NDArray[np.float64] | None
    backend: Backend
    arithmetic: Arithmetic
    dtype: str

    @property
    def rows(self) -> DeviceRows:
        """The rows that a loop takes batches of."""
        return DeviceRows(self.data, self.backend)

    def objective_of_batch(self, n_rows: int) -> Objective:
        """Return the objective of any batch of so many rows that count alike."""
        return replace(self.objective, l2=self.alpha / n_rows)

    def cast(self, tree: PyTree) -> PyTree:
        """Return arrays on the device in the training's type."""
        xp, dtype = self.backend.xp, self.arithmetic.dtype
        return rebuild(tree, (xp.astype(array, dtype, copy=False) for array in leaves(tree)))

    def evaluate(self, parameters: Parameters, numbers: NDArray[np.int32]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return losses, shape (n,), and predictions, (n, n_outputs), of the rows of those numbers, on the host."""
        step = EvaluationStep(self.objective, 1.0, self.arithmetic.for_inference())
        parts = infer(step, parameters, self.rows, numbers, self.backend)
        hosts = [[self.backend.to_host(y) for y in ys] for ys in parts]
        n = len(numbers)
        losses = np.concatenate([losses.ravel() for losses, _ in hosts])[:n]
        predictions = np.concatenate([values.reshape(-1, values.shape[-1]) for _, values in hosts])[:n]
        return losses, predictions

    def to_device(self, parameters: Parameters) -> Parameters:
        """Return parameters, of the host or on the device already, as the training takes them."""
        xp, arithmetic = self.backend.xp, self.arithmetic

        def move(array: Array) -> Array:
            if is_foreign(array):
                return arithmetic.round_state(xp.astype(array, arithmetic.dtype, copy=False))
            return arithmetic.round_state(self.backend.asarray(array, self.dtype))

        return map_parameters(move, parameters)
