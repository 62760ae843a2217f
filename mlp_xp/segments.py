"""The rows of a loop over batches, a segment of the loop at a time.

Rows that are on the device are there for the whole loop, which is one segment. Of rows in a file, those of the next few
batches are read while the device works on the present ones. Either way a step finds the rows that the order asks for
among its constants; so an epoch has the same bits, and its order is that of all rows, wherever these are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend
from mlp_xp.batches import DeviceData, cast, features_to_device, to_device
from mlp_xp.datasets.ahead import read_ahead
from mlp_xp.datasets.dataset import Dataset
from mlp_xp.datasets.stored import BLOCK_BYTES, StoredTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

Segment: TypeAlias = tuple[Array, DeviceData]
"""Row numbers of some steps, shape (n_steps, ..., n), and the rows that they count."""


class Rows(Protocol):
    """Rows that a loop takes batches of."""

    @property
    def targets(self) -> NDArray[Any]:
        """On the host, as `DeviceData` has them."""

    def segments(self, order: NDArray[np.int32], most_steps: int | None = None, first: int = 0) -> Iterator[Segment]:
        """Yield an order of rows, shape (n_steps, ..., n), in segments along its first axis.

        Parameters
        ----------
        order : ndarray of int32, shape (n_steps, ..., n)
        most_steps : int, optional
            Of a segment; it has two at least, if there are two.
        first : int
            The step to begin with. It changes nothing in where the segments after it begin.

        Raises
        ------
        DataError
            If rows have to be read and cannot be.
        """


@dataclass(frozen=True)
class DeviceRows:
    """Rows that are on the device."""

    data: DeviceData
    backend: Backend

    @property
    def targets(self) -> NDArray[Any]:
        """On the host."""
        return self.backend.to_host(self.data.targets)

    def segments(self, order: NDArray[np.int32], most_steps: int | None = None, first: int = 0) -> Iterator[Segment]:
        """Yield the whole order as one segment, unless fewer steps are asked for."""
        for numbers in split_order(order, most_steps or len(order), first):
            yield self.backend.asarray(numbers), self.data


@dataclass(frozen=True)
class StoredRows:
    """Rows whose features are in a file.

    Attributes
    ----------
    features : StoredTable
    targets : ndarray or None
        As `DeviceData` has them, but on the host; None where nothing but predictions is asked for.
    source : str
        For errors.
    backend : Backend
    dtype : str
        Of the features on the device, unless they are bytes.
    arithmetic : Arithmetic
    limits : ndarray of shape (2, n_features), optional
        Rows to round every segment's features together with, as `features_to_device` says.
    """

    features: StoredTable
    targets: Any
    source: str
    backend: Backend
    dtype: str
    arithmetic: Arithmetic
    limits: NDArray[Any] | None = None

    def segments(self, order: NDArray[np.int32], most_steps: int | None = None, first: int = 0) -> Iterator[Segment]:
        """Yield segments with features of `BLOCK_BYTES` at most, or as short as can be."""
        itemsize = 1 if self.features.dtype == np.uint8 else np.dtype(self.dtype).itemsize
        of_a_step = order[0].size * self.features.shape[1] * itemsize
        most = min(BLOCK_BYTES // of_a_step, most_steps or len(order))
        for numbers, features, targets in read_ahead(self._read, split_order(order, most, first)):
            place = self.backend, self.dtype, self.arithmetic, self.source
            data = DeviceData(
                features_to_device(features, *place, self.limits),
                None if targets is None else self.backend.asarray(targets),
            )
            yield self.backend.asarray(numbers), data

    def _read(self, order: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[Any], NDArray[Any] | None]:
        """Return row numbers that count the rows of a segment, and these rows as they follow each other in the file."""
        rows = order.ravel()
        by_place = self.features.file_order(rows)
        numbers = np.empty(rows.size, np.int32)
        numbers[by_place] = np.arange(rows.size)
        rows = rows[by_place]
        targets = None if self.targets is None else self.targets[rows]
        return numbers.reshape(order.shape), self.features.take(rows), targets


def split_order(order: NDArray[np.int32], most_steps: int, first: int) -> list[NDArray[np.int32]]:
    """Return an order of rows in pieces, equally long to one step; without what is before the step ``first``.

    No piece has less than two steps: a loop of a single one is compiled as none is, and may round otherwise.
    """
    n_pieces = max(1, min(-(-len(order) // max(2, most_steps)), len(order) // 2))
    pieces = np.array_split(order, n_pieces)
    ends = np.cumsum([len(piece) for piece in pieces])
    return [piece[max(0, first - (end - len(piece))) :] for piece, end in zip(pieces, ends, strict=True) if end > first]


def open_rows(
    data: Dataset, backend: Backend, dtype: str, arithmetic: Arithmetic, limits: NDArray[Any] | None = None
) -> Rows:
    """Return a data set's rows: on the device, or in their file if the data set has them there.

    Parameters
    ----------
    data : Dataset
    backend : Backend
    dtype : str
        Of features that are no bytes.
    arithmetic : Arithmetic
    limits : ndarray of shape (2, n_features), optional
        `Dataset.limits`, where the arithmetic rounds features relative to the largest of all.

    Raises
    ------
    DataError
        If a number is not finite, or not in ``dtype``.
    """
    if not data.is_stored:
        return DeviceRows(to_device(data, backend, dtype, arithmetic), backend)
    features = data.features
    if features.dtype.kind == "f" and features.dtype.itemsize > np.dtype(dtype).itemsize:
        cast(data.limits(), dtype, data.name, "feature")
    if data.n_classes is None:
        targets = cast(data.targets, dtype, data.name, "target")
    else:
        targets = data.targets.astype(np.int32, copy=False)
    return StoredRows(features, targets, data.name, backend, dtype, arithmetic, limits)
