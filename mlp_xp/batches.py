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
    targets : array of shape (n_samples,) or (n_samples, n_targets), or None
        ``int32`` labels, or numbers of the training's dtype; None where nothing but predictions is asked for.
    """

    features: Array
    targets: Array


def to_device(data: Dataset, backend: Backend, dtype: str, arithmetic: Arithmetic) -> DeviceData:
    """Copy a data set in memory to the backend's device; bytes stay bytes, other features become ``dtype``.

    Raises
    ------
    DataError
        If a number is not finite, or not in ``dtype``.
    """
    targets = cast(data.targets, dtype, data.name, "target") if data.n_classes is None else data.targets
    return DeviceData(
        features_to_device(data.features, backend, dtype, arithmetic, data.name),
        backend.asarray(targets, dtype if data.n_classes is None else "int32"),
    )


def features_to_device(
    features: NDArray[Any],
    backend: Backend,
    dtype: str,
    arithmetic: Arithmetic,
    source: str,
    limits: NDArray[Any] | None = None,
) -> Array:
    """Copy features, shape (n, n_features), as `to_device` does; ``source`` names them in its error.

    Features that are no bytes may be rounded relative to the largest of all. Where they are only some of a data set's
    rows, ``limits`` are that data set's: they are appended, and rounded with them, to the bits that all rows have.
    """
    if features.dtype == np.uint8:
        return backend.asarray(features)
    rows = features if limits is None else np.concatenate([features, limits])
    return arithmetic.round_activation(backend.asarray(cast(rows, dtype, source, "feature"), dtype))


def cast(values: NDArray[Any], dtype: str, source: str, noun: str) -> NDArray[Any]:
    """Return host values of shape (n, m) in a type that holds them; ``source`` and ``noun`` name them in the error.

    Raises
    ------
    DataError
        If a value is not finite, or not in ``dtype``.
    """
    with np.errstate(over="ignore"):  # is looked for right below
        numbers = values.astype(dtype, copy=False)
    finite = np.isfinite(numbers)
    if not finite.all():
        row, column = np.unravel_index(np.argmin(finite), finite.shape)
        problem = f"a {noun} (column {column}, counted from 0) is {values[row, column]}"
        if np.isfinite(values[row, column]):
            raise data_error(source, f"{problem}, which {dtype} cannot hold", "use --dtype float64, or another unit")
        raise data_error(source, problem, "remove the row or give it a number")
    return numbers


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
