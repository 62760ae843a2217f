"""From stored rows to the floats that the equations take: a batch is gathered and scaled where it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend
from mlp_xp.datasets.dataset import Dataset
from mlp_xp.datasets.files import data_error
from mlp_xp.losses import encode_targets

if TYPE_CHECKING:
    from numpy.typing import NDArray


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


def to_device(data: Dataset, backend: Backend, dtype: str, arithmetic: Arithmetic) -> DeviceData:
    """Copy a data set to the backend's device; bytes stay bytes, other features become ``dtype``.

    Raises
    ------
    DataError
        If a number is not finite, or not in ``dtype``.
    """
    targets = _cast(data.targets, dtype, data.name, "target") if data.n_classes is None else data.targets
    return DeviceData(
        features_to_device(data.features, backend, dtype, arithmetic, data.name),
        backend.asarray(targets, dtype if data.n_classes is None else "int32"),
    )


def features_to_device(
    features: NDArray[Any], backend: Backend, dtype: str, arithmetic: Arithmetic, source: str
) -> Array:
    """Copy features, shape (n_samples, n_features), as `to_device` does; ``source`` names them in its error."""
    if features.dtype == np.uint8:
        return backend.asarray(features)
    return arithmetic.round_activation(backend.asarray(_cast(features, dtype, source, "feature"), dtype))


def _cast(values: NDArray[Any], dtype: str, source: str, noun: str) -> NDArray[Any]:
    """Return host values of shape (n, m) in a type that holds them."""
    with np.errstate(over="ignore"):  # is looked for right below
        cast = values.astype(dtype, copy=False)
    finite = np.isfinite(cast)
    if not finite.all():
        row, column = np.unravel_index(np.argmin(finite), finite.shape)
        problem = f"a {noun} (column {column}, counted from 0) is {values[row, column]}"
        if np.isfinite(values[row, column]):
            raise data_error(source, f"{problem}, which {dtype} cannot hold", "use --dtype float64, or another unit")
        raise data_error(source, problem, "remove the row or give it a number")
    return cast


def gather(data: DeviceData, rows: Array, scale: float, n_outputs: int, arithmetic: Arithmetic) -> tuple[Array, Array]:
    """Return the features and encoded targets of some rows.

    Parameters
    ----------
    data : DeviceData
    rows : array of int32, shape (..., n)
    scale : float
        Factor of the features.
    n_outputs : int
    arithmetic : Arithmetic

    Returns
    -------
    features : array of shape (..., n, n_features)
    targets : array of shape (..., n, n_outputs)
    """
    targets = encode_targets(_take(data.targets, rows, arithmetic), n_outputs, arithmetic)
    return gather_features(data.features, rows, scale, arithmetic), targets


def gather_features(features: Array, rows: Array, scale: float, arithmetic: Arithmetic) -> Array:
    """Return the features of some rows, as `gather` does."""
    gathered = arithmetic.xp.astype(_take(features, rows, arithmetic), arithmetic.dtype, copy=False)
    if scale != 1.0:
        gathered *= scale  # in place where arrays can be written to: what was taken is a copy
    return gathered


def _take(table: Array, rows: Array, arithmetic: Arithmetic) -> Array:
    """Return a copy of those rows of a table, in the shape that the row numbers have."""
    xp = arithmetic.xp
    if rows.ndim == 1:
        return xp.take(table, rows, axis=0)
    # The standard takes along one axis of indices: the rows of all networks at once, and apart again.
    taken = xp.take(table, xp.reshape(rows, (-1,)), axis=0)
    return xp.reshape(taken, (*rows.shape, *table.shape[1:]))
