"""To scikit-learn and back: the same predictions, and trainings that go on."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import sklearn.neural_network as theirs
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

import mlp_xp.neural_network as ours
from mlp_xp.backend import Backend
from mlp_xp.neural_network import MLPClassifier, from_sklearn

IRIS = load_iris()
X, Y = IRIS.data, IRIS.target
FEW: dict[str, Any] = {"hidden_layer_sizes": (5,), "max_iter": 4, "random_state": 0}
TARGETS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "three classes": ("MLPClassifier", Y, {}),
    "names": ("MLPClassifier", IRIS.target_names[Y], {}),
    "two classes": ("MLPClassifier", Y == 1, {"activation": "logistic"}),
    "one class": ("MLPClassifier", np.ones(150, int), {}),
    "several labels": ("MLPClassifier", np.stack([Y == 0, Y > 0], axis=1).astype(int), {"early_stopping": True}),
    "numbers": ("MLPRegressor", X[:, 0], {"activation": "tanh"}),
    "several numbers": ("MLPRegressor", X[:, :2], {"solver": "lbfgs"}),
}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def assert_same_predictions(one: Any, other: Any) -> None:
    for method in ("predict", "predict_proba"):
        if hasattr(one, method):
            actual, expected = (getattr(estimator, method)(X) for estimator in (one, other))
            assert actual.dtype == expected.dtype
            if expected.dtype.kind == "f":
                np.testing.assert_allclose(actual, expected, rtol=1e-12)
            else:
                np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("case", TARGETS)
def test_to_scikit_learn_and_back(backend: Backend, case: str) -> None:
    name, y, settings = TARGETS[case]
    here = getattr(ours, name)(**FEW, **settings).fit(backend.asarray(X, "float64"), y)
    there = here.to_sklearn()
    assert type(there) is getattr(theirs, name)
    assert_same_predictions(there, here.move_to(X))
    assert_same_predictions(from_sklearn(there), there)


@pytest.mark.parametrize("case", TARGETS)
def test_from_scikit_learn(case: str) -> None:
    name, y, settings = TARGETS[case]
    there = getattr(theirs, name)(**FEW, **settings).fit(X, y)
    here = from_sklearn(there)
    assert type(here) is getattr(ours, name)
    assert_same_predictions(here, there)
    assert here.n_iter_ == there.n_iter_
    assert here.get_params().items() >= there.get_params().items()


def test_a_training_goes_on_there_as_here() -> None:
    here = MLPClassifier(**FEW, warm_start=True).fit(X, Y)
    there = here.to_sklearn()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        there.fit(X, Y)
    assert here.fit(X, Y).loss_curve_ == pytest.approx(there.loss_curve_, rel=1e-10)
    assert len(there.loss_curve_) == 8


def test_sigmoid_is_logistic_and_others_are_refused() -> None:
    assert MLPClassifier(**FEW, activation="sigmoid").fit(X, Y).to_sklearn().activation == "logistic"
    with pytest.raises(ValueError, match="activation='gelu': scikit-learn has identity, logistic, tanh, relu alone"):
        MLPClassifier(**FEW, activation="gelu").fit(X, Y).to_sklearn()


def test_what_is_not_fitted_or_no_perceptron_is_refused() -> None:
    with pytest.raises(NotFittedError):
        MLPClassifier().to_sklearn()
    with pytest.raises(NotFittedError):
        from_sklearn(theirs.MLPClassifier())
    for wrong in (LogisticRegression(), MLPClassifier(), None):
        with pytest.raises(TypeError, match="a fitted MLPClassifier or MLPRegressor of scikit-learn's is wanted"):
            from_sklearn(wrong)
