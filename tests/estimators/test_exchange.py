"""To scikit-learn and back: the same predictions, and trainings that go on."""

from __future__ import annotations

import warnings
from typing import Any

import array_api_compat
import numpy as np
import pytest
import sklearn.neural_network as theirs
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

import mlp_xp.neural_network as ours
from checks import DTYPES
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


def test_sigmoid_begins_where_logistic_does(backend: Backend) -> None:
    place = backend.asarray(X, "float64")
    first, second = (MLPClassifier(**FEW, activation=name).fit(place, Y) for name in ("sigmoid", "logistic"))
    for one, other in zip(first.coefs_, second.coefs_, strict=True):
        assert backend.to_host(one).tobytes() == backend.to_host(other).tobytes()


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


def test_a_state_dict_is_that_of_pytorchs_modules(backend: Backend) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    place = backend.asarray(X, "float32")
    classifier = MLPClassifier(**FEW).fit(place, Y)
    network = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3), torch.nn.Softmax(1))
    state = classifier.state_dict()
    assert all(type(array) is type(place) for array in state.values())
    network.load_state_dict({key: torch.asarray(np.array(backend.to_host(state[key]))) for key in state})
    with torch.no_grad():
        theirs_say = network(torch.asarray(X, dtype=torch.float32))
    np.testing.assert_allclose(backend.to_host(classifier.predict_proba(place)), theirs_say.numpy(), atol=1e-6)
    other = MLPClassifier(**{**FEW, "random_state": 1}).fit(X, Y).load_state_dict(network.state_dict())
    assert isinstance(other.coefs_[0], torch.Tensor)
    np.testing.assert_allclose(other.predict_proba(torch.asarray(X, dtype=torch.float32)), theirs_say, atol=1e-6)


def test_a_state_dict_lies_in_memory_as_files_are_written() -> None:
    classifier = MLPClassifier(**FEW).fit(X, Y)
    assert all(array.flags.c_contiguous for array in classifier.state_dict().values())
    np.testing.assert_array_equal(classifier.state_dict()["2.weight"], classifier.coefs_[1].T)


def test_a_state_dict_stays_its_owners() -> None:
    state = {key: np.array(array) for key, array in MLPClassifier(**FEW).fit(X, Y).state_dict().items()}
    classifier = MLPClassifier(**{**FEW, "random_state": 1}).fit(X, Y).load_state_dict(state)
    before = classifier.predict_proba(X)
    for array in state.values():
        array[...] = 0.0
    np.testing.assert_array_equal(classifier.predict_proba(X), before)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda state: state.pop("2.bias"), "must have a weight and a bias of every layer"),
        (lambda state: state.update({"head.weight": state.pop("0.weight")}), "named as torch.nn.Sequential names them"),
        (lambda state: state.update({"2.weight": np.ones((3, 4))}), r"must be \(n_out, 5\) and \(n_out,\)"),
        (lambda state: state.update({"2.weight": np.ones((2, 5)), "2.bias": np.ones(2)}), "but the estimator's"),
        (lambda state: state.clear(), "the state_dict has nothing"),
        (lambda state: state.update({"0.weight": np.ones(5), "0.bias": np.ones(5)}), r"must be \(n_out, n_in\)"),
        (lambda state: state.update({"0.weight": np.array(1.0)}), r"0\.weight has the shape \(\)"),
        (lambda state: state.update({"0.weight": np.ones((5, 0))}), r"0\.weight has the shape \(5, 0\)"),
        (lambda state: state.update({"2.bias": np.ones(3, np.int32)}), "2.bias is of the type int32: convert it"),
        (lambda state: state.update({"2.bias": np.ones(3, np.float16)}), "2.bias is of the type float16: convert it"),
        (lambda state: state.update({"2.bias": np.ones(3, np.float32)}), "some float64: convert them to one type"),
        (lambda state: state.update({"2.bias": np.full(3, np.nan)}), "2.bias has numbers that are not finite"),
    ],
)
def test_a_state_dict_of_something_else_is_refused(change: Any, text: str) -> None:
    classifier = MLPClassifier(**FEW).fit(X, Y)
    state, before = classifier.state_dict(), classifier.predict_proba(X)
    change(state)
    with pytest.raises(ValueError, match=text):
        classifier.load_state_dict(state)
    np.testing.assert_array_equal(classifier.predict_proba(X), before)


def test_numbers_of_16_bits_are_refused_in_every_library() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    classifier = MLPClassifier(**FEW).fit(torch.asarray(X), Y)
    for dtype in (torch.bfloat16, torch.float16):
        state = {key: array.to(dtype) for key, array in classifier.state_dict().items()}
        with pytest.raises(ValueError, match=rf"0\.weight is of the type {dtype}: convert it to float32 or float64"):
            classifier.load_state_dict(state)


@pytest.mark.parametrize("arithmetic", ["native", "exact"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_state_dict_is_copied_bit_by_bit(backend: Backend, dtype: str, arithmetic: str) -> None:
    like = backend.asarray(np.zeros(1), dtype)
    hosts = [array / 3.0 for array in (np.ones((5, 4)), np.ones(5), np.ones((3, 5)), np.ones(3))]
    hosts = [array.astype(dtype) for array in hosts]
    given = [backend.asarray(array.copy(), dtype) for array in hosts]
    classifier = MLPClassifier(**FEW, arithmetic=arithmetic).fit(X, Y)
    names = ("0.weight", "0.bias", "2.weight", "2.bias")
    classifier.load_state_dict(dict(zip(names, given, strict=True)))
    if isinstance(given[0], np.ndarray) and given[0].flags.writeable:
        for array in given:
            array[...] = 7.0
    taken = (classifier.coefs_[0], classifier.intercepts_[0], classifier.coefs_[1], classifier.intercepts_[1])
    for array, host in zip(taken, hosts, strict=True):
        assert type(array) is type(like)
        assert array.dtype == like.dtype
        assert array_api_compat.device(array) == array_api_compat.device(like)
        np.testing.assert_array_equal(backend.to_host(array), host.T)


def test_a_state_dict_of_jax_keeps_its_bits_also_when_64_bits_are_off_again() -> None:
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    classifier = MLPClassifier(**FEW, arithmetic="exact").fit(X, Y)
    before = [array.copy() for array in classifier.coefs_]
    was = jax.config.jax_enable_x64
    try:
        jax.config.update("jax_enable_x64", True)
        state = {key: jax.numpy.asarray(array) for key, array in classifier.state_dict().items()}
        jax.config.update("jax_enable_x64", False)
        classifier.load_state_dict(state)
        for array, host in zip(classifier.coefs_, before, strict=True):
            assert isinstance(array, jax.Array)
            assert array.dtype == np.float64
            np.testing.assert_array_equal(np.asarray(array), host)
    finally:
        jax.config.update("jax_enable_x64", was)
