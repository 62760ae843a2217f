"""Rows on a device: bytes stay bytes until a batch needs them; labels and numbers get their types."""

from __future__ import annotations

import numpy as np
import pytest

from checks import assert_array, native
from mlp_xp.backend import Backend
from mlp_xp.batches import gather, to_device
from mlp_xp.datasets import Dataset

BYTES = np.asarray([[0, 255, 16], [128, 1, 2], [64, 32, 8]], dtype=np.uint8)
LABELS = np.asarray([2, 0, 1], dtype=np.int32)


def test_bytes_stay_bytes_on_the_device(backend: Backend) -> None:
    data = to_device(Dataset("bytes", BYTES, LABELS, 3, 1 / 256), backend, "float32")
    assert data.features.dtype == backend.xp.uint8
    assert data.targets.dtype == backend.xp.int32


@pytest.mark.parametrize("stored", ["int16", "float32", "float64", ">f4"])
def test_other_features_get_the_trainings_type(backend: Backend, stored: str) -> None:
    features = BYTES.astype(stored)
    data = to_device(Dataset("numbers", features, LABELS[:, None] / 4, None), backend, "float32")
    assert data.features.dtype == data.targets.dtype == backend.xp.float32
    np.testing.assert_array_equal(backend.to_host(data.features), BYTES)


def test_a_batch_is_gathered_scaled_and_encoded(backend: Backend) -> None:
    data = to_device(Dataset("bytes", BYTES, LABELS, 3, 1 / 256), backend, "float32")
    rows = backend.asarray(np.asarray([2, 0], np.int32))
    features, targets = gather(data, rows, 1 / 256, 3, native(backend, "float32"))
    like = backend.asarray(np.zeros(1), "float32")
    assert_array(features, BYTES[[2, 0]] / 256, backend, like=like, ulps=0)
    assert_array(targets, np.eye(3)[[1, 2]], backend, like=like, ulps=0)
