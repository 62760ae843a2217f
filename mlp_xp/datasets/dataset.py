"""What every source gives: features as stored, targets, and the factor that turns the former into floats."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlp_xp.datasets.files import data_error
from mlp_xp.datasets.stored import Features, StoredTable
from mlp_xp.errors import DataError, SettingsError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Dataset:
    """Samples: targets in the host's memory, features there or, if they are many, in their file.

    Attributes
    ----------
    name : str
        Where the samples came from, for people.
    features : ndarray or StoredTable of shape (n_samples, n_features)
        As stored: 8-bit images stay ``uint8`` until a batch needs them as floats.
    targets : ndarray of shape (n_samples,) or (n_samples, n_targets)
        Class labels, integers from 0 (one axis; a file's become ``int32``), or floats to regress on (two axes).
    n_classes : int or None
        Number of classes; None for a regression.
    scale : float
        Factor of the features on their way to floats, > 0; a power of two loses nothing.

    Raises
    ------
    DataError
        If a field is not as described or does not fit the others. The values of the features are not looked at
        here, but on their way to a device (`mlp_xp.batches`).
    """

    name: str
    features: Features
    targets: NDArray[Any]
    n_classes: int | None
    scale: float = 1.0

    def __post_init__(self) -> None:
        features, targets = self.features, as_numbers(self.targets, self.name, "target")
        if not isinstance(features, StoredTable):
            features = as_numbers(features, self.name, "feature")
        if features.ndim != 2 or features.size == 0:
            problem = f"the features have the shape {features.shape}, not (n_samples, n_features)"
            raise data_error(self.name, problem, "give a table with at least one row and one column")
        n_targets = len(targets) if targets.ndim else 0
        if n_targets != len(features):
            problem = f"{len(features)} rows of features but {n_targets} of targets"
            raise data_error(self.name, problem, "give features and targets that belong together")
        n_classes = self.n_classes
        if n_classes is None:
            _check_numbers(targets, self.name)
        else:
            n_classes = _check_classes(targets, n_classes, self.name)
        scale = _as_float(self.scale)
        if not 0 < scale < math.inf:
            problem = f"scale = {self.scale!r}: must be a finite number > 0"
            raise data_error(self.name, problem, "give a factor such as 1/256, or 1.0 for none")
        # Python's own numbers also where NumPy's were given: a digest and run.json hold them as text.
        checked = {"features": features, "targets": targets, "n_classes": n_classes, "scale": scale}
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return int(self.features.shape[0])

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return int(self.features.shape[1])

    @property
    def n_targets(self) -> int:
        """Number of targets of a row; 1 for labels."""
        return math.prod(self.targets.shape[1:])

    @property
    def is_stored(self) -> bool:
        """Whether the features are in a file."""
        return isinstance(self.features, StoredTable)

    def take(self, rows: NDArray[np.integer]) -> Dataset:
        """Return the data set of those rows, in that order; features in a file stay there."""
        features = self.features.select(rows) if self.is_stored else self.features[rows]
        return replace(self, features=features, targets=self.targets[rows])

    def limits(self) -> NDArray[Any]:
        """Return the least and the greatest number of every feature, shape (2, n_features)."""
        if self.is_stored:
            return self.features.limits  # type: ignore[no-any-return]
        return np.stack([self.features.min(axis=0), self.features.max(axis=0)])

    def digest(self) -> str:
        """Return the SHA-256 of shapes, types and values (little-endian, row by row), in hexadecimal."""
        # Arrays may have been written to since; a file that has is not read from any more.
        return self._digest if self.is_stored else self._compute_digest()

    @cached_property
    def _digest(self) -> str:
        return self._compute_digest()

    def _compute_digest(self) -> str:
        sha = hashlib.sha256(repr((self.n_classes, self.scale)).encode())
        for array in (self.features, self.targets):
            kind = array.dtype.newbyteorder("<")
            sha.update(repr((kind.str, array.shape)).encode())
            for block in array.blocks() if isinstance(array, StoredTable) else (array,):
                sha.update(np.ascontiguousarray(block, dtype=kind).data)
        return sha.hexdigest()

    def split(self, test_size: float = 0.2, random_state: int = 2020) -> Split:
        """Shuffle and split as ``sklearn.model_selection.train_test_split`` does, index for index.

        Parameters
        ----------
        test_size : float
            Share of the rows that are kept for testing, rounded up to whole rows.
        random_state : int
            Seed of the shuffle, below 2**32; 2020 is the lab's.

        Returns
        -------
        Split
            The rows to train on and the rows to test on, features as stored.

        Raises
        ------
        SettingsError
            `test_size` is not between 0 and 1, or `random_state` is no seed.
        DataError
            Too few samples for both.
        """
        if not 0 < _as_float(test_size) < 1:
            raise SettingsError(f"the test size is {test_size!r}; give a share between 0 and 1, such as 0.2")
        if not _whole(random_state, 0) or random_state >= 1 << 32:
            raise SettingsError(f"the random state is {random_state!r}; give a whole number from 0 to 2**32 - 1")
        n_test = math.ceil(test_size * self.n_samples)
        if n_test >= self.n_samples:
            problem = f"{self.n_samples} samples leave none to train on beside a share of {test_size} for testing"
            raise DataError(f"{self.name}: {problem}; give more data or a smaller test size")
        # RandomState's legacy stream is frozen by NEP 19, so the split is the same on every NumPy.
        order = np.random.RandomState(random_state).permutation(self.n_samples)
        return Split(train=self.take(order[n_test:]), test=self.take(order[:n_test]))


class Split(NamedTuple):
    """Two data sets of the same kind."""

    train: Dataset
    test: Dataset


def as_numbers(values: ArrayLike, source: object, noun: str) -> NDArray[Any]:
    """Return values as an array of real numbers; ``source`` and ``noun`` name them in the error.

    Raises
    ------
    DataError
        If NumPy cannot read them, or they are no real numbers.
    """
    try:
        array = np.asarray(values)
    except Exception as error:  # ragged rows, or whatever another library's array raises
        problem = f"its {noun}s cannot be made into a NumPy array ({error})"
        raise data_error(source, problem, "give rows of one length, in the host's memory") from error
    if array.dtype.kind not in "biuf":
        problem = f"its {noun}s are of type {array.dtype}, not real numbers"
        raise data_error(source, problem, "store integers or floats")
    return array


def _whole(value: object, least: int) -> bool:
    return isinstance(value, Integral) and int(value) >= least


def _as_float(value: object) -> float:
    """Return a real number as Python's float; NaN for anything else, and for what is too large."""
    try:
        return float(value) if isinstance(value, Real) else math.nan
    except OverflowError:
        return math.nan


def _check_numbers(targets: NDArray[Any], source: str) -> None:
    if targets.ndim != 2 or targets.size == 0 or targets.dtype.kind != "f":
        problem = f"without n_classes the targets must be floats of shape (n_samples, n_targets), not {targets.dtype} "
        remedy = "give y.reshape(len(y), -1).astype(float) for a regression, or n_classes for a classification"
        raise data_error(source, f"{problem}of shape {targets.shape}", remedy)
    finite = np.isfinite(targets)
    if not finite.all():
        raise data_error(source, f"a target is {targets[~finite][0]}", "remove the row or give it a number")


def _check_classes(labels: NDArray[Any], n_classes: int, source: str) -> int:
    """Return the number of classes as Python's int."""
    if not _whole(n_classes, 2):
        problem = f"n_classes = {n_classes!r}: must be a whole number ≥ 2"
        raise data_error(source, problem, "give the number of classes, or None for a regression")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        problem = f"labels must be integers of shape (n_samples,), not {labels.dtype} of shape {labels.shape}"
        remedy = "give y.astype(int), y.ravel(), the argmax of one-hot rows, or n_classes=None for a regression"
        raise data_error(source, problem, remedy)
    for label in (labels.min(), labels.max()):
        if not 0 <= label < n_classes:
            problem = f"label {label} is not among 0 … {n_classes - 1}"
            raise data_error(source, problem, "number the classes from 0, or raise n_classes")
    return int(n_classes)
