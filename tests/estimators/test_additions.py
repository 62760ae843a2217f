"""What scikit-learn's users asked for and did not get."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris, make_classification
from sklearn.model_selection import train_test_split
from sklearn.utils.class_weight import compute_sample_weight

from documentation import documents
from mlp_xp.activations import ACTIVATIONS
from mlp_xp.backend import Backend
from mlp_xp.neural_network import MLPClassifier, MLPRegressor

X, Y = load_iris(return_X_y=True)
FEW: dict[str, Any] = {"hidden_layer_sizes": (6,), "max_iter": 5, "batch_size": 40, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("activation", sorted({*ACTIVATIONS, "logistic"}))
def test_every_activation_learns(backend: Backend, activation: str) -> None:
    settings = {**FEW, "activation": activation, "learning_rate_init": 0.05, "max_iter": 20}
    classifier = MLPClassifier(**settings).fit(backend.asarray(X, "float32"), Y)
    assert classifier.loss_ < 0.7 * classifier.loss_curve_[0]


@pytest.mark.parametrize("weights", ["balanced", {0: 1.0, 1: 5.0, 2: 0.5}])
def test_class_weights_are_weights_of_rows(backend: Backend, weights: Any) -> None:
    rows = np.arange(0, 120)  # of the last class, fewer
    place, y = backend.asarray(X[rows], "float64"), Y[rows]
    given = MLPClassifier(**FEW, class_weight=weights).fit(place, y, sample_weight=np.full(len(y), 2.0))
    by_hand = MLPClassifier(**FEW).fit(place, y, sample_weight=2.0 * compute_sample_weight(weights, y))
    assert given.loss_curve_ == by_hand.loss_curve_
    assert given.loss_curve_ != MLPClassifier(**FEW).fit(place, y).loss_curve_


@pytest.mark.parametrize("weights", ["balanced", [{0: 1.0, 1: 5.0}, {1: 0.5}]])
def test_class_weights_of_labels_are_multiplied(backend: Backend, weights: Any) -> None:
    place, table = backend.asarray(X, "float64"), np.stack([Y == 0, X[:, 1] > 3.5], axis=1).astype(int)
    given = MLPClassifier(**FEW, class_weight=weights).fit(place, table, sample_weight=np.full(150, 2.0))
    factors = (1 + 4 * table[:, 0]) * (1 - 0.5 * table[:, 1])  # of the dicts
    if weights == "balanced":
        share = table.mean(axis=0)
        factors = np.prod(np.where(table == 1, 0.5 / share, 0.5 / (1 - share)), axis=1)
    by_hand = MLPClassifier(**FEW).fit(place, table, sample_weight=2.0 * factors)
    assert given.loss_curve_ == pytest.approx(by_hand.loss_curve_, rel=2.0**10 * np.finfo(np.float64).eps)
    assert given.loss_curve_ != pytest.approx(MLPClassifier(**FEW).fit(place, table).loss_curve_, rel=1e-3)


@pytest.mark.parametrize(
    ("y", "weights", "expected"),
    [(Y, {0: 2.0, 2: 3.0}, 2.0), (np.stack([Y == 0, Y > 0], axis=1).astype(int), [{1: 2.0}, {1: 3.0}], 2.0)],
)
def test_a_batch_may_lack_classes_that_have_weights(y: Any, weights: Any, expected: float) -> None:
    classes = {"classes": np.arange(3 if y.ndim == 1 else 2)}
    given = MLPClassifier(**FEW, class_weight=weights).partial_fit(X[:50], y[:50], **classes)
    by_hand = MLPClassifier(**FEW).partial_fit(X[:50], y[:50], sample_weight=np.full(50, expected), **classes)
    assert given.loss_curve_ == by_hand.loss_curve_
    assert given.loss_curve_ != MLPClassifier(**FEW).partial_fit(X[:50], y[:50], **classes).loss_curve_


def test_balanced_classes_find_the_rare_one() -> None:
    table, y = make_classification(1000, weights=[0.95], class_sep=0.5, random_state=0)
    found = []
    for weights in (None, "balanced"):
        classifier = MLPClassifier(**{**FEW, "max_iter": 30}, class_weight=weights).fit(table, y)
        found.append(np.mean(classifier.predict(table)[y == 1]))
    assert found[0] < 0.5 < found[1]


@documents(validation_scores_=("The score at each iteration", "The score reported is the accuracy"))
@pytest.mark.parametrize("weights", [None, np.linspace(0.5, 1.5, 150)])
def test_validation_losses_and_scores_are_those_of_the_validation_rows(backend: Backend, weights: Any) -> None:
    seen: list[Any] = []
    X_there = backend.asarray(X, "float64")
    note = [lambda estimator: seen.append(estimator.predict_proba(X_there))]
    classifier = MLPClassifier(**FEW, learning_rate_init=0.02, early_stopping=True, callbacks=note)
    classifier.fit(X_there, Y, sample_weight=weights)
    assert any(0 < score < 1 for score in classifier.validation_scores_)
    assert len(classifier.validation_loss_curve_) == len(classifier.validation_scores_) == classifier.n_iter_
    state = np.random.RandomState(0)
    for n_in, n_out in ((4, 6), (6, 3)):  # the initial parameters are drawn first
        state.uniform(size=(n_in, n_out))
        state.uniform(size=n_out)
    _, rows = train_test_split(np.arange(150), test_size=0.1, random_state=state)
    for loss, score, probabilities in zip(
        classifier.validation_loss_curve_, classifier.validation_scores_, seen, strict=True
    ):
        of_rows = backend.to_host(probabilities)[rows]
        shares = None if weights is None else weights[rows]
        logs = np.log(of_rows[np.arange(15), Y[rows]])
        assert loss == pytest.approx(-np.average(logs, weights=shares), rel=1e-12)
        assert score == pytest.approx(np.average(np.argmax(of_rows, axis=1) == Y[rows], weights=shares), rel=1e-12)


def test_the_best_epochs_parameters_are_kept(backend: Backend) -> None:
    kept: list[Any] = []
    classifier = MLPClassifier(
        **{**FEW, "max_iter": 30, "learning_rate_init": 0.1},
        early_stopping=True,
        callbacks=[lambda estimator: kept.append(estimator.coefs_)],
    ).fit(backend.asarray(X, "float32"), Y)
    best = int(np.argmax(classifier.validation_scores_))
    assert best < len(kept) - 1
    for actual, expected in zip(classifier.coefs_, kept[best], strict=True):
        np.testing.assert_array_equal(backend.to_host(actual), backend.to_host(expected))


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_callbacks_see_every_epoch_and_can_stop(backend: Backend, solver: str) -> None:
    seen: list[tuple[int, float]] = []

    def stop_after_three(estimator: MLPClassifier) -> bool:
        assert estimator.score(X_there, Y) >= 0.0  # what is fitted so far can be used
        seen.append((estimator.n_iter_, estimator.loss_curve_[-1]))
        return estimator.n_iter_ == 3

    X_there = backend.asarray(X, "float32")
    classifier = MLPClassifier(**FEW, solver=solver, callbacks=[stop_after_three]).fit(X_there, Y)
    assert seen == list(enumerate(classifier.loss_curve_, start=1))
    assert classifier.n_iter_ == 3


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_every_callback_is_called_though_another_stops(solver: str) -> None:
    seen: list[str] = []

    def stop(_: MLPClassifier) -> bool:
        seen.append("first")
        return True

    MLPClassifier(**FEW, solver=solver, callbacks=[stop, lambda _: seen.append("second")]).fit(X, Y)
    assert seen == ["first", "second"]


def test_the_random_state_decides_which_units_are_dropped() -> None:
    settings: dict[str, Any] = {**FEW, "dropout": 0.5, "shuffle": False, "max_iter": 1, "warm_start": True}
    curves = []
    for seed in (0, 0, 1):
        classifier = MLPClassifier(**{**settings, "dropout": 0.0, "random_state": 0}).fit(X, Y)  # the same parameters
        curves.append(classifier.set_params(dropout=0.5, random_state=seed).fit(X, Y).loss_curve_)
    assert curves[0] == curves[1] != curves[2]


def test_dropout_is_the_same_everywhere_and_only_in_training(backend: Backend) -> None:
    settings = {**FEW, "dropout": 0.3}
    X_there = backend.asarray(X, "float64")
    classifier = MLPClassifier(**settings).fit(X_there, Y)
    assert classifier.loss_curve_ == pytest.approx(MLPClassifier(**settings).fit(X, Y).loss_curve_, rel=1e-10)
    assert classifier.loss_curve_ != MLPClassifier(**FEW).fit(X_there, Y).loss_curve_
    assert classifier.loss_curve_ != MLPClassifier(**{**settings, "random_state": 1}).fit(X_there, Y).loss_curve_
    once, again = (backend.to_host(classifier.predict_proba(X_there)) for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_no_epoch_of_partial_fit_drops_the_same_units(backend: Backend) -> None:
    X_there = backend.asarray(X, "float64")
    settings = {**FEW, "dropout": 0.5, "shuffle": False, "solver": "sgd", "learning_rate_init": 1e-30}
    classifier = MLPClassifier(**settings)
    for _ in range(3):
        classifier.partial_fit(X_there, Y, classes=[0, 1, 2])
    assert len(set(classifier.loss_curve_)) == 3  # the parameters stayed, to the last bit: only masks differ


def test_gradients_are_clipped(backend: Backend) -> None:
    X_there = backend.asarray(100.0 * X, "float64")
    settings = {**FEW, "solver": "sgd", "momentum": 0.0, "learning_rate_init": 1.0, "alpha": 0.0, "batch_size": 150}
    paths = []
    classifier = MLPClassifier(**{**settings, "max_iter": 1}, max_gradient_norm=0.01, warm_start=True)
    for _ in range(3):
        classifier.fit(X_there, Y)
        paths.append([backend.to_host(array) for array in (*classifier.coefs_, *classifier.intercepts_)])
    for before, after in pairwise(paths):
        moved = np.sqrt(sum(np.sum((b - a) ** 2) for a, b in zip(before, after, strict=True)))
        assert moved == pytest.approx(0.01, rel=1e-9)


@pytest.mark.parametrize(("name", "value"), [("dropout", 0.5), ("max_gradient_norm", 1.0), ("arithmetic", "exact")])
def test_what_lbfgs_cannot_do_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{name}={value!r} needs solver='sgd' or 'adam'"):
        MLPRegressor(solver="lbfgs", **{name: value}).fit(X, Y)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("name", ["dropout", "max_gradient_norm"])
def test_numbers_of_numpys_own_do_not_change_the_type(backend: Backend, name: str) -> None:
    place = backend.asarray(X, "float32")
    settings: dict[str, Any] = {"hidden_layer_sizes": (5,), "max_iter": 3, "random_state": 0}
    plain, of_numpy = (MLPClassifier(**settings | {name: kind(0.25)}).fit(place, Y) for kind in (float, np.float64))
    assert of_numpy.coefs_[0].dtype == place.dtype
    assert of_numpy.loss_curve_ == plain.loss_curve_


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_what_a_callback_of_lbfgs_keeps_stays() -> None:
    kept: list[Any] = []
    classifier = MLPClassifier(
        (5,), solver="lbfgs", max_iter=5, random_state=0, callbacks=[lambda e: kept.append(e.coefs_[0])]
    )
    classifier.fit(X, Y)
    assert len(kept) == 5
    assert all((one != other).any() for one, other in pairwise(kept))


@pytest.mark.filterwarnings("ignore:A column-vector y")
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_partial_fit_knows_classes_that_are_yet_to_come(shape: tuple[int, ...]) -> None:
    def learn(y: Any) -> MLPClassifier:
        classifier = MLPClassifier((5,), random_state=0)
        for rows in (slice(0, 100), slice(100, 150)):
            classifier.partial_fit(X[rows], y[rows], classes=[0, 1, 2])
        return classifier

    shaped = learn(Y.reshape(shape))
    np.testing.assert_array_equal(shaped.classes_, [0, 1, 2])
    assert shaped.loss_curve_ == learn(Y).loss_curve_
