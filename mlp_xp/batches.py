"""From stored rows to the floats that the equations take: a batch is gathered and scaled where it is used."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend
from mlp_xp.datasets.dataset import Dataset
from mlp_xp.losses import encode_targets


class DeviceData(NamedTuple):
    """A data set on a device.

    Attributes
    ----------
    features : array of shape (n_samples, n_features)
        ``uint8`` if they are stored so, else of the training's dtype.
    targets : array of shape (n_samples,) or (n_samples, n_targets)
        ``int32`` labels, or numbers of the training's dtype.
    """

    features: Array
    targets: Array


def to_device(data: Dataset, backend: Backend, dtype: str) -> DeviceData:
    """Copy a data set to the backend's device; bytes stay bytes, other features become ``dtype``."""
    return DeviceData(
        backend.asarray(data.features, "uint8" if data.features.dtype == np.uint8 else dtype),
        backend.asarray(data.targets, dtype if data.n_classes is None else "int32"),
    )


def gather(data: DeviceData, rows: Array, scale: float, n_outputs: int, arithmetic: Arithmetic) -> tuple[Array, Array]:
    """Return the features and encoded targets of some rows.

    Parameters
    ----------
    data : DeviceData
    rows : array of int32, shape (n,)
    scale : float
        Factor of the features.
    n_outputs : int
    arithmetic : Arithmetic

    Returns
    -------
    features : array of shape (n, n_features)
    targets : array of shape (n, n_outputs)
    """
    xp = arithmetic.xp
    features = xp.astype(xp.take(data.features, rows, axis=0), arithmetic.dtype, copy=False)
    if scale != 1.0:
        features = features * scale
    return features, encode_targets(xp.take(data.targets, rows, axis=0), n_outputs, arithmetic)
