"""A network with its parameters on a device: what training yields, and what predicts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array, PyTree
from mlp_xp.backend import Backend, Step
from mlp_xp.batches import DeviceData, features_to_device, gather, gather_features
from mlp_xp.datasets.dataset import as_numbers
from mlp_xp.errors import DataError
from mlp_xp.network import Parameters, map_parameters
from mlp_xp.objective import Objective

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

CHUNK_ROWS = 1024
"""Most rows that are pushed through the network at once when nothing is learnt; of N networks, the Nth part.

So many that their products run at full speed, so few that what lies between them stays in a processor's cache."""


class Prediction(NamedTuple):
    """What a model says of some rows, on the host.

    Attributes
    ----------
    labels : ndarray of int64, shape (n,), or None
        The likeliest class; None for a regression.
    values : ndarray of shape (n, n_outputs)
        Probabilities of the classes (for a single output: of class 1), or the numbers predicted.
    """

    labels: NDArray[np.int64] | None
    values: NDArray[Any]


class Evaluation(NamedTuple):
    """A model's mean loss over all rows (without penalty), and the share of right labels (None: regression)."""

    loss: float
    accuracy: float | None


def mean(values: NDArray[np.floating[Any]]) -> float:
    """Return the mean of the exact sum: the same bits whatever order a library would add in."""
    if not np.isfinite(values).all():
        return math.nan if np.isnan(values).any() else math.inf
    try:
        return math.fsum(values.tolist()) / values.size
    except OverflowError:  # of the sum, not of the mean
        return math.fsum((values / values.size).tolist())


@dataclass(frozen=True)
class Model:
    """A network, its parameters, and all that is needed to apply it.

    The parameters may have a leading axis: then it is many networks side by side, and so are predictions and losses.

    Attributes
    ----------
    objective : Objective
        Holds the network and the loss.
    parameters : tuple of Layer
        Arrays of the backend.
    scale : float
        Factor of stored features.
    n_classes : int or None
        None for a regression.
    backend : Backend
    arithmetic : Arithmetic
    dtype : str
        Name of the parameters' type.
    """

    objective: Objective
    parameters: Parameters
    scale: float
    n_classes: int | None
    backend: Backend
    arithmetic: Arithmetic
    dtype: str

    def predict(self, features: ArrayLike) -> Prediction:
        """Predict rows, stored as the training's were (``scale`` is applied).

        Parameters
        ----------
        features : array-like of shape (n, n_features)
            Whatever NumPy can read.

        Raises
        ------
        DataError
            If the number of features is not the network's, there is no row, or a value is no finite number.
        """
        source, wanted = "rows to predict", self.objective.network.layer_sizes[0]
        host = as_numbers(features, source, "feature")
        if host.ndim != 2 or host.shape[1] != wanted or host.shape[0] == 0:
            raise DataError(f"features of shape {host.shape}: the network takes one or more rows of {wanted}")
        step = PredictionStep(self.objective, self.scale, self.arithmetic)
        (values,) = self._infer(
            step, features_to_device(host, self.backend, self.dtype, self.arithmetic, source), len(host)
        )
        return Prediction(self._labels(values), values)

    def evaluate(self, data: DeviceData) -> Evaluation:
        """Return mean loss and accuracy over all rows of a data set that is on the model's device."""
        (evaluation,) = self.evaluate_each(data)
        return evaluation

    def evaluate_each(self, data: DeviceData) -> list[Evaluation]:
        """Return what `evaluate` does, of each of the networks side by side."""
        step = EvaluationStep(self.objective, self.scale, self.arithmetic)
        losses, values = self._infer(step, data, data.features.shape[0])
        labels = self._labels(values)
        right = None if labels is None else np.atleast_2d(labels == self.backend.to_host(data.targets))
        return [
            Evaluation(mean(of_one), None if right is None else float(np.mean(right[i])))
            for i, of_one in enumerate(np.atleast_2d(losses))
        ]

    def host_parameters(self) -> Parameters:
        """Return copies of the parameters as NumPy arrays."""
        return map_parameters(lambda array: np.array(self.backend.to_host(array)), self.parameters)

    def _labels(self, values: NDArray[Any]) -> NDArray[np.int64] | None:
        if self.n_classes is None:
            return None
        if values.shape[-1] == 1:
            return (values[..., 0] > 0.5).astype(np.int64)
        labels: NDArray[np.int64] = np.argmax(values, axis=-1).astype(np.int64)
        return labels

    def _infer(self, step: Step, constants: PyTree, n: int) -> list[NDArray[Any]]:
        """Return what a step says of each of n rows, on the host: arrays of shape (..., n, …)."""
        leading = self.parameters[0].bias.shape[:-1]
        n_chunks = min(-(-n * math.prod(leading) // CHUNK_ROWS), n)
        rows_per_chunk = -(-n // n_chunks)
        # Chunks of one size compile once; the last one is filled up with rows whose results are cut off again.
        rows = np.arange(n_chunks * rows_per_chunk) % n
        xs = (self.backend.asarray(rows.reshape(n_chunks, rows_per_chunk), "int32"),)
        _, ys = self.backend.scan(step, self.parameters, xs, constants)
        axis = len(leading)  # of the rows; the chunks' axis is moved to where it is beside it
        hosts = (np.moveaxis(self.backend.to_host(y), 0, axis) for y in ys)
        filled_up = (host.reshape(*leading, -1, *host.shape[axis + 2 :]) for host in hosts)
        return [host[(*[slice(None)] * axis, slice(n))] for host in filled_up]


@dataclass(frozen=True)
class PredictionStep:
    """A step for `Backend.scan`: predictions of some rows of features; the carried parameters stay."""

    objective: Objective
    scale: float
    arithmetic: Arithmetic

    def __call__(
        self, carry: Parameters, x: tuple[Array, ...], constants: Array
    ) -> tuple[Parameters, tuple[Array, ...]]:
        """Take the row numbers in ``x[0]``."""
        features = gather_features(constants, x[0], self.scale, self.arithmetic)
        return carry, (self.objective.predict(carry, features, self.arithmetic),)


@dataclass(frozen=True)
class EvaluationStep:
    """A step for `Backend.scan`: losses and predictions of some rows; the carried parameters stay."""

    objective: Objective
    scale: float
    arithmetic: Arithmetic

    def __call__(
        self, carry: Parameters, x: tuple[Array, ...], constants: DeviceData
    ) -> tuple[Parameters, tuple[Array, ...]]:
        """Take the row numbers in ``x[0]``."""
        n_outputs = self.objective.network.layer_sizes[-1]
        features, targets = gather(constants, x[0], self.scale, n_outputs, self.arithmetic)
        return carry, self.objective.losses(carry, features, targets, self.arithmetic)
