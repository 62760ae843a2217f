"""What scikit-learn documents of the estimators' methods and of what they are given, sentence by sentence."""

from __future__ import annotations

import doctest
import inspect
import re
from typing import Any

import numpy as np
import pytest
import sklearn.neural_network as theirs
from numpy.typing import NDArray
from sklearn.datasets import load_iris
from sklearn.preprocessing import scale

import mlp_xp.neural_network as ours
from checks import DTYPES, assert_array
from documentation import documents
from mlp_xp.backend import Backend
from mlp_xp.neural_network import MLPClassifier, MLPRegressor

IRIS = load_iris()
X: NDArray[np.float64] = scale(IRIS.data)
Y: NDArray[np.int64] = IRIS.target
LABELS = np.stack([Y == 0, X[:, 0] > 0], axis=1).astype(int)
FEW: dict[str, Any] = {"hidden_layer_sizes": (5,), "max_iter": 20, "learning_rate_init": 0.03, "random_state": 0}
ULPS = 2.0**12  # over 20 steps, whose sums are added in another order
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@documents(
    fit=("Fit the model", "The input data", "The target values", "Returns a trained"),
    n_features_in_="Number of features",
    Notes=("This implementation works with data represented as dense numpy", "This implementation works with"),
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kind", "y"),
    [(MLPClassifier, Y), (MLPClassifier, LABELS), (MLPRegressor, X[:, 0]), (MLPRegressor, X[:, :2])],
)
def test_fit_learns_one_or_several_targets_of_a_row_and_returns_itself(
    backend: Backend, kind: Any, y: NDArray[Any], dtype: str
) -> None:
    # Sparse tables, which the sentence also names, are refused: test_sparse_tables_get_one_clear_error.
    place = backend.asarray(X, dtype)
    estimator = kind(**FEW)
    assert estimator.fit(place, y) is estimator
    assert estimator.n_features_in_ == 4
    assert estimator.loss_ < 0.8 * estimator.loss_curve_[0]
    assert tuple(estimator.predict(place).shape) == y.shape


@documents(fit="Sample weights", partial_fit="Sample weights")
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(("kind", "y"), [(MLPClassifier, Y), (MLPClassifier, LABELS), (MLPRegressor, X[:, 0])])
def test_a_row_of_weight_2_counts_as_two_rows(backend: Backend, kind: Any, y: NDArray[Any], method: str) -> None:
    weights = 1 + Y  # 1, 2 and 3
    settings = {**FEW, "batch_size": 300, "shuffle": False, "max_iter": 5, "alpha": 0.1}
    more = {"classes": [0, 1, 2]} if method == "partial_fit" and kind is MLPClassifier else {}
    place, repeated = backend.asarray(X, "float64"), backend.asarray(np.repeat(X, weights, axis=0), "float64")
    weighted = kind(**{**settings, "batch_size": 150})
    getattr(weighted, method)(place, y, sample_weight=weights, **more)
    by_rows = getattr(kind(**settings), method)(repeated, np.repeat(y, weights, axis=0), **more)
    # The first step of Adam hardly depends on the gradient's length, but the loss does.
    assert weighted.loss_ == pytest.approx(by_rows.loss_, rel=ULPS * np.finfo(np.float64).eps)
    for actual, expected in zip(weighted.coefs_, by_rows.coefs_, strict=True):
        assert_array(actual, backend.to_host(expected), backend, like=place, ulps=ULPS)


@documents(
    partial_fit=(
        "Classes across all calls",
        "Can be obtained",
        "This argument is required for the first",
        "Note that y doesn't need",
        "The target values",
    )
)
def test_partial_fit_is_told_the_classes_once(backend: Backend) -> None:
    place = backend.asarray(X[:100], "float64")
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        MLPClassifier(**FEW).partial_fit(place, Y[:100])
    classifier = MLPClassifier(**FEW).partial_fit(place, Y[:100], classes=np.unique(Y))  # lacks the last class
    classifier.partial_fit(place, Y[:100])
    assert backend.to_host(classifier.classes_).tolist() == [0, 1, 2]
    assert classifier.predict_proba(place).shape == (100, 3)


@documents(
    predict=("Predict using the multi-layer perceptron classifier", "The input data", "The predicted classes"),
    predict_proba=("Probability estimates", "The input data", "The predicted probability"),
    predict_log_proba=("Return the log", "The input data", "The predicted log-probability", "Equivalent to"),
    classes_="Class labels",
    out_activation_="Name of",
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", ["three classes", "two classes", "several labels"])
def test_classes_probabilities_and_their_logarithms_are_the_networks(backend: Backend, case: str, dtype: str) -> None:
    place = backend.asarray(X, dtype)
    y = {"three classes": 7 - 2 * Y, "two classes": np.where(Y == 1, 4, 9), "several labels": LABELS}[case]
    classifier = MLPClassifier(**FEW).fit(place, y)
    w_1, w_2, b_1, b_2 = (
        backend.to_host(array).astype(np.float64) for array in (*classifier.coefs_, *classifier.intercepts_)
    )
    z = np.maximum(backend.to_host(place).astype(np.float64) @ w_1 + b_1, 0.0) @ w_2 + b_2
    expected = 1.0 / (1.0 + np.exp(-z))
    if case == "three classes":
        expected = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    if case == "two classes":
        expected = np.hstack([1.0 - expected, expected])
    assert_array(classifier.predict_proba(place), expected, backend, like=place, ulps=ULPS)
    assert_array(classifier.predict_log_proba(place), np.log(expected), backend, like=place, ulps=ULPS)
    probabilities = backend.to_host(classifier.predict_proba(place))
    logarithms = np.log(probabilities.astype(np.float64))
    assert_array(classifier.predict_log_proba(place), logarithms, backend, like=place)
    classes, predicted = backend.to_host(classifier.classes_), classifier.predict(place)
    assert type(predicted) is type(place)
    predicted = backend.to_host(predicted)
    if case == "several labels":
        assert classes.tolist() == [0, 1]
        np.testing.assert_array_equal(predicted, probabilities > 0.5)
    else:
        assert classes.tolist() == np.unique(y).tolist()
        np.testing.assert_array_equal(predicted, classes[probabilities.argmax(axis=1)])


@documents(predict=("Predict using the multi-layer perceptron model", "The predicted values"))
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_a_regressor_predicts_numbers(backend: Backend, n_outputs: int) -> None:
    place = backend.asarray(X, "float32")
    regressor = MLPRegressor(**FEW).fit(place, X[:, 0] if n_outputs == 1 else X[:, :2])
    w_1, w_2, b_1, b_2 = (
        backend.to_host(array).astype(np.float64) for array in (*regressor.coefs_, *regressor.intercepts_)
    )
    expected = np.maximum(X.astype(np.float32).astype(np.float64) @ w_1 + b_1, 0.0) @ w_2 + b_2
    # Scikit-learn, too, returns one output as a line, though it is documented as a table.
    assert_array(regressor.predict(place), expected[:, 0] if n_outputs == 1 else expected, backend, like=place, ulps=64)


@documents(
    score=("Return :ref:`accuracy", "In multi-label", "Test samples", "True labels", "Sample weights", "Mean acc")
)
@pytest.mark.parametrize("y", [Y, LABELS])
def test_the_score_of_a_classifier_is_its_share_of_rows_with_all_labels_right(
    backend: Backend, y: NDArray[np.int64]
) -> None:
    place = backend.asarray(X, "float64")
    classifier = MLPClassifier(**FEW).fit(place, y)
    right = (backend.to_host(classifier.predict(place)) == y).reshape(150, -1).all(axis=1)
    assert 0 < right.sum() < 150
    weights = np.linspace(0.0, 1.0, 150)
    assert classifier.score(place, y) == pytest.approx(right.mean(), rel=1e-15)
    assert classifier.score(place, y, sample_weight=weights) == pytest.approx(np.average(right, weights=weights))


@documents(
    score=(
        "Return :ref:`coefficient",
        "The coefficient of determination",
        "The best possible score",
        "A constant model",
        "Test samples",
        "True values",
        "Sample weights",
        ":math:`R^2` of",
        "The :math:`R^2` score used",
        "This influences",
    )
)
def test_the_score_of_a_regressor_is_the_mean_r2_of_its_outputs(backend: Backend) -> None:
    place, y = backend.asarray(X, "float64"), X[:, :2] * [1.0, 3.0] + [0.0, 2.0]

    def predicting(weight: NDArray[Any], bias: Any) -> MLPRegressor:
        regressor = MLPRegressor(hidden_layer_sizes=(), max_iter=1, random_state=0).fit(place, y)
        regressor.coefs_ = [backend.asarray(weight, "float64")]
        regressor.intercepts_ = [backend.asarray(np.asarray(bias), "float64")]
        return regressor

    best = np.zeros((4, 2))
    best[0, 0], best[1, 1] = 1.0, 3.0
    assert predicting(best, [0.0, 2.0]).score(place, y) == 1.0
    constant = np.zeros((4, 2))
    assert predicting(constant, y.mean(axis=0)).score(place, y) == pytest.approx(0.0, abs=1e-14)
    assert predicting(constant, [9.0, 9.0]).score(place, y) < -1.0
    weights = np.linspace(0.0, 1.0, 150)
    half = predicting(0.5 * best, [0.0, 2.0])
    for given in (None, weights):
        mean = np.average(y, axis=0, weights=given)
        unexplained = np.average((y - 0.5 * X[:, :2] * [1.0, 3.0] - [0.0, 2.0]) ** 2, axis=0, weights=given)
        expected = np.mean(1.0 - unexplained / np.average((y - mean) ** 2, axis=0, weights=given))
        assert half.score(place, y, sample_weight=given) == pytest.approx(expected)


@documents(MLPClassifier="Multi-layer", MLPRegressor="Multi-layer")
@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_the_examples_print_what_they_print_there(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(getattr(theirs, name)) or "")
    printed = []
    for module in (theirs, ours):
        names: dict[str, Any] = {}
        with np.printoptions(precision=6):
            for example in examples:
                source = example.source.replace(theirs.__name__, module.__name__)
                exec(compile(source, name, "single"), names)  # noqa: S102
        # The last digits of a score are rounding.
        printed.append(re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.6g}", capsys.readouterr().out))
    assert "array(" in printed[0]
    assert printed[1] == printed[0]
