"""With scikit-learn's settings and random state, its own loss curve is drawn, wherever X is."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import sklearn.neural_network as theirs
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes, load_iris, load_wine
from sklearn.preprocessing import scale

import mlp_xp.neural_network as ours
from checks import assert_close
from mlp_xp.backend import Backend

ULPS = 2.0**20  # over some hundred steps, whose sums are added in another order
IRIS: tuple[NDArray[Any], NDArray[Any]] = load_iris(return_X_y=True)
DIABETES: tuple[NDArray[Any], NDArray[Any]] = load_diabetes(return_X_y=True)
X, Y = scale(IRIS[0]), IRIS[1]
X_NUMBERS, Y_NUMBERS = scale(DIABETES[0]), scale(DIABETES[1])
LABELS = np.stack([Y == 0, X[:, 0] > 0, X[:, 1] > X[:, 2]], axis=1).astype(int)
WEIGHTS = np.random.default_rng(0).uniform(0.5, 2.0, len(Y))

FITS: dict[str, tuple[str, Any, Any, dict[str, Any], Any]] = {
    "defaults": ("MLPClassifier", X, Y, {}, None),
    "sgd": ("MLPClassifier", X, Y, {"solver": "sgd", "learning_rate_init": 0.1}, None),
    "no momentum": ("MLPClassifier", X, Y, {"solver": "sgd", "learning_rate_init": 0.1, "momentum": 0.0}, None),
    "plain momentum": ("MLPClassifier", X, Y, {"solver": "sgd", "nesterovs_momentum": False, "momentum": 0.5}, None),
    "invscaling": ("MLPClassifier", X, Y, {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.3}, None),
    "adaptive": (
        "MLPClassifier",
        X,
        Y,
        {
            "solver": "sgd",
            "learning_rate": "adaptive",
            "learning_rate_init": 0.3,
            "tol": 0.05,
            "n_iter_no_change": 1,
            "max_iter": 60,
        },
        None,
    ),
    "adam": ("MLPClassifier", X, Y, {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 0.1, "learning_rate_init": 0.05}, None),
    "lbfgs": ("MLPClassifier", X, Y, {"solver": "lbfgs", "max_iter": 8}, None),
    "even batches": ("MLPClassifier", X, Y, {"batch_size": 50, "alpha": 0.1}, None),
    "uneven batches": ("MLPClassifier", X, Y, {"batch_size": 40, "alpha": 0.1}, None),
    "no penalty": ("MLPClassifier", X, Y, {"batch_size": 40, "alpha": 0.0}, None),
    "no shuffling": ("MLPClassifier", X, Y, {"batch_size": 32, "shuffle": False}, None),
    "logistic": ("MLPClassifier", X, Y, {"activation": "logistic"}, None),
    "tanh": ("MLPClassifier", X, Y, {"activation": "tanh"}, None),
    "identity": ("MLPClassifier", X, Y, {"activation": "identity", "hidden_layer_sizes": (4, 3)}, None),
    "no hidden layer": ("MLPClassifier", X, Y, {"hidden_layer_sizes": ()}, None),
    "two classes": ("MLPClassifier", X, Y == 1, {}, None),
    "several labels": ("MLPClassifier", X, LABELS, {}, None),
    "weights": ("MLPClassifier", X, Y, {"batch_size": 40, "alpha": 0.1}, WEIGHTS),
    "weights, lbfgs": ("MLPClassifier", X, Y, {"solver": "lbfgs", "max_iter": 8}, WEIGHTS),
    "early stopping": (
        "MLPClassifier",
        X,
        Y == 1,
        {"early_stopping": True, "n_iter_no_change": 3, "learning_rate_init": 0.01, "max_iter": 60},
        None,
    ),
    "early stopping, three classes": (
        "MLPClassifier",
        X,
        Y,
        {"early_stopping": True, "n_iter_no_change": 3, "learning_rate_init": 0.01, "max_iter": 60},
        None,
    ),
    "early stopping, one row of a class": (
        "MLPClassifier",
        X[:101],
        Y[:101],
        {"early_stopping": True, "batch_size": 30},
        WEIGHTS[:101],
    ),
    "early stopping, several labels": ("MLPClassifier", X, LABELS, {"early_stopping": True}, None),
    "early stopping, weights": (
        "MLPRegressor",
        X,
        X[:, 0] * X[:, 1],
        {"early_stopping": True, "validation_fraction": 0.3},
        WEIGHTS,
    ),
    "regression": ("MLPRegressor", X_NUMBERS, Y_NUMBERS, {}, None),
    "regression, sgd": ("MLPRegressor", X_NUMBERS, Y_NUMBERS, {"solver": "sgd", "learning_rate_init": 0.01}, None),
    "counts": ("MLPRegressor", X, Y, {"loss": "poisson"}, WEIGHTS),
    "counts, lbfgs": ("MLPRegressor", X, np.stack([Y, 2 * Y], 1), {"loss": "poisson", "solver": "lbfgs"}, None),
    "regression, lbfgs": ("MLPRegressor", X_NUMBERS, Y_NUMBERS, {"solver": "lbfgs", "max_iter": 8}, None),
}


def fitted(module: Any, case: str, place: Any = None) -> tuple[Any, list[str]]:
    """Return an estimator of a module, and what it warned of."""
    name, X, y, settings, weights = FITS[case]
    estimator = getattr(module, name)(**{"hidden_layer_sizes": (12,), "max_iter": 12, "random_state": 3, **settings})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(X if place is None else place(X), y, sample_weight=weights)
    return estimator, [f"{warning.category.__name__}" for warning in caught]


@pytest.mark.parametrize("case", FITS)
def test_the_curve_is_scikit_learns(backend: Backend, case: str) -> None:
    expected, warned = fitted(theirs, case)
    actual, warned_here = fitted(ours, case, lambda host: backend.asarray(host, "float64"))
    assert warned_here == warned
    assert actual.n_iter_ == expected.n_iter_
    # Scikit-learn does not count the rows of L-BFGS.
    assert actual.t_ == (len(FITS[case][2]) * expected.n_iter_ if expected.solver == "lbfgs" else expected.t_)
    if hasattr(expected, "loss_curve_"):
        assert_close(np.asarray(actual.loss_curve_), np.asarray(expected.loss_curve_), ULPS)
    assert_close(np.asarray([actual.loss_]), np.asarray([expected.loss_]), ULPS)
    if expected.solver != "lbfgs" and expected.best_loss_ is not None:
        assert_close(np.asarray([actual.best_loss_]), np.asarray([expected.best_loss_]), ULPS)
    if getattr(expected, "validation_scores_", None) is not None:
        assert_close(np.asarray(actual.validation_scores_), np.asarray(expected.validation_scores_), ULPS)
        assert actual.best_validation_score_ == pytest.approx(expected.best_validation_score_, rel=1e-9)
    for name in ("coefs_", "intercepts_"):
        for here, there in zip(getattr(actual, name), getattr(expected, name), strict=True):
            assert_close(backend.to_host(here), there, ULPS)
    for name in ("n_layers_", "n_outputs_", "out_activation_", "n_features_in_"):
        assert getattr(actual, name) == getattr(expected, name)
    rows = FITS[case][1]
    on_device = backend.asarray(rows, "float64")
    for method in ("predict", "predict_proba", "predict_log_proba"):
        if hasattr(expected, method):
            result = backend.to_host(getattr(actual, method)(on_device))
            reference = getattr(expected, method)(rows)
            assert result.shape == reference.shape
            assert_close(np.asarray(result, np.float64), np.asarray(reference, np.float64), ULPS)
    assert actual.score(on_device, FITS[case][2]) == pytest.approx(expected.score(rows, FITS[case][2]), rel=1e-9)


@pytest.mark.parametrize("case", ["three classes", "two classes", "several labels"])
def test_of_large_features_the_parameters_are_scikit_learns_and_its_loss_is_cut_off(
    backend: Backend, case: str
) -> None:
    table, classes = load_wine(return_X_y=True)  # not scaled: probabilities are 0 to the last bit
    y = {"three classes": classes, "two classes": classes == 1}.get(case, np.stack([classes == 0, classes > 0], 1) * 1)
    settings: dict[str, Any] = {"hidden_layer_sizes": (12,), "max_iter": 12, "alpha": 0.0, "random_state": 0}
    place, predicted = backend.asarray(table, "float64"), []
    note = [lambda estimator: predicted.append(backend.to_host(estimator.predict_proba(place)))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs.MLPClassifier(**settings).fit(table, y)
        actual = ours.MLPClassifier(**settings, callbacks=note).fit(place, y)
    for name in ("coefs_", "intercepts_"):
        for here, there in zip(getattr(actual, name), getattr(expected, name), strict=True):
            assert_close(backend.to_host(here), there, ULPS)
    # All rows are one batch, whose loss is that before its step: of the probabilities after the epoch before.
    eps = np.finfo(np.float64).eps
    one_hot = y if case == "several labels" else np.eye(3 if case == "three classes" else 2)[y.astype(int)]
    clipped = np.clip(predicted[:-1], eps, 1 - eps)
    logs = one_hot * np.log(clipped) + (case == "several labels") * (1 - one_hot) * np.log(1 - clipped)
    assert_close(-logs.sum(axis=2).mean(axis=1), np.asarray(expected.loss_curve_[1:]), ULPS)
    assert min(np.divide(actual.loss_curve_, expected.loss_curve_)) > 2.0


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_parameters_and_defaults_are_scikit_learns(name: str) -> None:
    expected, actual = getattr(theirs, name)().get_params(), getattr(ours, name)().get_params()
    assert {key: actual[key] for key in expected} == expected
    network = {"residual", "batch_norm", "pretrain", "pretrain_epochs"}
    added = {"dropout", "max_gradient_norm", "callbacks", "arithmetic", *network} | (
        {"class_weight"} if name == "MLPClassifier" else set()
    )
    assert set(actual) - set(expected) == added


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_partial_fit_and_warm_start_go_on_as_scikit_learns_do(solver: str) -> None:
    curves = []
    for module in (theirs, ours):
        estimator = module.MLPClassifier((6,), solver=solver, batch_size=40, random_state=1)
        for first in (0, 75, 0):
            estimator.partial_fit(X[first : first + 75], Y[first : first + 75], classes=[0, 1, 2])
        again = module.MLPClassifier((6,), solver=solver, max_iter=2, random_state=1, warm_start=True)
        for _ in range(3):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                again.fit(X, Y)
        curves.append((estimator.loss_curve_, again.loss_curve_, [estimator.t_, estimator.n_iter_, again.t_]))
    for actual, expected in zip(curves[1], curves[0], strict=True):
        assert_close(np.asarray(actual, np.float64), np.asarray(expected, np.float64), ULPS)
