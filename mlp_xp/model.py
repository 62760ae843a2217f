"""A network with its parameters on a device: what training yields, and what predicts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.backend import Backend, Step
from mlp_xp.batches import DeviceData, features_to_device
from mlp_xp.datasets.dataset import as_numbers
from mlp_xp.datasets.stored import Features, StoredTable
from mlp_xp.errors import DataError
from mlp_xp.inference import EvaluationStep, PredictionStep, infer
from mlp_xp.network import Parameters, map_parameters
from mlp_xp.objective import Objective
from mlp_xp.segments import DeviceRows, Rows, StoredRows

if TYPE_CHECKING:
    from numpy.typing import NDArray


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

    def predict(self, features: Features) -> Prediction:
        """Predict rows, stored as the training's were (``scale`` is applied).

        Parameters
        ----------
        features : array-like or StoredTable of shape (n, n_features)
            Whatever NumPy can read; or rows in a file, which are read in pieces.

        Raises
        ------
        DataError
            If the number of features is not the network's, there is no row, or a value is no finite number.
        """
        source, wanted = "rows to predict", self.objective.network.layer_sizes[0]
        host = features if isinstance(features, StoredTable) else as_numbers(features, source, "feature")
        if host.ndim != 2 or host.shape[1] != wanted or host.shape[0] == 0:
            raise DataError(f"features of shape {host.shape}: the network takes one or more rows of {wanted}")
        place = self.backend, self.dtype, self.arithmetic
        rows: Rows
        with self.backend.working():
            if isinstance(host, StoredTable):
                rows = StoredRows(host, None, source, *place)
            else:
                rows = DeviceRows(DeviceData(features_to_device(host, *place, source), None), self.backend)
            step = PredictionStep(self.objective, self.scale, self.arithmetic)
            values = self._join([values for (values,) in self._infer(step, rows, len(host))], len(host))
        return Prediction(self._labels(values), values)

    def evaluate(self, rows: Rows) -> Evaluation:
        """Return mean loss and accuracy over all rows of a data set."""
        (evaluation,) = self.evaluate_each(rows)
        return evaluation

    def evaluate_each(self, rows: Rows) -> list[Evaluation]:
        """Return what `evaluate` does, of each of the networks side by side."""
        step, targets = EvaluationStep(self.objective, self.scale, self.arithmetic), rows.targets
        # Of the predictions only the labels are kept.
        with self.backend.working():
            parts = [(losses, self._labels(values)) for losses, values in self._infer(step, rows, len(targets))]
        losses = np.atleast_2d(self._join([part for part, _ in parts], len(targets)))
        if self.n_classes is None:
            return [Evaluation(mean(of_one), None) for of_one in losses]
        labels = np.atleast_2d(self._join([part for _, part in parts if part is not None], len(targets)))
        return [
            Evaluation(mean(of_one), float(np.mean(predicted == targets)))
            for of_one, predicted in zip(losses, labels, strict=True)
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

    def _infer(self, step: Step, rows: Rows, n: int) -> Iterator[list[NDArray[Any]]]:
        """Yield what a step says of the first n rows, on the host and part by part: arrays of shape (..., part, …).

        The last part is longer by what `_join` cuts off.
        """
        leading = self.parameters[0].bias.shape[:-1]
        axis = len(leading)  # of the rows; the chunks' axis is moved to where it is beside it
        for ys in infer(step, self.parameters, rows, np.arange(n, dtype=np.int32), self.backend):
            hosts = (np.moveaxis(self.backend.to_host(y), 0, axis) for y in ys)
            yield [host.reshape(*leading, -1, *host.shape[axis + 2 :]) for host in hosts]

    def _join(self, parts: list[NDArray[Any]], n: int) -> NDArray[Any]:
        """Return the parts of an array of `_infer` as one, of shape (..., n, …)."""
        axis = len(self.parameters[0].bias.shape[:-1])
        joined: NDArray[Any] = np.concatenate(parts, axis=axis)[(*[slice(None)] * axis, slice(n))]
        return joined
