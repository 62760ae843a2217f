"""Everything follows X: library, device and type; nothing is copied to the host unasked."""

from __future__ import annotations

import pickle
from typing import Any

import array_api_compat
import array_api_strict
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris

from checks import DTYPES, jax_says
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend
from mlp_xp.estimators.inputs import to_host
from mlp_xp.namespaces import backend_of
from mlp_xp.neural_network import MLPClassifier, MLPRegressor

IRIS = load_iris()
X, Y = IRIS.data, IRIS.target
FEW: dict[str, Any] = {"hidden_layer_sizes": (5,), "max_iter": 3, "batch_size": 50, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def assert_follows(array: Array, X_there: Array, shape: tuple[int, ...]) -> None:
    assert type(array) is type(X_there)
    assert array.dtype == X_there.dtype
    assert array_api_compat.device(array) == array_api_compat.device(X_there)
    assert array.shape == shape


@pytest.mark.parametrize("arithmetic", ["native", "exact"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_are_where_x_is(backend: Backend, dtype: str, arithmetic: str) -> None:
    X_there = backend.asarray(X, dtype)
    classifier = MLPClassifier(**FEW, arithmetic=arithmetic).fit(X_there, Y)
    assert_follows(classifier.predict_proba(X_there), X_there, (150, 3))
    assert_follows(classifier.predict_log_proba(X_there), X_there, (150, 3))
    parameters = backend.asarray(np.zeros(1), "float64" if arithmetic == "exact" else dtype)
    for array, shape in zip(classifier.coefs_ + classifier.intercepts_, ((4, 5), (5, 3), (5,), (3,)), strict=True):
        assert_follows(array, parameters, shape)
    labels = classifier.predict(X_there)
    assert type(labels) is type(X_there)
    assert array_api_compat.device(labels) == array_api_compat.device(X_there)
    assert set(backend.to_host(labels).tolist()) <= {0, 1, 2}
    assert isinstance(classifier.score(X_there, Y), float)
    regressor = MLPRegressor(**FEW, arithmetic=arithmetic).fit(X_there, X[:, :2])
    assert_follows(regressor.predict(X_there), X_there, (150, 2))
    assert_follows(MLPRegressor(**FEW).fit(X_there, X[:, 0]).predict(X_there), X_there, (150,))


def test_x_is_not_copied_to_the_host(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    X_there = backend.asarray(X, "float32")
    opened = backend_of(X_there)
    original, sizes = opened.to_host, [0]

    def note(array: Array) -> Any:
        sizes.append(int(np.prod(array.shape)))
        return original(array)

    monkeypatch.setattr(opened, "to_host", note)
    for settings in ({}, {"early_stopping": True}, {"solver": "lbfgs"}):
        MLPClassifier(**{**FEW, **settings}).fit(X_there, Y).predict_proba(X_there)
    assert max(sizes) < X.size


def test_y_and_weights_may_be_elsewhere(backend: Backend) -> None:
    X_there = backend.asarray(X, "float64")
    weights = np.linspace(0.5, 1.5, len(Y))
    there = [backend.asarray(Y.astype(np.int32)), backend.asarray(weights, "float64")]
    curves = [
        MLPClassifier(**FEW).fit(place, y, sample_weight=w).loss_curve_
        for place, y, w in ((X_there, Y, weights), (X_there, *there), (X_there, Y.tolist(), list(weights)))
    ]
    assert curves[0] == curves[1] == curves[2]
    on_host = MLPClassifier(**FEW).fit(X, *there)
    assert isinstance(on_host.coefs_[0], np.ndarray)
    assert on_host.loss_curve_ == pytest.approx(curves[0], rel=1e-10)
    assert on_host.score(X, there[0], there[1]) == on_host.score(X, Y, weights)


def test_labels_keep_their_kind(backend: Backend) -> None:
    X_there = backend.asarray(X, "float32")
    names = IRIS.target_names[Y]
    predicted = MLPClassifier(**FEW).fit(X_there, names).predict(X_there)
    assert isinstance(predicted, np.ndarray)  # no other library has strings
    assert set(predicted) <= set(names)
    of_two = MLPClassifier(**FEW).fit(X_there, Y == 1).predict(X_there)
    assert backend.to_host(of_two).dtype == np.bool_
    table = np.stack([Y == 0, Y > 0], axis=1).astype(int)
    several = MLPClassifier(**FEW).fit(X_there, table).predict(X_there)
    assert type(several) is type(X_there)
    assert several.shape == (150, 2)


@pytest.mark.parametrize(
    "y",
    [Y + 2**33, (Y + 2**33).astype(np.uint64), Y.astype(np.uint64) + np.uint64(2**63 + 5), Y + np.float64(2**24)],
)
def test_labels_that_the_library_cannot_hold_stay_on_the_host(backend: Backend, y: Any) -> None:
    X_there = backend.asarray(X, "float32")
    classifier = MLPClassifier(**{**FEW, "max_iter": 100, "learning_rate_init": 0.03}).fit(X_there, y)
    np.testing.assert_array_equal(to_host(classifier.classes_), np.unique(y))
    predicted = classifier.predict(X_there)
    assert type(predicted) is type(classifier.classes_)
    types = backend.xp.__array_namespace_info__().dtypes(device=backend.device)
    fits = y.dtype.name in types or (y.dtype.kind == "u" and "int64" in types and y.max() < 2**63)
    assert type(predicted) is (type(X_there) if fits else np.ndarray)
    assert np.mean(to_host(predicted) == y) > 0.9
    assert classifier.score(X_there, y) > 0.9
    np.testing.assert_array_equal(to_host(classifier.move_to(X_there).classes_), np.unique(y))


def test_integers_become_the_librarys_default_type(backend: Backend) -> None:
    X_there = backend.asarray(np.rint(X).astype(np.int32))
    classifier = MLPClassifier(**FEW).fit(X_there, Y)
    default = backend.xp.__array_namespace_info__().default_dtypes()["real floating"]
    assert classifier.coefs_[0].dtype == default
    assert classifier.predict_proba(X_there).dtype == default


def test_x_elsewhere_than_in_fit_is_refused_until_the_estimator_moves(backend: Backend) -> None:
    X_there = backend.asarray(X, "float32")
    classifier = MLPClassifier(**FEW).fit(X_there, Y)
    expected = backend.to_host(classifier.predict_proba(X_there))
    host = X.astype(np.float32)
    if not isinstance(X_there, np.ndarray):
        for method in ("predict", "predict_proba", "predict_log_proba"):
            with pytest.raises(ValueError, match=rf"MLPClassifier\.{method}\(\) must use the same namespace"):
                getattr(classifier, method)(host)
        with pytest.raises(ValueError, match="must use the same namespace"):
            clone(classifier).set_params(warm_start=True).fit(X_there, Y).fit(host, Y)
    moved = classifier.move_to(host)
    assert moved is classifier
    np.testing.assert_allclose(moved.predict_proba(host), expected, atol=1e-6)
    back = moved.move_to(X_there)
    assert_follows(back.predict_proba(X_there), X_there, (150, 3))


def test_an_estimator_that_moved_begins_its_steps_anew(backend: Backend) -> None:
    X_there = backend.asarray(X, "float64")
    settings: dict[str, Any] = {**FEW, "solver": "sgd", "learning_rate_init": 0.1, "batch_size": 150}
    moved, plain = MLPClassifier(**settings), MLPClassifier(**settings, warm_start=True)
    for _ in range(3):
        moved.partial_fit(X_there, Y, classes=[0, 1, 2])
    plain.set_params(max_iter=3).fit(X_there, Y)  # each of which begins without momentum
    plain.move_to(X).set_params(max_iter=1).fit(X, Y)
    moved.move_to(X).partial_fit(X, Y)
    for actual, expected in zip(moved.coefs_, plain.coefs_, strict=True):
        assert isinstance(actual, np.ndarray)
        np.testing.assert_allclose(actual, expected, rtol=2.0**10 * np.finfo(np.float64).eps)


def test_the_refusal_names_both_places_as_they_are_known() -> None:
    there, device = array_api_strict.asarray(X), array_api_strict.Device("device1")
    classifier = MLPClassifier(**FEW).fit(X, Y)
    refusal = r"that was numpy on cpu, and now it is array_api_strict on .*{}"
    for place, name in ((there, "CPU_DEVICE"), (array_api_strict.asarray(X, device=device), "device1")):
        with pytest.raises(ValueError, match=refusal.format(name)):
            classifier.predict(place)


def test_x_on_another_device_of_jax_is_refused() -> None:
    pytest.importorskip("jax", reason="JAX is not installed")
    said = jax_says(
        "from mlp_xp.neural_network import MLPClassifier\n"
        "one, other = (jax.device_put(np.eye(4, dtype='float32'), device) for device in jax.devices())\n"
        "classifier = MLPClassifier((2,), tol=9.0, n_iter_no_change=1, warm_start=True).fit(one, [0, 1, 0, 1])\n"
        "for call in (classifier.predict, lambda X: classifier.fit(X, [0, 1, 0, 1])):\n"
        "    try: call(other)\n"
        "    except ValueError as error: print(error)\n"
        "print(classifier.move_to(other).predict(other).devices() == {jax.devices()[1]})\n"
    )
    refusal = (
        "Inputs passed to MLPClassifier.{}() must use the same namespace and the same device as those passed to fit(): "
        "that was jax on cpu, and now it is jax on cpu:1. Convert X, or move the estimator with move_to(X).\n"
    )
    assert said == refusal.format("predict") + refusal.format("fit") + "True\n"


def test_an_estimator_survives_pickling(backend: Backend) -> None:
    X_there = backend.asarray(X, "float32")
    if "strict" in type(X_there).__module__:
        pytest.skip("array-api-strict's arrays cannot be pickled on every device")
    classifier = MLPClassifier(**FEW).partial_fit(X_there, Y, classes=[0, 1, 2])
    copy = pickle.loads(pickle.dumps(classifier))  # noqa: S301 - our own
    np.testing.assert_array_equal(
        backend.to_host(copy.predict_proba(X_there)), backend.to_host(classifier.predict_proba(X_there))
    )
    assert copy.partial_fit(X_there, Y).loss_curve_ == classifier.partial_fit(X_there, Y).loss_curve_


def test_exact_arithmetic_has_the_same_bits_everywhere(backend: Backend) -> None:
    settings = {**FEW, "arithmetic": "exact", "dropout": 0.25, "max_gradient_norm": 1.0, "batch_size": 40}
    weights = np.linspace(0.5, 1.5, len(Y))
    curves = [
        MLPClassifier(**settings).fit(place, Y, sample_weight=weights).loss_curve_
        for place in (X, backend.asarray(X, "float64"))
    ]
    assert curves[0] == curves[1]


def test_exact_parameters_keep_all_bits_wherever_they_go(backend: Backend) -> None:
    classifier = MLPClassifier(**FEW, arithmetic="exact").fit(X, Y)
    before, table = [*classifier.coefs_, *classifier.intercepts_], X.astype(np.float32)
    expected = classifier.predict_proba(table)
    place = backend.asarray(table)  # JAX has no float64 yet
    classifier.move_to(place)
    for array, host in zip((*classifier.coefs_, *classifier.intercepts_), before, strict=True):
        assert_follows(array, backend.asarray(host), host.shape)
        np.testing.assert_array_equal(backend.to_host(array), host)
    np.testing.assert_array_equal(backend.to_host(classifier.predict_proba(place)), expected)
