"""The door: a name or a path in, a checked data set out."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_xp.datasets import csv, digits, idx, mnist, npy
from mlp_xp.datasets.files import as_path, data_error, exists
from mlp_xp.datasets.stored import LARGEST_IN_MEMORY
from mlp_xp.datasets.targets import as_rows, by_sample, leave_out, to_dataset

if TYPE_CHECKING:
    from mlp_xp.datasets.dataset import Dataset
    from mlp_xp.datasets.stored import Features
    from mlp_xp.datasets.targets import Samples
    from mlp_xp.errors import DataError

NAMES = ("digits", "mnist")

_KINDS = {
    "csv": re.compile(r"\.csv(\.gz)?$", re.IGNORECASE),
    "npy": re.compile(r"\.npy$", re.IGNORECASE),
    "npz": re.compile(r"\.npz$", re.IGNORECASE),
    "idx": re.compile(r"[-.]idx\d", re.IGNORECASE),
}

_POSSIBLE = "give digits, mnist, a .csv, .csv.gz, .npy or .npz file, or a pair of IDX files as IMAGES,LABELS"


def load(
    name: str | os.PathLike[str],
    *,
    label_column: int = 0,
    header: bool | None = None,
    n_classes: int | None = None,
    regression: bool = False,
    progress: bool = False,
    largest_in_memory: int = LARGEST_IN_MEMORY,
) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    name : str or path
        ``digits`` (scikit-learn's, embedded), ``mnist`` (found in $MLP_XP_DATA or the cache folder, or
        downloaded), or a path: a ``.csv`` or ``.csv.gz`` table; a ``.npy`` table; a ``.npz`` archive with
        features (``x``, ``X``, ``features``, ``images`` or ``data``) and labels (``y``, ``Y``, ``labels``,
        ``targets`` or ``target``); IDX images with their labels beside them or as ``IMAGES,LABELS``.
    label_column : int
        Of a table: the column that holds the labels, from 0; negative counts from the last.
    header : bool or None
        Of a CSV: whether the first row holds names; None to find out.
    n_classes : int or None
        Number of classes; None for the largest label + 1.
    regression : bool
        Take the labels as numbers to regress on.
    progress : bool
        Show the progress of a download, if on a terminal.
    largest_in_memory : int
        Bytes of the largest features that are read as a whole, by default 256 MiB. Larger ones stay in their file, as
        `mlp_xp.datasets.stored.StoredTable`, and are read where they are used: with the same results, in bounded
        memory. That is so for ``.npy`` tables (in C order), ``.npz`` archives and IDX files that are not compressed.

    Returns
    -------
    Dataset
        Features of shape (n_samples, n_features) as stored; targets int32 of shape (n_samples,), or float64
        of shape (n_samples, n_targets) for a regression. Bytes of 128 or more among uint8 features are taken
        as a sign of 8-bit images, whose `scale` is 1/256.

    Raises
    ------
    DataError
        There is no such data, or it cannot be used; the text names the file (and line) and the remedy.
    DownloadError
        MNIST is neither on this machine nor could it be downloaded.
    SettingsError
        `n_classes` below 2 or together with `regression`.

    Examples
    --------
    >>> from mlp_xp.datasets import load
    >>> train, test = load("digits").split()
    >>> train.features.shape, test.features.shape
    ((1437, 64), (360, 64))
    """
    name = os.fspath(name)
    samples = _read(
        name, label_column=label_column, header=header, progress=progress, largest_in_memory=largest_in_memory
    )
    return to_dataset(name, samples, n_classes=n_classes, regression=regression)


def load_features(
    path: str | os.PathLike[str],
    *,
    n_features: int,
    label_column: int | None = None,
    header: bool | None = None,
    largest_in_memory: int = LARGEST_IN_MEMORY,
) -> Features:
    """Load samples without labels, to predict them.

    Parameters
    ----------
    path : str or path
        A file of any kind that `load` takes; of an IDX pair the images alone.
    n_features : int
        What the model wants.
    label_column : int or None
        Of a table: a column to leave out, as in `load`; None if there are no labels.
    header : bool or None
        As in `load`.
    largest_in_memory : int
        As in `load`.

    Returns
    -------
    ndarray or StoredTable of shape (n_samples, n_features)
        As stored; the caller applies the scale that the model was trained with.

    Raises
    ------
    DataError
        There is no such file, it cannot be used, or it has another number of features.
    """
    path = as_path(path)
    kind = _kind(path)
    features: Features
    if kind == "npz":
        features = npy.read_features(path, largest_in_memory)
    elif kind == "idx":
        features = idx.read_images(path, largest_in_memory)
    else:
        features = csv.read_table(path, header=header) if kind == "csv" else npy.read_table(path, largest_in_memory)
        if label_column is not None:
            features = leave_out(features, label_column, path)
    rows = as_rows(features, path, by_sample(path))
    if (found := rows.shape[1]) != n_features:
        remedy = "give a file with the columns that the model was trained on"
        if found == n_features + 1 and label_column is None and kind in ("csv", "npy"):
            remedy = "if a column holds labels, leave it out: --label-column 0 is the first, -1 the last"
        raise data_error(path, f"has {found} features per row, the model wants {n_features}", remedy)
    return rows


def _read(name: str, *, label_column: int, header: bool | None, progress: bool, largest_in_memory: int) -> Samples:
    if name == "digits":
        return digits.read()
    if name == "mnist":
        return mnist.read(progress=progress)
    path = as_path(name)
    if "," in name and not exists(path):
        images, labels = (as_path(part) for part in name.split(",", 1))
        return idx.read_pair(images, labels, largest_in_memory=largest_in_memory)
    kind = _kind(path)
    if kind == "csv":
        return csv.read(path, label_column=label_column, header=header)
    if kind == "npy":
        return npy.read(path, label_column=label_column, largest_in_memory=largest_in_memory)
    read = npy.read_archive if kind == "npz" else idx.read_pair
    return read(path, largest_in_memory=largest_in_memory)


def _kind(path: Path) -> str:
    """Return the kind of an existing file, by its name."""
    kind = next((kind for kind, pattern in _KINDS.items() if pattern.search(path.name)), None)
    if kind is None or not exists(path):
        raise _unknown(path, kind)
    return kind


def _unknown(path: Path, kind: str | None) -> DataError:
    if exists(path):
        what = "is a folder" if path.is_dir() else "is not a kind of file that can be read"
        return data_error(path, what, _POSSIBLE)
    if kind is not None or path.name != str(path):
        return data_error(path, "there is no such file", f"check the path (looked from {Path.cwd()})")
    if path.name in NAMES:
        return data_error(path, "a data set by name goes where a network is trained", "give a file of rows here")
    close = difflib.get_close_matches(path.name.lower(), NAMES, n=1, cutoff=0.75)
    remedy = f"did you mean {close[0]}? Otherwise {_POSSIBLE}" if close else _POSSIBLE
    return data_error(path, "there is no such data set or file", remedy)
