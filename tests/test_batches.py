"""Rows on a device: bytes stay bytes until a batch needs them; labels and numbers get their types."""

from __future__ import annotations

import numpy as np
import pytest

from checks import assert_array, native
from mlp_xp.backend import Backend
from mlp_xp.batches import gather, to_device
from mlp_xp.datasets import Dataset
from mlp_xp.errors import DataError

BYTES = np.asarray([[0, 255, 16], [128, 1, 2], [64, 32, 8]], dtype=np.uint8)
LABELS = np.asarray([2, 0, 1], dtype=np.int32)


def test_bytes_stay_bytes_on_the_device(backend: Backend) -> None:
    data = to_device(Dataset("bytes", BYTES, LABELS, 3, 1 / 256), backend, "float32", native(backend, "float32"))
    assert data.features.dtype == backend.xp.uint8
    assert data.targets.dtype == backend.xp.int32


@pytest.mark.parametrize("stored", ["int16", "float32", "float64", ">f4"])
def test_other_features_get_the_trainings_type(backend: Backend, stored: str) -> None:
    features = BYTES.astype(stored)
    data = to_device(
        Dataset("numbers", features, LABELS[:, None] / 4, None), backend, "float32", native(backend, "float32")
    )
    assert data.features.dtype == data.targets.dtype == backend.xp.float32
    np.testing.assert_array_equal(backend.to_host(data.features), BYTES)


def test_a_batch_is_gathered_scaled_and_encoded(backend: Backend) -> None:
    data = to_device(Dataset("bytes", BYTES, LABELS, 3, 1 / 256), backend, "float32", native(backend, "float32"))
    rows = backend.asarray(np.asarray([2, 0], np.int32))
    features, targets = gather(data, rows, 1 / 256, 3, native(backend, "float32"))
    like = backend.asarray(np.zeros(1), "float32")
    assert_array(features, BYTES[[2, 0]] / 256, backend, like=like, ulps=0)
    assert_array(targets, np.eye(3)[[1, 2]], backend, like=like, ulps=0)


def test_the_rows_of_many_networks_are_gathered_at_once(backend: Backend) -> None:
    numbers = native(backend, "float32")
    rows = np.asarray([[2, 0], [1, 1], [0, 2]], np.int32)
    like = backend.asarray(np.zeros(1), "float32")
    data = to_device(Dataset("bytes", BYTES, LABELS, 3, 1 / 256), backend, "float32", numbers)
    features, targets = gather(data, backend.asarray(rows), 1 / 256, 3, numbers)
    assert_array(features, BYTES[rows] / 256, backend, like=like, ulps=0)
    assert_array(targets, np.eye(3)[LABELS[rows]], backend, like=like, ulps=0)
    data = to_device(Dataset("numbers", BYTES, BYTES[:, :2] / 4, None), backend, "float32", numbers)
    _, targets = gather(data, backend.asarray(rows), 1.0, 2, numbers)
    assert_array(targets, BYTES[rows][..., :2] / 4, backend, like=like, ulps=0)


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (1e300, "float32", r"1e\+300, which float32 cannot hold; use --dtype float64"),
        (-3.5e38, "float32", r"-3.5e\+38, which float32 cannot hold"),
        (np.nan, "float64", "nan; remove the row or give it a number"),
        (-np.inf, "float32", "-inf; remove the row"),
    ],
)
def test_features_that_the_type_cannot_hold_are_refused(
    numpy_backend: Backend, value: float, dtype: str, message: str
) -> None:
    features = np.asarray([[0, 0], [0, 0], [0, value]])
    with pytest.raises(DataError, match=rf"mine: a feature \(column 1, counted from 0\) is {message}"):
        to_device(Dataset("mine", features, LABELS, 3), numpy_backend, dtype, native(numpy_backend, dtype))


def test_targets_that_the_type_cannot_hold_are_refused(numpy_backend: Backend) -> None:
    data = Dataset("mine", BYTES, np.asarray([[0.0], [1e300], [0.0]]), None)
    with pytest.raises(
        DataError, match=r"mine: a target \(column 0, .*1e\+300, which float32 cannot hold; use --dtype"
    ):
        to_device(data, numpy_backend, "float32", native(numpy_backend, "float32"))


def test_the_largest_number_of_a_type_fits(backend: Backend) -> None:
    largest = np.full((1, 1), np.finfo(np.float32).max, np.float64)
    data = to_device(Dataset("mine", largest, -largest, None), backend, "float32", native(backend, "float32"))
    np.testing.assert_array_equal(backend.to_host(data.features), largest)
    np.testing.assert_array_equal(backend.to_host(data.targets), -largest)
