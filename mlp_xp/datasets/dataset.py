"""What every source gives: features as stored, targets, and the factor that turns the former into floats."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlp_xp.errors import DataError, SettingsError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Dataset:
    """Samples in the host's memory.

    Attributes
    ----------
    name : str
        Where the samples came from, for people.
    features : ndarray of shape (n_samples, n_features)
        As stored: 8-bit images stay ``uint8`` until a batch needs them as floats.
    targets : ndarray of shape (n_samples,) or (n_samples, n_targets)
        Class labels, integers from 0 (``int32``, one axis), or numbers to regress on (``float64``, two axes).
    n_classes : int or None
        Number of classes; None for a regression.
    scale : float
        Factor of the features on their way to floats; a power of two loses nothing.
    """

    name: str
    features: NDArray[Any]
    targets: NDArray[Any]
    n_classes: int | None
    scale: float = 1.0

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return int(self.features.shape[0])

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return int(self.features.shape[1])

    def take(self, rows: NDArray[np.integer]) -> Dataset:
        """Return the data set of those rows, in that order."""
        return replace(self, features=self.features[rows], targets=self.targets[rows])

    def digest(self) -> str:
        """Return the SHA-256 of shapes, types and values (little-endian, row by row), in hexadecimal."""
        sha = hashlib.sha256(repr((self.n_classes, self.scale)).encode())
        for array in (self.features, self.targets):
            canonical = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            sha.update(repr((canonical.dtype.str, canonical.shape)).encode())
            sha.update(canonical.data)
        return sha.hexdigest()

    def split(self, test_size: float = 0.2, random_state: int = 2020) -> Split:
        """Shuffle and split as ``sklearn.model_selection.train_test_split`` does, index for index.

        Parameters
        ----------
        test_size : float
            Share of the rows that are kept for testing, rounded up to whole rows.
        random_state : int
            Seed of the shuffle; 2020 is the lab's.

        Returns
        -------
        Split
            The rows to train on and the rows to test on, features as stored.

        Raises
        ------
        SettingsError
            `test_size` is not between 0 and 1.
        DataError
            Too few samples for both.
        """
        if not 0 < test_size < 1:
            raise SettingsError(f"the test size is {test_size}; give a share between 0 and 1, such as 0.2")
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
