"""Every loss: value and prediction against scipy.special, the shared gradient, and the encoding of targets."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import special
from sklearn.metrics import mean_poisson_deviance

from checks import DTYPES, assert_array, assert_close, computed, exact, native
from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend, open_backend
from mlp_xp.losses import LEAST_COUNT, LOSSES, MOST_EXACT_COUNT, encode_targets, gradient_of_mean

SMALL = np.asarray([[0.5, -1.0, 2.0, 0.0], [3.0, -4.0, 0.25, 1.0], [-0.5, 1.5, -2.5, 0.0]])
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
    if name == "poisson":
        prediction = np.exp(logits)
        return np.sum(special.xlogy(targets, targets / prediction) - targets + prediction, axis=-1)
    return np.sum((logits - targets) ** 2, axis=-1) / 2


PREDICTIONS = {
    "cross_entropy": lambda z: special.softmax(z, axis=-1),
    "binary_cross_entropy": special.expit,
    "squared_error": lambda z: z,
    "poisson": np.exp,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_predictions(backend: Backend, name: str, dtype: str) -> None:
    host = SMALL if name == "poisson" else LOGITS  # whose predictions would overflow
    logits, targets = backend.asarray(host, dtype), backend.asarray(ONE_HOT, dtype)
    prediction, losses = LOSSES[name](logits, native(backend, dtype))
    assert_array(losses(targets), expected_losses(name, host, ONE_HOT), backend, like=logits)
    assert_array(prediction, PREDICTIONS[name](host), backend, like=logits)


COUNTS = np.asarray([[0.0, 1.0, 2.0, 7.0], [1e4, 0.0, 0.3, 1.0], [0.0, 0.0, 1e-5, 1e-30]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_poisson_is_half_of_sklearns_deviance(backend: Backend, dtype: str) -> None:
    logits, targets = backend.asarray(SMALL, dtype), backend.asarray(COUNTS, dtype)
    prediction, losses = LOSSES["poisson"](logits, native(backend, dtype))
    expected = [
        4 * mean_poisson_deviance(*row) / 2  # its mean over the four outputs
        for row in zip(COUNTS, np.exp(SMALL), strict=True)
    ]
    assert_array(losses(targets), expected, backend, like=logits)
    assert_array(prediction, np.exp(SMALL), backend, like=logits)


def poisson(arithmetic: Arithmetic, logits: Array, targets: Array) -> Array:
    _, losses = LOSSES["poisson"](logits, arithmetic)
    return losses(targets)


@pytest.mark.parametrize("arithmetic", [native, exact])
def test_poisson_takes_every_number_from_zero_on(backend: Backend, arithmetic: Callable[[Backend], Arithmetic]) -> None:
    """Each as the only output of a row, so that none hides behind a larger one."""
    targets = np.asarray(
        [0.0, 2.0**-1022, 1e-30, LEAST_COUNT, 1e-5, 0.3, 1 - 2.0**-53, 1.0, 3.0, 1e9, MOST_EXACT_COUNT]
    )
    for logit in (-250.0, -1.0, 0.0, 2.0, 40.0):
        logits = np.full((targets.size, 1), logit)
        losses = computed(poisson, arithmetic(backend), backend, logits, targets[:, None])
        # Without a quotient of target and prediction, which may be 0.
        expected = special.xlogy(targets, targets) - targets * logit - targets + np.exp(logit)
        sizes = np.abs(targets * logit) + np.abs(special.xlogy(targets, targets)) + targets + np.exp(logit)
        assert np.all(np.abs(backend.to_host(losses) - expected) <= 4 * np.finfo(np.float64).eps * sizes + 4e-20)


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
    logits, targets = rng.normal(size=(3, 4)), COUNTS / 1e3 if name == "poisson" else ONE_HOT
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
