"""Features that stay in their file: rows are read when they are asked for, into memory that is then given back.

They are read, not mapped: the pages of a memory map count as memory of the process, and a mapped file that becomes
shorter kills it. What is kept in memory of a table of n rows are n row numbers, and the labels, which are a data set's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mlp_xp.datasets.ahead import read_ahead
from mlp_xp.datasets.files import announce, data_error, file_state, open_unbuffered

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LARGEST_IN_MEMORY = 1 << 28
"""Bytes of the largest table that is read into memory as a whole: five times MNIST."""
BLOCK_BYTES = 1 << 25
"""That are read at once from a table in a file, more or less: 200 batches of the lab."""


@dataclass(frozen=True, eq=False)
class StoredTable:
    """A table of numbers in an uncompressed file, or some of its rows; it has the shape and type of an array.

    Attributes
    ----------
    path : Path
        The file.
    state : tuple of int
        Its `file_state` when it was found; with any other, nothing more is read.
    offset : int
        Bytes before the first row.
    stored : dtype
        Of the numbers in the file, in whatever byte order.
    n_rows, n_columns : int
        Of the table in the file.
    left_out : int or None
        A column, ≥ 0, that is not one of the features.
    rows : ndarray of integers, shape (n,), or None
        The rows of the file that the table has, in its order; None for all.
    """

    path: Path
    state: tuple[int, int]
    offset: int
    stored: np.dtype[Any]
    n_rows: int
    n_columns: int
    left_out: int | None = None
    rows: NDArray[np.integer] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and of columns."""
        n_rows = self.n_rows if self.rows is None else len(self.rows)
        return n_rows, self.n_columns - (self.left_out is not None)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the numbers as they are read."""
        return common_type(self.stored)

    @property
    def ndim(self) -> int:
        """Number of axes, as of an array."""
        return 2

    @property
    def size(self) -> int:
        """Number of numbers, as of an array."""
        return self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def select(self, rows: NDArray[np.integer]) -> StoredTable:
        """Return the table of those rows, in that order; nothing is read."""
        smallest = np.int32 if self.n_rows <= np.iinfo(np.int32).max else np.int64
        return replace(self, rows=self._in_file(rows).astype(smallest, copy=False))

    def take(self, rows: NDArray[np.integer]) -> NDArray[Any]:
        """Read rows.

        Parameters
        ----------
        rows : ndarray of integers, shape (n,)
            From 0, in any order; fastest if they ascend in the file (see `file_order`).

        Returns
        -------
        ndarray of shape (n, n_columns)

        Raises
        ------
        DataError
            If the file is not as it was, or cannot be read.
        IndexError
            If there is no such row.
        """
        in_file = self._in_file(rows)
        if np.all(in_file[1:] >= in_file[:-1]):
            return self._features(self._read(in_file))
        order = np.argsort(in_file, kind="stable")
        ascending = self._features(self._read(in_file[order]))
        values = np.empty_like(ascending)
        values[order] = ascending
        return values

    def file_order(self, rows: NDArray[np.integer]) -> NDArray[np.intp]:
        """Return the order, shape (n,), that sorts rows by their place in the file."""
        return np.argsort(self._in_file(rows), kind="stable")

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Read all rows in their order, as arrays of about `BLOCK_BYTES`, each while the one before is in use."""
        n_rows = self.shape[0]
        step = max(1, BLOCK_BYTES // (self.n_columns * self.stored.itemsize))
        spans = (np.arange(start, min(start + step, n_rows)) for start in range(0, n_rows, step))
        return read_ahead(self.take, spans)

    def column(self, column: int) -> NDArray[Any]:
        """Read one column of the file, also the one that is left out, shape (n,)."""
        alone = replace(self, left_out=None)
        return np.concatenate([block[:, column].copy() for block in alone.blocks()])

    @cached_property
    def limits(self) -> NDArray[Any]:
        """The least and the greatest number of every column, shape (2, n_columns); NaN if there is one."""
        rows = np.arange(len(self))
        blocks = self.select(rows[self.file_order(rows)]).blocks()
        each = [(block.min(axis=0), block.max(axis=0)) for block in blocks]
        least, greatest = zip(*each, strict=True)
        return np.stack([np.min(least, axis=0), np.max(greatest, axis=0)])

    def _in_file(self, rows: NDArray[np.integer]) -> NDArray[np.integer]:
        """Return where rows of the table are in the file."""
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"{self.path}: rows {rows.min()} to {rows.max()} of a table of {len(self)}")
        return rows if self.rows is None else self.rows[rows]

    def _read(self, rows: NDArray[np.integer]) -> NDArray[Any]:
        """Return ascending rows of the file, with all columns; those that are neighbours are read together."""
        values = np.empty((len(rows), self.n_columns), self.stored)
        width = self.n_columns * self.stored.itemsize
        memory = values.view(np.uint8).reshape(-1).data  # its bytes, of whatever type the numbers are
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
        spans = pairwise([*(starts * width).tolist(), len(memory)])
        places = (self.offset + rows[starts].astype(np.int64) * width).tolist()
        runs = list(zip(places, spans, strict=True))
        with open_unbuffered(self.path) as file:
            for place, (start, end) in runs:
                announce(file, place, end - start)
            complete = True
            for place, (start, end) in runs:
                file.seek(place)
                complete = complete and _fill(memory[start:end], file)
            # Looked at afterwards: no change that this does not show came before what was read.
            if not complete or file_state(file) != self.state:
                problem = "has been changed or replaced since it was opened"
                raise data_error(self.path, problem, "leave it as it is until the work is done, and start again")
        return values

    def _features(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the features of rows as they are in the file."""
        wanted = values if self.left_out is None else np.delete(values, self.left_out, axis=1)
        return wanted.astype(self.dtype, copy=False)


Features: TypeAlias = Any
"""Features of shape (n_samples, n_features), an array or a `StoredTable`; no union, since whoever gave an array, or
loads a small file, knows that it is one."""


def common_type(stored: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type that real numbers of a file get in memory: one in this machine's byte order, known everywhere."""
    if stored.kind == "b":
        return np.dtype(np.uint8)
    if stored.kind == "f" and stored.itemsize > 8:
        return np.dtype(np.float64)
    return stored.newbyteorder("=")


def _fill(memory: memoryview, file: IO[bytes]) -> bool:
    """Read into all of the memory, in as many pieces as the system gives; tell whether there was enough."""
    while memory:
        count = file.readinto(memory)  # type: ignore[attr-defined]  # of an unbuffered file
        if not count:
            return False
        memory = memory[count:]
    return True
