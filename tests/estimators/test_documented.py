"""What scikit-learn documents of parameters and attributes, sentence by sentence, where the curves do not show it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning

from documentation import documents
from mlp_xp.backend import Backend
from mlp_xp.neural_network import MLPClassifier, MLPRegressor

X, Y = load_iris(return_X_y=True)
FEW: dict[str, Any] = {"hidden_layer_sizes": (5,), "max_iter": 4, "random_state": 0}


@pytest.fixture(autouse=True)
def _few_iterations_do_not_converge() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


@documents(
    hidden_layer_sizes="The ith element",
    coefs_="The ith element",
    intercepts_="The ith element",
    n_layers_="Number of layers",
)
def test_hidden_layer_sizes_is_the_number_of_units_of_each_hidden_layer(backend: Backend) -> None:
    classifier = MLPClassifier(**{**FEW, "hidden_layer_sizes": [7, 3]}).fit(backend.asarray(X, "float32"), Y)
    assert [array.shape for array in classifier.coefs_] == [(4, 7), (7, 3), (3, 3)]
    assert [array.shape for array in classifier.intercepts_] == [(7,), (3,), (3,)]
    assert classifier.n_layers_ == 4
    assert len(MLPClassifier(**{**FEW, "hidden_layer_sizes": 6}).fit(X, Y).intercepts_[0]) == 6


@documents(activation=("Activation function", "- 'identity'", "- 'logistic'", "- 'tanh'", "- 'relu'"))
@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("identity", lambda z: z),
        ("logistic", lambda z: 1 / (1 + np.exp(-z))),
        ("tanh", np.tanh),
        ("relu", lambda z: np.maximum(z, 0)),
    ],
)
def test_activation_is_that_function(backend: Backend, activation: str, function: Any) -> None:
    regressor = MLPRegressor(**FEW, activation=activation).fit(backend.asarray(X, "float64"), X[:, :2])
    weights, biases = ([backend.to_host(a) for a in arrays] for arrays in (regressor.coefs_, regressor.intercepts_))
    expected = function(X @ weights[0] + biases[0]) @ weights[1] + biases[1]
    np.testing.assert_allclose(backend.to_host(regressor.predict(backend.asarray(X, "float64"))), expected, rtol=1e-10)


@documents(alpha=("Strength of", "The L2 regularization term is divided"))
def test_alpha_times_half_the_squared_weights_over_the_rows_is_in_the_loss(backend: Backend) -> None:
    place = backend.asarray(X, "float64")
    one_step = {**FEW, "max_iter": 1, "batch_size": 150, "shuffle": False}
    plain, penalised = (MLPClassifier(**one_step, alpha=alpha).fit(place, Y) for alpha in (0.0, 3.0))
    start = MLPClassifier(**one_step, solver="sgd", learning_rate_init=1e-300, alpha=0.0).fit(place, Y)
    squares = sum(float(np.sum(backend.to_host(array) ** 2)) for array in start.coefs_)
    assert penalised.loss_ - plain.loss_ == pytest.approx(0.5 * 3.0 * squares / 150, rel=1e-9)


@documents(batch_size='When set to "auto"')
@pytest.mark.parametrize(("n", "expected"), [(150, 150), (450, 200)])
def test_batch_size_auto_is_at_most_200(n: int, expected: int) -> None:
    table, y = np.tile(X, (3, 1))[:n], np.tile(Y, 3)[:n]
    curves = [MLPClassifier(**FEW, batch_size=size).fit(table, y).loss_curve_ for size in ("auto", expected)]
    assert curves[0] == curves[1]


@documents(max_iter="Maximum number", max_fun="Maximum number")
def test_lbfgs_uses_no_batches_and_max_iter_and_max_fun_bound_it(backend: Backend) -> None:
    place = backend.asarray(X, "float64")
    settings = {**FEW, "solver": "lbfgs"}
    losses = [MLPClassifier(**settings, batch_size=size).fit(place, Y).loss_ for size in (10, 150)]
    assert losses[0] == losses[1]
    assert MLPClassifier(**settings).fit(place, Y).n_iter_ == 4
    assert MLPClassifier(**{**settings, "max_iter": 500}, max_fun=3).fit(place, Y).n_iter_ <= 3
    assert MLPClassifier(**{**settings, "max_iter": 500}, tol=10.0).fit(place, Y).n_iter_ == 0


def test_training_that_does_not_end_by_itself_warns() -> None:
    for settings in (FEW, {**FEW, "solver": "lbfgs"}):
        with pytest.warns(ConvergenceWarning):
            MLPClassifier(**settings).fit(X, Y)


def test_tol_and_n_iter_no_change_end_the_training(backend: Backend) -> None:
    place = backend.asarray(X, "float64")
    settings = {**FEW, "max_iter": 50, "tol": 100.0}  # nothing is better by so much, but for the first
    assert MLPClassifier(**settings, n_iter_no_change=3).fit(place, Y).n_iter_ == 5
    assert MLPClassifier(**{**settings, "max_iter": 12}, n_iter_no_change=np.inf).fit(place, Y).n_iter_ == 12


@pytest.mark.parametrize("learning_rate", ["invscaling", "adaptive"])
def test_learning_rates_fall_only_with_sgd(backend: Backend, learning_rate: str) -> None:
    place = backend.asarray(X, "float64")
    settings = {**FEW, "learning_rate": learning_rate, "tol": 100.0, "n_iter_no_change": 1, "learning_rate_init": 0.1}
    sgd = MLPClassifier(**settings, solver="sgd").fit(place, Y)
    rate = float(sgd._progress.optimizer_state.learning_rate)
    assert rate == pytest.approx(0.1 / 451**0.5 if learning_rate == "invscaling" else 0.1 / 5)
    adam = MLPClassifier(**settings).fit(place, Y)
    assert float(adam._progress.optimizer_state.learning_rate) == pytest.approx(0.1)


def test_an_adaptive_rate_that_became_too_small_ends_the_training(capsys: pytest.CaptureFixture[str]) -> None:
    settings = {**FEW, "max_iter": 100, "tol": 100.0, "n_iter_no_change": 1, "verbose": True}
    MLPClassifier(**settings, solver="sgd", learning_rate="adaptive", learning_rate_init=1e-5).fit(X, Y)
    printed = capsys.readouterr().out
    assert printed.count("Setting learning rate to") == 2
    assert printed.rstrip().endswith("Learning rate too small. Stopping.")


@documents(verbose="Whether to print")
def test_verbose_prints_a_line_per_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    classifier = MLPClassifier(**FEW, early_stopping=True).fit(X, Y)
    assert capsys.readouterr().out == ""
    MLPClassifier(**FEW, early_stopping=True, verbose=True).fit(X, Y)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"Iteration 1, loss = {classifier.loss_curve_[0]:.8f}"
    assert printed[1] == f"Validation score: {classifier.validation_scores_[0]:f}"
    assert len(printed) == 8


def test_verbose_prints_a_line_per_iteration_of_lbfgs(capsys: pytest.CaptureFixture[str]) -> None:
    curve = MLPClassifier(**FEW, solver="lbfgs").fit(X, Y).loss_curve_
    assert capsys.readouterr().out == ""
    MLPClassifier(**FEW, solver="lbfgs", verbose=True).fit(X, Y)
    expected = [f"Iteration {i}, loss = {loss:.8f}" for i, loss in enumerate(curve, start=1)]
    assert capsys.readouterr().out.splitlines() == expected


@documents(random_state="Pass an int")
def test_random_state_makes_calls_repeatable(backend: Backend) -> None:
    place = backend.asarray(X, "float32")
    curves = [MLPClassifier(**{**FEW, "random_state": seed}).fit(place, Y).loss_curve_ for seed in (0, 0, 1)]
    assert curves[0] == curves[1] != curves[2]
    state = np.random.RandomState(0)
    one, other = (MLPClassifier(**{**FEW, "random_state": state}).fit(place, Y).loss_curve_ for _ in range(2))
    assert curves[0] == one != other


@documents(warm_start="When set to True")
def test_warm_start_goes_on_where_the_last_fit_ended(backend: Backend) -> None:
    place = backend.asarray(X, "float64")
    classifier = MLPClassifier(**{**FEW, "warm_start": True, "learning_rate_init": 0.01})
    first = classifier.fit(place, Y).loss_
    assert classifier.fit(place, Y).loss_curve_[4] < first
    assert classifier.t_ == 8 * 150
    assert classifier.n_iter_ == 4
    assert len(classifier.loss_curve_) == 8
    assert len(clone_without_warm_start(classifier).fit(place, Y).fit(place, Y).loss_curve_) == 4


def clone_without_warm_start(classifier: MLPClassifier) -> MLPClassifier:
    return MLPClassifier(**{**classifier.get_params(), "warm_start": False})


@documents(momentum="Should be between", nesterovs_momentum="Only used")
def test_momentum_is_between_0_and_1_and_nesterovs_only_with_momentum(backend: Backend) -> None:
    place = backend.asarray(X, "float64")
    settings = {**FEW, "solver": "sgd", "learning_rate_init": 0.01}
    curves = [
        MLPClassifier(**settings, momentum=momentum, nesterovs_momentum=nesterov).fit(place, Y).loss_curve_
        for momentum, nesterov in ((0.0, True), (0.0, False), (0.9, True), (0.9, False), (1.0, True))
    ]
    assert curves[0] == curves[1]
    assert len({tuple(curve) for curve in curves}) == 4


@documents(
    validation_fraction="The proportion",
    best_loss_="If `early_stopping=True`",
    validation_scores_="Only available",
    best_validation_score_="Only available",
)
def test_early_stopping_sets_attributes_and_no_early_stopping_has_none() -> None:
    plain, early = MLPClassifier(**FEW).fit(X, Y), MLPClassifier(**FEW, early_stopping=True).fit(X, Y)
    assert plain.validation_scores_ is None
    assert plain.best_validation_score_ is None
    assert plain.best_loss_ == min(plain.loss_curve_)
    assert early.best_loss_ is None
    assert early.best_validation_score_ == max(early.validation_scores_)
    assert early.t_ == 4 * 135  # a tenth is set aside
    assert MLPClassifier(**FEW, early_stopping=True, validation_fraction=0.4).fit(X, Y).t_ == 4 * 90


@documents(n_outputs_="Number of outputs", out_activation_="Name of")
def test_out_activation_fits_the_targets() -> None:
    table = np.stack([Y == 0, Y > 0, Y > 1], axis=1).astype(int)
    for y, n_outputs, expected in ((Y, 3, "softmax"), (Y == 1, 1, "logistic"), (table, 3, "logistic")):
        classifier = MLPClassifier(**FEW).fit(X, y)
        assert (classifier.n_outputs_, classifier.out_activation_) == (n_outputs, expected)
    regressor = MLPRegressor(**FEW).fit(X, X[:, :2])
    assert (regressor.n_outputs_, regressor.out_activation_) == (2, "identity")


def test_probabilities_are_in_the_order_of_classes_and_sum_to_one(backend: Backend) -> None:
    place = backend.asarray(X, "float64")
    y = 7 - Y
    classifier = MLPClassifier(**{**FEW, "max_iter": 300, "learning_rate_init": 0.03}).fit(place, y)
    assert backend.to_host(classifier.classes_).tolist() == [5, 6, 7]
    probabilities = backend.to_host(classifier.predict_proba(place))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-12)
    assert classifier.score(place, y) > 0.9
    np.testing.assert_array_equal(backend.to_host(classifier.predict(place)), probabilities.argmax(axis=1) + 5)
    np.testing.assert_allclose(backend.to_host(classifier.predict_log_proba(place)), np.log(probabilities), rtol=1e-9)
    of_two = backend.to_host(MLPClassifier(**FEW).fit(place, Y == 1).predict_proba(place))
    assert of_two.shape == (150, 2)
    np.testing.assert_allclose(of_two.sum(axis=1), 1.0, rtol=1e-12)


def test_score_is_accuracy_or_r2(backend: Backend) -> None:
    table, y = load_diabetes(return_X_y=True)
    place = backend.asarray(table, "float64")
    regressor = MLPRegressor(**{**FEW, "learning_rate_init": 0.1}).fit(place, y)
    predicted = backend.to_host(regressor.predict(place))
    assert regressor.score(place, y) == pytest.approx(1 - np.sum((y - predicted) ** 2) / np.sum((y - y.mean()) ** 2))
    weights = np.linspace(0, 1, 150)
    classifier = MLPClassifier(**FEW).fit(backend.asarray(X, "float64"), Y)
    right = backend.to_host(classifier.predict(backend.asarray(X, "float64"))) == Y
    assert classifier.score(backend.asarray(X, "float64"), Y, weights) == pytest.approx(
        np.average(right, weights=weights)
    )


@documents(partial_fit=("Update the model", "Note that y"))
def test_partial_fit_is_one_epoch_and_may_lack_classes(backend: Backend) -> None:
    place = backend.asarray(X, "float64")
    classifier = MLPClassifier(**FEW)
    classifier.partial_fit(place[:50, :], Y[:50], classes=[0, 1, 2]).partial_fit(place[50:, :], Y[50:])
    assert (classifier.n_iter_, classifier.t_, len(classifier.loss_curve_)) == (1, 150, 2)
    assert backend.to_host(classifier.classes_).tolist() == [0, 1, 2]
    regressor = MLPRegressor(**FEW).partial_fit(place, X[:, 0]).partial_fit(place, X[:, 0])
    assert regressor.loss_curve_[1] < regressor.loss_curve_[0]


@documents(
    t_=("The number of training samples", "Mathematically equals"),
    n_iter_="The number of iterations",
    loss_curve_=("The ith element", "Loss value evaluated"),
)
def test_t_is_iterations_times_rows() -> None:
    for solver in ("sgd", "adam", "lbfgs"):
        classifier = MLPClassifier(**FEW, solver=solver).fit(X, Y)
        assert classifier.t_ == classifier.n_iter_ * 150
        assert len(classifier.loss_curve_) == classifier.n_iter_
        assert classifier.loss_curve_[-1] == classifier.loss_
