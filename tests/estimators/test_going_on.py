"""A training that goes on, by warm_start or partial_fit: from wherever it comes, after whatever was changed."""

from __future__ import annotations

import warnings
from typing import Any

import array_api_compat
import numpy as np
import pytest
import sklearn.neural_network as theirs
from numpy.typing import NDArray
from sklearn.datasets import load_iris
from sklearn.preprocessing import scale

import mlp_xp.neural_network as ours
from checks import DTYPES
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend
from mlp_xp.estimators.inputs import to_host
from mlp_xp.neural_network import MLPClassifier, MLPRegressor, from_sklearn

X, Y = load_iris(return_X_y=True)
FEW: dict[str, Any] = {"hidden_layer_sizes": (5,), "max_iter": 3, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def fit_on(estimator: Any, table: Array, y: Any, **changes: Any) -> Any:
    """Go on by warm_start, without a word of scikit-learn's about convergence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.set_params(warm_start=True, **changes).fit(table, y)


def hosts(estimator: Any, backend: Backend) -> list[NDArray[Any]]:
    return [backend.to_host(array).copy() for array in (*estimator.coefs_, *estimator.intercepts_)]


def is_close(one: Any, other: Any) -> bool:
    return bool(np.allclose(one, other, rtol=1e-9, atol=0.0))


@pytest.mark.parametrize("settings", [{}, {"early_stopping": True}, {"solver": "lbfgs"}], ids=str)
def test_what_went_to_scikit_learn_goes_on_there(backend: Backend, settings: dict[str, Any]) -> None:
    place, y = backend.asarray(X, "float64"), Y == 1
    here = MLPClassifier(**FEW, **settings).fit(place, y)
    there = here.to_sklearn()
    fit_on(here, place, y, solver="adam"), fit_on(there, X, y, solver="adam")
    assert len(there.loss_curve_) == len(here.loss_curve_) > 3
    assert is_close(here.loss_curve_, there.loss_curve_)
    if "early_stopping" in settings:
        assert here.validation_scores_ == there.validation_scores_
    assert all(map(is_close, hosts(here, backend), (*there.coefs_, *there.intercepts_)))
    there.set_params(early_stopping=False, warm_start=False)
    if not settings:
        again = from_sklearn(there).partial_fit(X, y)
        assert is_close(again.loss_curve_, there.partial_fit(X, y).loss_curve_)


@pytest.mark.parametrize("before", [{}, {"early_stopping": True}, {"solver": "lbfgs"}], ids=str)
@pytest.mark.parametrize("after", [{}, {"early_stopping": True}, {"solver": "lbfgs"}], ids=str)
@pytest.mark.parametrize("source", [ours, theirs], ids=["ours", "theirs"])
def test_a_training_goes_on_by_other_settings(source: Any, before: dict[str, Any], after: dict[str, Any]) -> None:
    fitted = source.MLPClassifier(**FEW, **before)
    fit_on(fitted, X, Y)
    here = from_sklearn(fitted) if source is theirs else fitted
    curve, scores = list(here.loss_curve_), list(here.validation_scores_ or [])
    fit_on(here, X, Y, **{"early_stopping": False, "solver": "adam", **after})
    assert here.n_iter_ == 3
    assert here.loss_curve_[:-3] == curve
    assert here.loss_ == here.loss_curve_[-1]
    n_scores = 3 if "early_stopping" in after else 0
    assert (here.validation_scores_ or []) == [*scores, *(here.validation_scores_ or [])[-n_scores:][:n_scores]]
    if n_scores:
        assert len(here.validation_scores_) == len(scores) + 3
        assert here.best_validation_score_ == max(here.validation_scores_)
    else:
        assert here.best_loss_ == pytest.approx(min(here.loss_curve_))


def test_epochs_without_improvement_are_counted_on_from_there() -> None:
    settings = {**FEW, "tol": 100.0, "n_iter_no_change": 3, "warm_start": True}
    there = theirs.MLPClassifier(**settings)
    fit_on(there, X, Y)
    here = from_sklearn(there)
    assert [fit_on(here, X, Y).n_iter_, here.to_sklearn()._no_improvement_count] == [2, 4]
    assert fit_on(there, X, Y).n_iter_ == 2


@pytest.mark.parametrize(("first", "then"), [("sgd", "adam"), ("adam", "sgd")])
def test_partial_fit_keeps_the_optimiser_of_the_first_call(backend: Backend, first: str, then: str) -> None:
    curves = []
    for module, table in ((theirs, X), (ours, backend.asarray(X, "float64"))):
        estimator = module.MLPClassifier(**FEW, solver=first, batch_size=40, learning_rate="invscaling")
        estimator.partial_fit(table, Y, classes=[0, 1, 2])
        estimator.set_params(solver=then, momentum=0.0, beta_1=0.1, learning_rate_init=1.0)
        for _ in range(3):
            estimator.partial_fit(table, Y)
        curves.append(estimator.loss_curve_)
    assert is_close(*curves)


def test_a_new_start_takes_the_optimiser_of_the_settings(backend: Backend) -> None:
    place = backend.asarray(X, "float64")
    classifier = MLPClassifier(**FEW, solver="sgd").partial_fit(place, Y, classes=[0, 1, 2])
    classifier.set_params(solver="adam").fit(place, Y)
    assert classifier.loss_curve_ == MLPClassifier(**FEW).fit(place, Y).loss_curve_


def test_units_are_dropped_in_those_calls_that_ask_for_it(backend: Backend) -> None:
    place = backend.asarray(X, "float64")
    settings = {**FEW, "shuffle": False, "solver": "sgd", "learning_rate_init": 1e-30}  # the parameters stay
    classifier = MLPClassifier(**settings)
    for dropout in (0.0, 0.5, 0.0, 0.5):
        classifier.set_params(dropout=dropout).partial_fit(place, Y, classes=[0, 1, 2])
    first, second, third, fourth = classifier.loss_curve_
    assert first == third
    assert len({first, second, fourth}) == 3


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("arithmetics", [("native", "native"), ("native", "exact"), ("exact", "native")])
@pytest.mark.parametrize(("first", "then"), [DTYPES, DTYPES[::-1]])
def test_a_training_keeps_the_type_it_began_with(
    backend: Backend, first: str, then: str, arithmetics: tuple[str, str], method: str
) -> None:
    classifier = MLPClassifier(**FEW, arithmetic=arithmetics[0], warm_start=method == "fit")
    places = [backend.asarray(X, dtype) for dtype in (first, then)]
    more = {} if method == "fit" else {"classes": [0, 1, 2]}
    getattr(classifier, method)(places[0], Y, **more)
    getattr(classifier.set_params(arithmetic=arithmetics[1]), method)(places[1], Y)
    wanted = backend.asarray(np.zeros(1), "float64" if "exact" in arithmetics else first)
    for array in (*classifier.coefs_, *classifier.intercepts_):
        assert type(array) is type(wanted)
        assert array.dtype == wanted.dtype
        assert array_api_compat.device(array) == array_api_compat.device(wanted)
    assert classifier.predict_proba(places[1]).dtype == places[1].dtype
    assert len(classifier.loss_curve_) == (6 if method == "fit" else 2)


def test_a_network_that_becomes_exact_predicts_exactly(backend: Backend) -> None:
    bits = []
    for table in (X.astype(np.float32), backend.asarray(X, "float32")):
        classifier = MLPClassifier(**FEW).fit(X.astype(np.float32), Y).set_params(arithmetic="exact")
        predicted = classifier.move_to(table).predict_proba(table)
        bits.append(to_host(predicted))
    np.testing.assert_array_equal(*bits)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(
    ("change", "y", "text"),
    [
        ({"hidden_layer_sizes": (7,)}, X[:, :2], r"has the layers \(4, 5, 2\).*hidden_layer_sizes=\(7,\).*\(4, 7, 2\)"),
        ({"hidden_layer_sizes": (5, 5)}, X[:, :2], r"\(4, 5, 2\).*\(4, 5, 5, 2\); give what it was fitted with"),
        ({}, X[:, 0], r"\(4, 5, 2\), features and outputs included.*\(4, 5, 1\).*fit with warm_start=False"),
        ({"loss": "poisson"}, X[:, :2], "predicts by 'identity', but the loss or the classes ask for 'exp'; give"),
    ],
)
def test_another_network_than_the_fitted_one_is_refused(
    backend: Backend, method: str, change: dict[str, Any], y: NDArray[Any], text: str
) -> None:
    place = backend.asarray(X, "float64")
    regressor = MLPRegressor(**FEW, warm_start=True).fit(place, X[:, :2]).set_params(**change)
    before = dict(regressor.__dict__)
    with pytest.raises(ValueError, match=text):
        getattr(regressor, method)(place, y)
    assert regressor.__dict__ == before
    assert getattr(regressor.set_params(warm_start=False), "fit")(place, y).n_iter_ == 3  # noqa: B009 - the remedy


def raising(_: Any) -> None:
    raise RuntimeError("a callback's own")


WRONG: dict[str, tuple[dict[str, Any], Any, Any, dict[str, Any]]] = {
    "features": ({}, X[:, :3], Y, {}),
    "type": ({}, X + 1j, Y, {}),
    "values": ({}, np.where(X > 5, np.nan, X), Y, {}),
    "length": ({}, X[:9], Y, {}),
    "labels": ({}, X, X[:, 0], {}),
    "other labels": ({}, X, Y + 1, {}),
    "weights": ({}, X, Y, {"sample_weight": -np.ones(150)}),
    "class weights": ({"class_weight": {7: 1.0}}, X, Y == 1, {}),
    "setting": ({"alpha": -1.0}, X, Y, {}),
    "combination": ({"solver": "lbfgs", "dropout": 0.5}, X, Y, {}),
    "layers": ({"hidden_layer_sizes": (9,)}, X, Y, {}),
    "validation rows": ({"early_stopping": True, "validation_fraction": 0.001}, X, Y, {}),
}
WRONG_IF_FITTED = ("features", "other labels", "layers")


@pytest.mark.parametrize(
    ("case", "fitted"), [(case, was) for case in WRONG for was in (False, True) if was or case not in WRONG_IF_FITTED]
)
def test_a_refused_fit_changes_nothing(backend: Backend, case: str, fitted: bool) -> None:
    settings, table, y, more = WRONG[case]
    classifier = MLPClassifier(**FEW)
    if fitted:
        classifier.set_params(warm_start=True).fit(backend.asarray(X, "float64"), Y)
    classifier.set_params(**settings)
    before = dict(classifier.__dict__)
    wrong = backend.asarray(table, "complex128" if case == "type" else "float64")
    with pytest.raises(ValueError):  # noqa: PT011 - which, test_estimator_errors.py says
        classifier.fit(wrong, y, **more)
    assert classifier.__dict__.keys() == before.keys()
    assert all(classifier.__dict__[name] is before[name] for name in before)


def test_a_refused_fit_takes_nothing_from_a_random_state() -> None:
    given, same = np.random.RandomState(0), np.random.RandomState(0)
    with pytest.raises(ValueError, match="validation set is too small"):
        MLPClassifier(random_state=given, early_stopping=True, validation_fraction=0.001).fit(X, Y)
    assert given.randint(2**31) == same.randint(2**31)


@pytest.mark.parametrize(
    ("settings", "y", "classes", "text"),
    [
        ({"alpha": -1.0}, Y, None, "The 'alpha' parameter"),  # before the classes, as scikit-learn does
        ({"early_stopping": True}, Y, [0, 1, 2], "partial_fit does not support early_stopping"),
        ({}, Y, [0, 1], "`y` has classes not in"),
        ({}, X[:, 0], [0, 1, 2], "Unknown label type|has classes not in"),
    ],
)
def test_a_refused_partial_fit_leaves_an_estimator_that_is_not_fitted(
    backend: Backend, settings: dict[str, Any], y: Any, classes: Any, text: str
) -> None:
    place = backend.asarray(X, "float32")
    classifier = MLPClassifier(**FEW, **settings)
    before = dict(classifier.__dict__)
    with pytest.raises(ValueError, match=text):
        classifier.partial_fit(place, y, classes=classes)
    assert classifier.__dict__ == before
    classifier.set_params(alpha=0.1, early_stopping=False).partial_fit(place, Y, classes=[0, 1, 2])
    fresh = MLPClassifier(**FEW, alpha=0.1).partial_fit(place, Y, classes=[0, 1, 2])
    assert classifier.loss_curve_ == fresh.loss_curve_


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_a_callback_that_raises_loses_no_epoch(backend: Backend, solver: str) -> None:
    place = backend.asarray(X, "float64")
    settings: dict[str, Any] = {**FEW, "solver": solver, "learning_rate": "invscaling"}
    interrupted, whole = (MLPClassifier(**settings).partial_fit(place, Y, classes=[0, 1, 2]) for _ in range(2))
    with pytest.raises(RuntimeError, match="a callback's own"):
        interrupted.set_params(callbacks=[raising]).partial_fit(place, Y)
    whole.partial_fit(place, Y)
    interrupted.set_params(callbacks=None)
    assert interrupted.partial_fit(place, Y).loss_curve_ == whole.partial_fit(place, Y).loss_curve_
    for actual, expected in zip(hosts(interrupted, backend), hosts(whole, backend), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(("fitted", "later"), [("squared_error", "poisson"), ("poisson", "squared_error")])
def test_predictions_are_those_of_the_fitted_loss(backend: Backend, fitted: str, later: str) -> None:
    place = backend.asarray(X, "float64")
    regressor = MLPRegressor(**FEW, loss=fitted).fit(place, X[:, 0])
    before = backend.to_host(regressor.predict(place)).copy()
    np.testing.assert_array_equal(backend.to_host(regressor.set_params(loss=later).predict(place)), before)


def test_the_best_of_all_calls_is_kept_with_early_stopping(backend: Backend) -> None:
    table, y = scale(X), Y == 0  # which is easy
    settings: dict[str, Any] = {**FEW, "early_stopping": True, "max_iter": 25, "learning_rate_init": 0.1}
    place = backend.asarray(table, "float64")
    classifier = MLPClassifier(**settings).fit(place, y)
    assert classifier.best_validation_score_ == 1.0
    before = hosts(classifier, backend)
    fit_on(classifier, place, y)  # nothing is better than 1
    for actual, expected in zip(hosts(classifier, backend), before, strict=True):
        np.testing.assert_array_equal(actual, expected)
    # Scikit-learn's goes on with the very arrays that it keeps, and so has those of the last epoch.
    there = fit_on(theirs.MLPClassifier(**settings), table, y)
    assert there.best_validation_score_ == 1.0
    kept = there.coefs_[0].copy()
    assert (fit_on(there, table, y).coefs_[0] != kept).any()
