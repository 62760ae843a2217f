"""A network with its parameters on a device: what training yields, and what predicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend
from mlp_xp.batches import DeviceData, gather, to_device
from mlp_xp.datasets.dataset import Dataset
from mlp_xp.errors import DataError
from mlp_xp.network import Layer, Parameters
from mlp_xp.objective import Objective

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK_ROWS = 4096
"""Most rows that are pushed through the network at once when nothing is learnt."""


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


@dataclass(frozen=True)
class Model:
    """A network, its parameters, and all that is needed to apply it.

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

    def predict(self, features: NDArray[np.generic]) -> Prediction:
        """Predict host rows of shape (n, n_features), stored as the training's were (``scale`` is applied).

        Raises
        ------
        DataError
            If the number of features is not the network's, or there is no row.
        """
        wanted = self.objective.network.layer_sizes[0]
        if features.ndim != 2 or features.shape[1] != wanted or features.shape[0] == 0:
            raise DataError(f"features of shape {features.shape}: the network takes one or more rows of {wanted}")
        # The loss wants targets; a prediction does not depend on them.
        targets = np.zeros(features.shape[0], np.int32)
        rows = Dataset("rows to predict", features, targets, self.n_classes or 2)
        _, values = self._infer(to_device(rows, self.backend, self.dtype))
        return Prediction(self._labels(values), values)

    def evaluate(self, data: DeviceData) -> Evaluation:
        """Return mean loss and accuracy over all rows of a data set that is on the model's device."""
        losses, values = self._infer(data)
        labels = self._labels(values)
        hits = None if labels is None else float(np.mean(labels == self.backend.to_host(data.targets)))
        return Evaluation(float(np.mean(losses, dtype=np.float64)), hits)

    def host_parameters(self) -> Parameters:
        """Return the parameters as NumPy arrays."""
        return tuple(Layer(*map(self.backend.to_host, layer)) for layer in self.parameters)

    def _labels(self, values: NDArray[Any]) -> NDArray[np.int64] | None:
        if self.n_classes is None:
            return None
        if values.shape[-1] == 1:
            return (values[:, 0] > 0.5).astype(np.int64)
        labels: NDArray[np.int64] = np.argmax(values, axis=-1).astype(np.int64)
        return labels

    def _infer(self, data: DeviceData) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return every row's loss, shape (n,), and prediction, shape (n, n_outputs), on the host."""
        n = data.features.shape[0]
        n_chunks = -(-n // CHUNK_ROWS)
        rows_per_chunk = -(-n // n_chunks)
        # Chunks of one size compile once; the last one is filled up with rows whose results are cut off again.
        rows = np.arange(n_chunks * rows_per_chunk) % n
        step = InferenceStep(self.objective, self.scale, self.arithmetic)
        xs = (self.backend.asarray(rows.reshape(n_chunks, rows_per_chunk), "int32"),)
        _, (losses, predictions) = self.backend.scan(step, self.parameters, xs, data)
        host = self.backend.to_host(predictions)
        return self.backend.to_host(losses).reshape(-1)[:n], host.reshape(-1, host.shape[-1])[:n]


@dataclass(frozen=True)
class InferenceStep:
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
