"""What scikit-learn documents of when a training ends, and what it has then found, sentence by sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_iris
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import scale

from documentation import documents
from mlp_xp.backend import Backend
from mlp_xp.neural_network import MLPClassifier, MLPRegressor

IRIS = load_iris()
X: NDArray[np.float64] = scale(IRIS.data)
Y: NDArray[np.int64] = IRIS.target
LABELS = np.stack([Y == 0, X[:, 0] > 0], axis=1).astype(int)
FEW: dict[str, Any] = {"hidden_layer_sizes": (5,), "max_iter": 4, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@documents(
    tol=("Tolerance for", "When the loss or score"),
    n_iter_no_change="Maximum number of epochs",
    early_stopping=("Whether to use", "If set to True", "If early stopping is False"),
    max_iter="The solver iterates until",
    best_loss_="The minimum loss",
    best_validation_score_="The best validation score",
)
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_training_ends_when_enough_epochs_have_missed_the_tolerance(
    backend: Backend, kind: Any, early_stopping: bool
) -> None:
    tol, n_iter_no_change = 0.01, 3
    settings = {**FEW, "max_iter": 500, "learning_rate_init": 0.02, "tol": tol, "n_iter_no_change": n_iter_no_change}
    estimator = kind(**settings, early_stopping=early_stopping).fit(backend.asarray(X, "float64"), Y)
    curve = np.asarray(estimator.validation_scores_ if early_stopping else estimator.loss_curve_)
    gains = curve if early_stopping else -curve
    best, missed, ends = -np.inf, 0, []
    for epoch, gain in enumerate(gains.tolist(), start=1):
        missed = 0 if gain >= best + tol else missed + 1
        best = max(best, gain)
        ends += [epoch] if missed > n_iter_no_change else []
    assert ends == [estimator.n_iter_]
    assert estimator.n_iter_ < 500
    assert best == (estimator.best_validation_score_ if early_stopping else -estimator.best_loss_)


@pytest.mark.parametrize(("early_stopping", "what"), [(False, "Training loss"), (True, "Validation score")])
def test_verbose_says_what_did_not_improve(early_stopping: bool, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {**FEW, "max_iter": 9, "tol": 100.0, "n_iter_no_change": 2, "verbose": True}
    MLPClassifier(**settings, early_stopping=early_stopping).fit(X, Y)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"{what} did not improve more than tol=100.000000 for 2 consecutive epochs. Stopping."


def test_a_new_fit_forgets_the_training_before_it() -> None:
    settings = {**FEW, "max_iter": 9, "tol": 100.0, "n_iter_no_change": 2}
    again, new = MLPClassifier(**settings).fit(X, Y), MLPClassifier(**settings)
    for classifier in (again, new):
        classifier.set_params(solver="lbfgs").fit(X, Y)
        classifier.set_params(solver="adam").partial_fit(X, Y).partial_fit(X, Y)  # Adam's means begin at 0
    assert again.loss_curve_ == new.loss_curve_
    np.testing.assert_array_equal(again.coefs_[0], new.coefs_[0])
    curves = [again.fit(X, Y).loss_curve_ for _ in range(2)]
    assert [len(curve) for curve in curves] == [4, 4]
    assert curves[0] == curves[1]


@documents(tol="When the loss or score", learning_rate="Each time two consecutive epochs")
def test_training_does_not_end_so_while_an_adaptive_rate_can_fall(backend: Backend) -> None:
    settings = {**FEW, "solver": "sgd", "max_iter": 15, "tol": 100.0, "n_iter_no_change": 2}
    ended = [
        MLPClassifier(**settings, learning_rate=rate).fit(backend.asarray(X, "float64"), Y).n_iter_
        for rate in ("constant", "invscaling", "adaptive")
    ]
    assert ended == [4, 4, 15]


@documents(
    early_stopping=("If set to True", "The split is stratified"),
    validation_fraction="The proportion",
    random_state="Determines random number generation",
)
@pytest.mark.parametrize(
    ("kind", "y", "is_stratified"),
    [
        (MLPClassifier, Y == 0, True),
        (MLPClassifier, Y, False),
        (MLPClassifier, LABELS, False),
        (MLPRegressor, (Y == 0).astype(float), False),
    ],
)
def test_the_validation_rows_are_a_part_that_is_stratified_for_two_classes(
    kind: Any, y: NDArray[Any], is_stratified: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Scikit-learn documents it for more classes, too, but its code does not: here are the rows that it takes.
    parts, asked = [], []

    def note(rows: NDArray[Any], **how: Any) -> Any:
        parts.append(train_test_split(rows, **how))
        asked.append(how["stratify"] is not None)
        return parts[-1]

    monkeypatch.setattr("mlp_xp.estimators.stochastic.train_test_split", note)
    for seed in (0, 0, 1):
        kind(**{**FEW, "random_state": seed}, early_stopping=True, validation_fraction=0.3).fit(X, y)
    assert asked == [is_stratified] * 3
    (train, test), again, other = parts
    assert sorted([*train, *test]) == list(range(150))
    assert len(test) == 45
    assert np.array_equal(test, again[1])
    assert not np.array_equal(test, other[1])
    if is_stratified:
        assert np.bincount(y[test]).tolist() == (0.3 * np.bincount(y)).tolist()


@documents(
    validation_scores_=("The score at each iteration", "The score reported is the R2", "Only available if"),
    best_validation_score_=("The best validation score", "Only available if"),
    best_loss_=("If `early_stopping=True`", "Refer to"),
)
def test_the_validation_scores_of_a_regressor_are_r2_of_the_held_out_rows(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, seen, rows = backend.asarray(X, "float64"), [], []

    def hold_out(everything: NDArray[Any], **how: Any) -> Any:
        parts = train_test_split(everything, **how)
        rows.extend(parts[1])
        return parts

    monkeypatch.setattr("mlp_xp.estimators.stochastic.train_test_split", hold_out)
    note = [lambda estimator: seen.append(backend.to_host(estimator.predict(place)))]
    regressor = MLPRegressor(**FEW, early_stopping=True, callbacks=note).fit(place, Y)
    expected = [r2_score(Y[rows], predicted[rows]) for predicted in seen]
    assert regressor.validation_scores_ == pytest.approx(expected, rel=2.0**10 * np.finfo(np.float64).eps)
    assert len(regressor.validation_scores_) == regressor.n_iter_
    assert regressor.best_validation_score_ == max(regressor.validation_scores_)
    assert regressor.best_loss_ is None
    plain = MLPRegressor(**FEW).fit(place, Y)
    assert plain.validation_scores_ is plain.best_validation_score_ is None


@documents(
    best_loss_=("The minimum loss", "Only accessible when"),
    loss_curve_="Only accessible when",
    validation_scores_="Only accessible when",
    best_validation_score_="Only accessible when",
)
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_lbfgs_has_no_validation_but_here_it_has_losses(backend: Backend, kind: Any) -> None:
    # Scikit-learn's classifier does not say so of its own; its attributes are absent there too.
    place = backend.asarray(X, "float64")
    estimator = kind(**FEW, solver="lbfgs", early_stopping=True).fit(place, Y)
    assert estimator.validation_scores_ is estimator.best_validation_score_ is None
    assert estimator.validation_loss_curve_ is None
    assert estimator.best_loss_ == estimator.loss_ == min(estimator.loss_curve_)
    at_once = kind(**FEW, solver="lbfgs", tol=100.0).fit(place, Y)  # the first gradient is small enough
    assert (at_once.n_iter_, at_once.loss_curve_) == (0, [])
    assert at_once.best_loss_ == at_once.loss_
