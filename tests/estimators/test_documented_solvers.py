"""What scikit-learn documents of the solvers, their steps and their learning rates, sentence by sentence."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, minimize
from scipy.special import xlogy
from sklearn.datasets import load_digits, load_iris
from sklearn.preprocessing import scale
from sklearn.utils import shuffle

from checks import assert_array
from documentation import documents
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend
from mlp_xp.neural_network import MLPClassifier, MLPRegressor

IRIS = load_iris()
X: NDArray[np.float64] = scale(IRIS.data)
Y: NDArray[np.int64] = IRIS.target
NET: dict[str, Any] = {"hidden_layer_sizes": (5,), "activation": "tanh", "random_state": 0}
FULL_BATCH: dict[str, Any] = {**NET, "shuffle": False, "batch_size": 150, "alpha": 0.0}
ULPS = 2.0**10  # over a few steps, whose sums are added in another order
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def parameters(estimator: Any) -> list[Array]:
    return [*estimator.coefs_, *estimator.intercepts_]


def drawn(*sizes: int) -> tuple[list[NDArray[np.float64]], np.random.RandomState]:
    """Return the parameters that a network with tanh units begins with, and the random state after them."""
    state, weights, biases = np.random.RandomState(0), [], []
    for n_in, n_out in pairwise(sizes):
        bound = np.sqrt(6.0 / (n_in + n_out))
        weights.append(state.uniform(-bound, bound, (n_in, n_out)))
        biases.append(state.uniform(-bound, bound, n_out))
    return weights + biases, state


class Gradient:
    """The gradient at any parameters: what a step of plain gradient descent with a rate of 1 subtracts."""

    def __init__(self, place: Array, backend: Backend) -> None:
        self.place, self.backend = place, backend
        settings = {**FULL_BATCH, "solver": "sgd", "momentum": 0.0, "learning_rate_init": 1.0}
        self.classifier = MLPClassifier(**settings).partial_fit(place, Y, classes=[0, 1, 2])

    def __call__(self, at: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        arrays = [self.backend.asarray(array, "float64") for array in at]
        self.classifier.coefs_, self.classifier.intercepts_ = arrays[:2], arrays[2:]
        after = parameters(self.classifier.partial_fit(self.place, Y))
        return [a - self.backend.to_host(b) for a, b in zip(at, after, strict=True)]


@documents(random_state="Determines random number generation")
def test_the_parameters_begin_at_what_the_random_state_draws(backend: Backend) -> None:
    place = backend.asarray(X, "float64")
    classifier = MLPClassifier(**NET, solver="sgd", learning_rate_init=1e-300, max_iter=1).fit(place, Y)
    for actual, expected in zip(parameters(classifier), drawn(4, 5, 3)[0], strict=True):
        assert_array(actual, expected, backend, like=place, ulps=0.0)


@documents(
    solver=("The solver", "- 'sgd'"),
    learning_rate_init=("The initial", "It controls"),
    momentum="Momentum for",
    nesterovs_momentum="Whether to use",
    Notes=("MLPClassifier trains iteratively", "MLPRegressor trains iteratively"),
)
@pytest.mark.parametrize("rate", [0.1, 0.2])
@pytest.mark.parametrize("is_nesterovs", [True, False])
def test_sgd_descends_along_the_gradient_with_momentum(backend: Backend, is_nesterovs: bool, rate: float) -> None:
    place = backend.asarray(X, "float64")
    settings = {**FULL_BATCH, "solver": "sgd", "momentum": 0.5, "nesterovs_momentum": is_nesterovs}
    classifier = MLPClassifier(**settings, learning_rate_init=rate, max_iter=3).fit(place, Y)
    gradient, expected = Gradient(place, backend), drawn(4, 5, 3)[0]
    velocities = [np.zeros_like(array) for array in expected]
    for _ in range(3):
        found = gradient(expected)
        velocities = [0.5 * v - rate * g for v, g in zip(velocities, found, strict=True)]
        moves = [0.5 * v - rate * g if is_nesterovs else v for v, g in zip(velocities, found, strict=True)]
        expected = [array + move for array, move in zip(expected, moves, strict=True)]
    for actual, reference in zip(parameters(classifier), expected, strict=True):
        assert_array(actual, reference, backend, like=place, ulps=ULPS)


@documents(
    solver="- 'adam'",
    beta_1="Exponential decay rate",
    beta_2="Exponential decay rate",
    epsilon="Value for numerical stability",
)
def test_adam_is_kingmas_and_bas(backend: Backend) -> None:
    place = backend.asarray(X, "float64")
    beta_1, beta_2, epsilon, rate = 0.6, 0.9, 0.1, 0.2
    settings: dict[str, Any] = {"beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon, "learning_rate_init": rate}
    classifier = MLPClassifier(**FULL_BATCH, **settings, max_iter=3).fit(place, Y)
    gradient, expected = Gradient(place, backend), drawn(4, 5, 3)[0]
    first, second = ([np.zeros_like(array) for array in expected] for _ in range(2))
    for t in (1, 2, 3):  # in the order of the paper's last paragraph of section 2, with ε̂
        found = gradient(expected)
        first = [beta_1 * m + (1 - beta_1) * g for m, g in zip(first, found, strict=True)]
        second = [beta_2 * v + (1 - beta_2) * g * g for v, g in zip(second, found, strict=True)]
        now = rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        moves = [now * m / (np.sqrt(v) + epsilon) for m, v in zip(first, second, strict=True)]
        expected = [array - move for array, move in zip(expected, moves, strict=True)]
    for actual, reference in zip(parameters(classifier), expected, strict=True):
        assert_array(actual, reference, backend, like=place, ulps=ULPS)


@documents(solver="- 'lbfgs'", MLPRegressor="This model optimizes")
def test_lbfgs_finds_the_least_squares_in_few_iterations(backend: Backend) -> None:
    place, y = backend.asarray(X, "float64"), X[:, 0] * X[:, 1]
    settings: dict[str, Any] = {"hidden_layer_sizes": (), "alpha": 0.0, "random_state": 0, "tol": 1e-9}
    regressor = MLPRegressor(**settings, solver="lbfgs").fit(place, y)
    table = np.hstack([X, np.ones((150, 1))])
    predicted = table @ np.linalg.lstsq(table, y, rcond=None)[0]
    # SciPy also ends where the loss falls by less than 1e7 epsilons of it: predictions are off by the root of that.
    ulps = np.sqrt(1e7 / np.finfo(np.float64).eps)
    assert_array(regressor.predict(place), predicted, backend, like=place, ulps=float(ulps))
    assert regressor.n_iter_ < 30


@documents(solver="For small datasets")
def test_lbfgs_converges_faster_and_performs_better_for_few_rows(backend: Backend) -> None:
    place = backend.asarray(X, "float64")
    adam, lbfgs = (MLPClassifier(**NET, solver=solver).fit(place, Y) for solver in ("adam", "lbfgs"))
    assert lbfgs.n_iter_ < adam.n_iter_
    assert lbfgs.loss_ < adam.loss_
    assert lbfgs.score(place, Y) > adam.score(place, Y)


@documents(solver="Note: The default solver")
def test_the_default_solver_works_pretty_well_for_many_rows() -> None:
    pixels, y = shuffle(*load_digits(return_X_y=True), random_state=0)
    classifier = MLPClassifier(max_iter=30, random_state=0).fit(pixels[:1500], y[:1500])
    assert classifier.solver == "adam"
    assert classifier.score(pixels[1500:], y[1500:]) > 0.95


@documents(
    MLPClassifier="This model optimizes",
    loss=("The loss function", "Note that", "Furthermore"),
    loss_="The current loss",
    alpha=("Strength of", "The L2 regularization term is divided"),
    Notes="It can also have a regularization term",
)
@pytest.mark.parametrize("kind", ["squared_error", "poisson", "log loss", "log loss of two", "log loss of labels"])
def test_the_loss_is_that_of_its_name_and_the_penalty(backend: Backend, kind: str) -> None:
    place = backend.asarray(X, "float64")
    settings = {**NET, "batch_size": 150, "max_iter": 1, "alpha": 3.0}
    if kind in ("squared_error", "poisson"):
        y: NDArray[Any] = Y.astype(np.float64)
        estimator: Any = MLPRegressor(kind, **settings).fit(place, y)
    else:
        y = {"log loss": Y, "log loss of two": Y == 1}.get(kind, np.stack([Y == 0, Y > 0], axis=1).astype(int))
        estimator = MLPClassifier(**settings).fit(place, y)
    (w_1, w_2, b_1, b_2), _ = drawn(4, 5, estimator.n_outputs_)  # the loss of an epoch's only batch is that before it
    z = np.tanh(X @ w_1 + b_1) @ w_2 + b_2
    if kind == "squared_error":
        loss = np.mean((z[:, 0] - y) ** 2) / 2
    elif kind == "poisson":
        predicted = np.exp(z[:, 0])
        loss = np.mean(xlogy(y, y / predicted) - y + predicted)  # scikit-learn's deviance is twice that
    elif kind == "log loss":
        loss = -np.mean((z - np.log(np.exp(z).sum(axis=1, keepdims=True)))[np.arange(150), y])
    else:
        truths = y.reshape(150, -1)
        loss = np.mean(np.sum(np.logaddexp(0, z) - truths * z, axis=1))
    output = {"squared_error": "identity", "poisson": "exp", "log loss": "softmax"}
    assert estimator.out_activation_ == output.get(kind, "logistic")
    expected = loss + 3.0 / 2 * (np.sum(w_1**2) + np.sum(w_2**2)) / 150
    assert estimator.loss_ == pytest.approx(expected, rel=ULPS * np.finfo(np.float64).eps)


@documents(
    batch_size="Size of minibatches",
    shuffle="Whether to shuffle",
    random_state="Determines random number generation",
    max_iter="For stochastic solvers",
    partial_fit=("Update the model", "The input data", "The target values", "Trained MLP model"),
)
@pytest.mark.parametrize("shuffles", [True, False])
def test_an_epoch_takes_every_row_once_in_batches_of_a_new_order(backend: Backend, shuffles: bool) -> None:
    place = backend.asarray(X, "float64")
    settings = {**NET, "solver": "sgd", "learning_rate_init": 0.1}
    fitted = MLPClassifier(**settings, batch_size=60, max_iter=2, shuffle=shuffles).fit(place, Y)
    by_hand = MLPClassifier(**settings, shuffle=False)  # each of whose epochs is one batch
    order, state = np.arange(150), drawn(4, 5, 3)[1]
    for _ in range(2):
        order = shuffle(order, random_state=state) if shuffles else order
        for rows in np.split(order, [60, 120]):
            returned = by_hand.partial_fit(backend.asarray(X[rows], "float64"), Y[rows], classes=[0, 1, 2])
            assert returned is by_hand
    assert (fitted.n_iter_, fitted.t_) == (2, 2 * 150)
    for actual, expected in zip(parameters(fitted), parameters(by_hand), strict=True):
        assert_array(actual, backend.to_host(expected), backend, like=place, ulps=ULPS)


STOCHASTIC = {"sgd", "adam"}
USED: dict[str, tuple[Any, set[str]]] = {
    "batch_size": (40, STOCHASTIC),
    "learning_rate": ("constant", {"sgd"}),
    "learning_rate_init": (0.5, STOCHASTIC),
    "power_t": (0.1, {"sgd"}),
    "shuffle": (False, STOCHASTIC),
    "momentum": (0.1, {"sgd"}),
    "nesterovs_momentum": (False, {"sgd"}),
    "early_stopping": (True, STOCHASTIC),
    "beta_1": (0.1, {"adam"}),
    "beta_2": (0.1, {"adam"}),
    "epsilon": (1.0, {"adam"}),
    "n_iter_no_change": (1, STOCHASTIC),
    "max_fun": (2, {"lbfgs"}),
}
"""Parameter -> another value, and the solvers that use it."""


@documents(
    batch_size=("If the solver is 'lbfgs', the classifier", "If the solver is 'lbfgs', the regressor"),
    **{name: ("Only used when", "Only effective when") for name in USED if name != "batch_size"},
)
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("name", USED)
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_a_parameter_is_used_by_the_solvers_that_are_named(kind: Any, name: str, solver: str) -> None:
    settings = {**NET, "solver": solver, "batch_size": 50, "max_iter": 5, "learning_rate": "invscaling"}
    if name == "n_iter_no_change":
        settings["learning_rate_init"] = 1e-9  # nothing becomes better
    value, users = USED[name]
    one, other = (kind(**{**settings, **change}).fit(X, Y) for change in ({}, {name: value}))
    is_used = one.loss_curve_ != other.loss_curve_ or not np.array_equal(one.coefs_[0], other.coefs_[0])
    assert is_used == (solver in users)


@documents(power_t="It is used", nesterovs_momentum="Only used", validation_fraction="Only used")
@pytest.mark.parametrize(
    ("change", "switch"),
    [
        ({"power_t": 0.1}, {"learning_rate": "invscaling"}),
        ({"nesterovs_momentum": False}, {"momentum": 0.9}),
        ({"validation_fraction": 0.3}, {"early_stopping": True}),
    ],
)
def test_a_parameter_is_used_only_beside_the_one_that_is_named(change: dict[str, Any], switch: dict[str, Any]) -> None:
    settings = {**NET, "solver": "sgd", "momentum": 0.0, "max_iter": 3}
    for more, is_used in (({}, False), (switch, True)):
        one, other = (MLPClassifier(**{**settings, **more, **each}).fit(X, Y) for each in ({}, change))
        assert (one.loss_curve_ != other.loss_curve_) == is_used


def rates(place: Array, **settings: Any) -> list[float]:
    """Return the learning rate after every epoch."""
    seen: list[float] = []
    note = [lambda estimator: seen.append(estimator._progress.schedule.current)]
    classifier = MLPClassifier(**{**NET, "solver": "sgd", "max_iter": 9, **settings}, callbacks=note).fit(place, Y)
    assert float(classifier._progress.optimizer_state.learning_rate) == pytest.approx(seen[-1])
    return seen


@documents(
    learning_rate=(
        "Learning rate schedule",
        "- 'constant'",
        # The first step has t = 0, so that it must be t + 1, in scikit-learn as here.
        "- 'invscaling'",
    ),
    power_t="The exponent",
    t_="Mathematically equals",
)
@pytest.mark.parametrize("power_t", [0.5, 0.3])
def test_the_learning_rate_is_constant_or_falls_with_the_rows_seen(backend: Backend, power_t: float) -> None:
    place = backend.asarray(X, "float64")
    assert rates(place, learning_rate_init=0.01, power_t=power_t) == [0.01] * 9
    falling = rates(place, learning_rate="invscaling", learning_rate_init=0.01, power_t=power_t)
    assert falling == pytest.approx([0.01 / (150 * (epoch + 1) + 1) ** power_t for epoch in range(9)])


@documents(learning_rate=("- 'adaptive'", "Each time two consecutive epochs"))
@pytest.mark.parametrize("early_stopping", [False, True])
def test_an_adaptive_rate_is_divided_by_5_when_two_epochs_fail(backend: Backend, early_stopping: bool) -> None:
    # Two epochs, because n_iter_no_change is 1; by default, in scikit-learn as here, it takes eleven.
    place = backend.asarray(X, "float64")
    settings = {"learning_rate": "adaptive", "learning_rate_init": 0.01, "n_iter_no_change": 1}
    settings["early_stopping"] = early_stopping
    expected = [0.01, 0.01, 0.002, 0.002, 0.0004, 0.0004, 0.00008, 0.00008, 0.000016]
    assert rates(place, **settings, tol=100.0) == pytest.approx(expected)
    if not early_stopping:
        assert rates(place, **settings, tol=0.0) == [0.01] * 9  # the loss keeps decreasing


@documents(
    max_fun=("Maximum number", "The solver iterates until", "Note that number"),
    max_iter=("Maximum number", "The solver iterates until"),
    tol="Tolerance for",
)
def test_lbfgs_ends_by_its_gradient_or_by_iterations_or_by_calls(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, results = backend.asarray(X, "float64"), []

    def note(*args: Any, **more: Any) -> OptimizeResult:
        results.append(minimize(*args, **more))
        return results[-1]

    monkeypatch.setattr("mlp_xp.estimators.lbfgs.minimize", note)
    cases: list[dict[str, Any]] = [{}, {"max_iter": 7}, {"max_fun": 7}]
    for case in cases:
        fitted = MLPClassifier(**{**NET, "solver": "lbfgs", "max_iter": 500, "tol": 1e-3, **case}).fit(place, Y)
        assert fitted.n_iter_ == results[-1].nit <= results[-1].nfev
    free, by_iterations, by_calls = results
    assert by_iterations.nit == 7 < free.nit
    assert 7 <= by_calls.nfev <= 8 < free.nfev  # SciPy looks after every iteration
    assert np.abs(free.jac).max() <= 1e-3 < min(np.abs(result.jac).max() for result in (by_iterations, by_calls))
