"""Every loss: value and prediction against scipy.special, the shared gradient, and the encoding of targets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import special

from checks import DTYPES, assert_array, assert_close, native
from mlp_xp.backend import Backend, open_backend
from mlp_xp.losses import LOSSES, encode_targets, gradient_of_mean

LOGITS = np.asarray([[0.5, -1.0, 2.0, 0.0], [30.0, -30.0, 0.0, 1.0], [1000.0, 999.0, -1000.0, 0.0]])
LABELS = np.asarray([2, 0, 1], dtype=np.int32)
ONE_HOT = np.eye(4)[LABELS]


def expected_losses(name: str, logits: NDArray[Any], targets: NDArray[Any]) -> Any:
    """Return the losses by other formulas than the project's."""
    if name == "cross_entropy":
        return -np.sum(targets * special.log_softmax(logits, axis=-1), axis=-1)
    if name == "binary_cross_entropy":
        log_p, log_q = special.log_expit(logits), special.log_expit(-logits)
        return -np.sum(targets * log_p + (1 - targets) * log_q, axis=-1)
    return np.sum((logits - targets) ** 2, axis=-1) / 2


PREDICTIONS = {
    "cross_entropy": lambda z: special.softmax(z, axis=-1),
    "binary_cross_entropy": special.expit,
    "squared_error": lambda z: z,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_predictions(backend: Backend, name: str, dtype: str) -> None:
    logits, targets = backend.asarray(LOGITS, dtype), backend.asarray(ONE_HOT, dtype)
    prediction, losses = LOSSES[name](logits, native(backend, dtype))
    assert_array(losses(targets), expected_losses(name, LOGITS, ONE_HOT), backend, like=logits)
    assert_array(prediction, PREDICTIONS[name](LOGITS), backend, like=logits)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8), st.floats(-1e3, 1e3), st.integers(0, 7))
def test_cross_entropy_ignores_a_common_shift(logits: list[float], shift: float, label: int) -> None:
    backend = open_backend("numpy")
    z = np.asarray([logits])
    target = np.eye(len(logits))[[label % len(logits)]]
    probabilities, losses = LOSSES["cross_entropy"](z, native(backend))
    _, losses_shifted = LOSSES["cross_entropy"](z + shift, native(backend))
    (loss,), (shifted,) = losses(target), losses_shifted(target)
    assert loss >= 0
    assert_close(np.sum(probabilities, axis=-1), np.ones(1))
    assert abs(shifted - loss) <= 8 * np.finfo(np.float64).eps * 3e3


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_that_of_the_mean(backend: Backend, name: str) -> None:
    """Against central differences of the formulas above."""
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(3, 4)), ONE_HOT
    prediction, _ = LOSSES[name](backend.asarray(logits), native(backend))
    gradient = gradient_of_mean(prediction, backend.asarray(targets), None, native(backend))
    step = 1e-5
    numerical = np.empty_like(logits)
    for i in np.ndindex(*logits.shape):
        moved = np.zeros_like(logits)
        moved[i] = step
        above, below = (np.mean(expected_losses(name, logits + s * moved, targets)) for s in (1, -1))
        numerical[i] = (above - below) / (2 * step)
    assert_array(gradient, numerical, backend, like=prediction, ulps=1e-9 / np.finfo(np.float64).eps)


def test_cross_entropy_is_in_nats(backend: Backend) -> None:
    """The circulating solution of the lab prints bits: log(10) / log(2) = 3.32 for ten equal logits."""
    zeros = backend.asarray(np.zeros((1, 10)), "float64")
    target = backend.asarray(np.eye(10)[[3]], "float64")
    _, losses = LOSSES["cross_entropy"](zeros, native(backend))
    assert abs(float(backend.to_host(losses(target))[0]) - math.log(10)) < 1e-15


def test_gradient_of_negative_logits_is_not_cut_off() -> None:
    """The circulating solution multiplies it by ReLU'(logits), which leaves a wrong class's rise unpunished."""
    logits = np.asarray([[-1.0, -2.0, -0.5]])
    targets = np.asarray([[1.0, 0.0, 0.0]])
    arithmetic = native(open_backend("numpy"))
    prediction, _ = LOSSES["cross_entropy"](logits, arithmetic)
    assert np.all(gradient_of_mean(prediction, targets, None, arithmetic) != 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_labels_become_one_hot_rows(backend: Backend, dtype: str) -> None:
    encoded = encode_targets(backend.asarray(LABELS), 4, native(backend, dtype))
    assert_array(encoded, ONE_HOT, backend, like=backend.asarray(ONE_HOT, dtype), ulps=0)


def test_labels_become_a_column_for_a_single_output(backend: Backend) -> None:
    encoded = encode_targets(backend.asarray(np.asarray([1, 0, 1], np.int32)), 1, native(backend))
    assert_array(encoded, [[1.0], [0.0], [1.0]], backend, like=backend.asarray(ONE_HOT), ulps=0)


def test_numbers_stay_as_they_are(backend: Backend) -> None:
    numbers = backend.asarray(LOGITS, "float64")
    assert encode_targets(numbers, 4, native(backend)) is numbers
