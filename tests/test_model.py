"""A trained network, applied: the same labels and probabilities whichever library holds it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from checks import native
from mlp_xp import losses
from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend
from mlp_xp.errors import DataError
from mlp_xp.initializers import initial_parameters
from mlp_xp.model import Model, mean
from mlp_xp.network import Network, map_parameters
from mlp_xp.objective import Objective

SIZES = (6, 5, 3)


def make(backend: Backend, loss: str = "cross_entropy", n_classes: int | None = 3, scale: float = 1.0) -> Model:
    host = initial_parameters(SIZES, "pytorch", 0)
    parameters = map_parameters(lambda array: backend.asarray(array, "float64"), host)
    arithmetic = native(backend)
    return Model(Objective(Network(SIZES, "relu"), loss), parameters, scale, n_classes, backend, arithmetic, "float64")


def rows(n: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, SIZES[0]))


def logits(features: np.ndarray) -> np.ndarray:
    first, second = initial_parameters(SIZES, "pytorch", 0)
    hidden = np.maximum(features @ first.weight + first.bias, 0.0)
    return np.asarray(hidden @ second.weight + second.bias)


@pytest.mark.parametrize("n", [1, 7])
def test_labels_and_probabilities_are_those_of_the_formula(backend: Backend, n: int) -> None:
    labels, probabilities = make(backend).predict(rows(n))
    z = np.exp(logits(rows(n)))
    np.testing.assert_allclose(probabilities, z / z.sum(axis=1, keepdims=True), rtol=1e-13)
    assert labels is not None
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, np.argmax(z, axis=1))


def test_a_regression_predicts_numbers(backend: Backend) -> None:
    labels, values = make(backend, "squared_error", None).predict(rows(4))
    assert labels is None
    np.testing.assert_allclose(values, logits(rows(4)), rtol=1e-13, atol=1e-15)


def test_a_regression_with_a_log_link_predicts_exponentials(backend: Backend) -> None:
    labels, values = make(backend, "poisson", None).predict(rows(4))
    assert labels is None
    np.testing.assert_allclose(values, np.exp(logits(rows(4))), rtol=1e-13)


def test_more_rows_than_a_chunk_change_nothing(backend: Backend) -> None:
    n = 2 * backend.rows_at_once + 1
    features = rows(n)
    _, values = make(backend).predict(features)
    assert values.shape == (n, 3)
    _, last = make(backend).predict(features[-5:])
    np.testing.assert_allclose(values[-5:], last, rtol=1e-13)


def test_stored_features_are_scaled(backend: Backend) -> None:
    stored = np.arange(12, dtype=np.uint8).reshape(2, 6)
    _, scaled = make(backend, scale=0.25).predict(stored)
    _, plain = make(backend).predict(stored * 0.25)
    np.testing.assert_array_equal(scaled, plain)


@pytest.mark.parametrize("shape", [(2, 5), (2, 7), (6,), (2, 3, 2), (0, 6)])
def test_the_wrong_number_of_features_is_refused(numpy_backend: Backend, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"features of shape \(.*\): the network takes one or more rows of 6"):
        make(numpy_backend).predict(np.zeros(shape))


def test_lists_are_taken(numpy_backend: Backend) -> None:
    model = make(numpy_backend)
    np.testing.assert_array_equal(model.predict(rows(3).tolist()).values, model.predict(rows(3)).values)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([[1, 2], [3]], "rows to predict: its features cannot be made into a NumPy array"),
        ([["a"] * 6], "rows to predict: its features are of type <U1, not real numbers"),
        ([[0, 0, 0, 0, float("nan"), 0]], r"rows to predict: a feature \(column 4, counted from 0\) is nan; remove"),
    ],
)
def test_what_is_no_number_is_refused(numpy_backend: Backend, features: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(numpy_backend).predict(features)


def test_a_prediction_computes_no_loss(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no targets to compute it from."""

    def loss(logits: Array, _arithmetic: Arithmetic) -> Any:
        return logits, None

    monkeypatch.setitem(losses.LOSSES, "without targets", loss)
    _, values = make(backend, "without targets").predict(rows(4))
    np.testing.assert_allclose(values, logits(rows(4)), rtol=1e-13, atol=1e-15)


def test_parameters_on_the_host_may_be_written_to(backend: Backend) -> None:
    model = make(backend)
    before = model.predict(rows(4)).values
    for layer in model.host_parameters():
        layer.weight[:] = layer.bias[:] = 0.0
    np.testing.assert_array_equal(model.predict(rows(4)).values, before)


def test_parameters_come_back_to_the_host(backend: Backend) -> None:
    for layer, expected in zip(make(backend).host_parameters(), initial_parameters(SIZES, "pytorch", 0), strict=True):
        for array, start in zip(layer, expected, strict=True):
            assert isinstance(array, np.ndarray)
            np.testing.assert_array_equal(array, start)


def test_a_single_output_is_the_probability_of_class_one(numpy_backend: Backend) -> None:
    model = make(numpy_backend, "binary_cross_entropy", 2)
    one = replace(
        model,
        objective=Objective(Network((6, 1)), "binary_cross_entropy"),
        parameters=initial_parameters((6, 1), "pytorch", 0),
    )
    labels, values = one.predict(rows(9))
    assert values.shape == (9, 1)
    np.testing.assert_array_equal(labels, values[:, 0] > 0.5)
    assert set(np.unique(values[:, 0] > 0.5)) == {False, True}


def test_a_mean_is_rounded_once_and_needs_no_sum_that_fits_a_float() -> None:
    assert mean(np.asarray([1.0, 2.0**-53, 2.0**-53, -1.0])) == 2.0**-54
    assert mean(np.full(4, 1.5e308)) == 1.5e308
    assert math.isnan(mean(np.asarray([1.0, np.nan])))
    assert mean(np.asarray([1.0, np.inf])) == math.inf
