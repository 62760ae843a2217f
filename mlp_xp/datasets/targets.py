"""From the arrays a file holds to the contract of a Dataset: the checks that can name a place in the file are here."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from mlp_xp.datasets.dataset import Dataset, as_numbers
from mlp_xp.datasets.files import data_error
from mlp_xp.datasets.stored import StoredTable, common_type
from mlp_xp.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from mlp_xp.datasets.stored import Features

    Locate: TypeAlias = Callable[[int], str]

_MOST_CLASSES_GUESSED = 1 << 16
"""Larger labels are more likely a wrong column than that many classes, unless ``n_classes`` says so."""


class Samples(NamedTuple):
    """What a source reads: arrays as they are in the file, not yet checked.

    Attributes
    ----------
    features : ndarray of shape (n_samples, ...) or StoredTable
        One sample along the first axis; further axes are flattened.
    labels : ndarray of shape (n_samples,) or (n_samples, n_targets)
        Class labels or numbers.
    locate : callable
        Names the place of a row in its file, for errors.
    scale : float or None
        Factor that turns the features into floats; None where the values have to tell.
    """

    features: Features
    labels: NDArray[Any]
    locate: Locate
    scale: float | None = None


def by_sample(source: object) -> Locate:
    """Return a `locate` for files whose rows have no line numbers."""
    return lambda row: f"{source}: sample {row} (counted from 0)"


def to_dataset(name: str, samples: Samples, *, n_classes: int | None = None, regression: bool = False) -> Dataset:
    """Check samples and turn them into a data set.

    Parameters
    ----------
    name : str
        Where the samples came from, for people.
    samples : Samples
        What the source read.
    n_classes : int or None
        Number of classes; None for the largest label + 1 (at least 2).
    regression : bool
        Take the labels as numbers to regress on.

    Returns
    -------
    Dataset
        Features of shape (n_samples, n_features); targets int32 of shape (n_samples,), or float64 of shape
        (n_samples, n_targets) for a regression.

    Raises
    ------
    DataError
        No samples or no features; counts that differ; text, complex or non-finite values; labels that are
        fractional, negative or not below `n_classes`.
    SettingsError
        `n_classes` below 2 or together with `regression`.
    """
    if n_classes is not None and regression:
        raise SettingsError("a regression has no classes; leave out --classes, or ask for a classification")
    if n_classes is not None and not 2 <= n_classes <= 1 << 31:
        raise SettingsError(f"a classification cannot have {n_classes} classes; give --classes 2 or more")
    features = as_rows(samples.features, name, samples.locate)
    labels = _numbers(samples.labels, name, samples.locate, "label")
    scale = _scale(features) if samples.scale is None else samples.scale
    if regression:
        targets = labels.astype(np.float64).reshape(len(labels), -1)
        return Dataset(name, features, targets, None, scale)
    if labels.ndim > 1 and labels.size != len(labels):
        problem = f"the labels have shape {labels.shape}, a class number per row has shape ({len(labels)},)"
        raise data_error(name, problem, "store class numbers (the argmax of one-hot rows)")
    classes, n_classes = _classes(labels.ravel(), n_classes, samples.locate)
    return Dataset(name, features, classes, n_classes, scale)


def as_rows(features: Features, source: object, locate: Locate) -> Features:
    """Return features as a checked table.

    Parameters
    ----------
    features : ndarray of shape (n_samples, ...) or StoredTable
        Real numbers of any type; booleans become uint8. A table in a file is read through, unless it is of integers.
    source : object
        The file, for errors about all of it.
    locate : callable
        The place of a row, for errors about one.

    Returns
    -------
    ndarray of shape (n_samples, n_features)
        The same values in rows, C-contiguous and in the machine's byte order; or the StoredTable that was given.

    Raises
    ------
    DataError
        No sample, no feature, or values that are not finite real numbers.
    """
    if isinstance(features, StoredTable):
        _check_filled(features.shape, source, "feature")
        if features.dtype.kind == "f":
            first = 0
            for block in features.blocks():
                _check_finite(block, partial(_later, locate, first), "feature")
                first += len(block)
        return features
    rows = _numbers(features, source, locate, "feature").reshape(len(features), -1)
    return np.ascontiguousarray(rows)


def _later(locate: Locate, first: int, row: int) -> str:
    return locate(first + row)


def take_column(table: Features, column: int, path: object) -> tuple[Features, NDArray[Any]]:
    """Split a table of shape (n, m) into the other columns, shape (n, m - 1), and that one, shape (n,)."""
    others = leave_out(table, column, path)
    return others, table.column(column) if isinstance(table, StoredTable) else table[:, column]


def leave_out(table: Features, column: int, path: object) -> Features:
    """Return a table of shape (n, m) without a column, shape (n, m - 1)."""
    width = table.shape[1]
    if not -width <= column < width:
        problem = f"there is no label column {column} in rows of {width} columns"
        raise data_error(path, problem, f"give --label-column 0 to {width - 1}, or -1 for the last")
    if isinstance(table, StoredTable):
        return replace(table, left_out=column % width)
    return np.delete(table, column, axis=1)


def _numbers(values: NDArray[Any], source: object, locate: Locate, noun: str) -> NDArray[Any]:
    """Return finite real numbers in the machine's byte order, in a type every array library knows."""
    _check_filled(values.shape, source, noun)
    values = as_numbers(values, source, noun)
    if values.dtype.kind == "f":
        _check_finite(values, locate, noun)
    return values.astype(common_type(values.dtype), copy=False)


def _check_filled(shape: tuple[int, ...], source: object, noun: str) -> None:
    if not shape or 0 in shape:
        problem = f"holds no {noun}s (they have the shape {shape})"
        raise data_error(source, problem, "give at least one row with a label and a feature")


def _check_finite(values: NDArray[Any], locate: Locate, noun: str) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        index = np.unravel_index(np.argmin(finite), values.shape)
        problem = f"a {noun} is {values[index]}"
        raise data_error(locate(int(index[0])), problem, "remove the row or give it a number")


def _scale(features: Features) -> float:
    """Return 1/256 for features that use all eight bits of a byte (images), else 1: files do not say."""
    if features.dtype != np.uint8:
        return 1.0
    blocks = features.blocks() if isinstance(features, StoredTable) else (features,)
    return 1 / 256 if any(block.max() >= 128 for block in blocks) else 1.0


def _classes(labels: NDArray[Any], n_classes: int | None, locate: Locate) -> tuple[NDArray[np.int32], int]:
    """Return labels as int32 of shape (n,), and the number of classes."""
    if labels.dtype.kind == "f":
        labels = labels.astype(np.float64, copy=False)  # float16 cannot be compared with 65,536
    limit = _MOST_CLASSES_GUESSED if n_classes is None else n_classes
    wrong = (labels != np.floor(labels)) | (labels < 0) | (labels >= limit)
    if wrong.any():
        row = int(np.argmax(wrong))
        label = labels[row]
        if label != np.floor(label):
            problem = "is fractional"
            remedy = "labels in another column: --label-column -1 is the last; numbers to predict: --task regression"
        elif label < 0:
            problem, remedy = "is negative", "number the classes from 0, or use --task regression"
        else:
            known = "the number of classes" if n_classes else "the most classes that are guessed"
            problem = f"is not below {limit}, {known}"
            remedy = "number the classes from 0, choose another --label-column, or raise --classes"
        raise data_error(locate(row), f"label {label} {problem}", remedy)
    if n_classes is None and labels.size > 1 and labels.min() == labels.max():
        problem = f"every label is {labels[0]:g}, and one class leaves nothing to learn"
        raise data_error(locate(0), problem, "labels in another column: --label-column -1 is the last")
    return labels.astype(np.int32), n_classes or max(int(labels.max()) + 1, 2)
