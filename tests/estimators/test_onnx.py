"""What another program makes of the exported graph."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError

import mlp_xp.neural_network
from mlp_xp.activations import ACTIVATIONS
from mlp_xp.backend import Backend
from mlp_xp.datasets import load
from mlp_xp.neural_network import MLPClassifier, MLPRegressor

IRIS = load_iris()
X, Y = IRIS.data, IRIS.target
FEW: dict[str, Any] = {"hidden_layer_sizes": (6, 5), "max_iter": 10, "learning_rate_init": 0.03, "random_state": 0}
TARGETS: dict[str, tuple[str, Any]] = {
    "three classes": ("MLPClassifier", Y),
    "names": ("MLPClassifier", IRIS.target_names[Y]),
    "two classes": ("MLPClassifier", 5 + (Y == 1)),
    "truths": ("MLPClassifier", Y == 1),
    "one class": ("MLPClassifier", np.full(150, 7)),
    "several labels": ("MLPClassifier", np.stack([Y == 0, Y > 0], axis=1).astype(int)),
    "numbers": ("MLPRegressor", X[:, 0]),
    "several numbers": ("MLPRegressor", X[:, :2]),
}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def run(model: Any, rows: Any) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, {"X": rows}), strict=True))


@pytest.mark.parametrize("case", TARGETS)
def test_it_predicts_what_we_do(backend: Backend, case: str) -> None:
    name, y = TARGETS[case]
    place = backend.asarray(X, "float32")
    estimator = getattr(mlp_xp.neural_network, name)(**FEW).fit(place, y)
    outputs = run(estimator.to_onnx(), X.astype(np.float32))
    expected = {"predictions": estimator.predict(place)}
    if name == "MLPClassifier":
        expected = {"label": estimator.predict(place), "probabilities": estimator.predict_proba(place)}
    assert set(outputs) == set(expected)
    for key, values in expected.items():
        reference = values if isinstance(values, np.ndarray) else backend.to_host(values)
        assert outputs[key].shape == reference.shape
        if key == "label":
            assert outputs[key].tolist() == reference.tolist()
        else:
            assert outputs[key].dtype == np.float32
            np.testing.assert_allclose(outputs[key], reference, atol=1e-5 if name == "MLPRegressor" else 1e-6)


@pytest.mark.parametrize("activation", [*sorted(ACTIVATIONS), "logistic"])
def test_every_activation_has_its_operators(activation: str) -> None:
    classifier = MLPClassifier(**FEW, activation=activation).fit(X.astype(np.float32), Y)
    outputs = run(classifier.to_onnx(), X.astype(np.float32))
    np.testing.assert_allclose(outputs["probabilities"], classifier.predict_proba(X.astype(np.float32)), atol=1e-6)


def test_counts_are_exponentials() -> None:
    regressor = MLPRegressor(**FEW, loss="poisson").fit(X, Y)
    np.testing.assert_allclose(run(regressor.to_onnx(), X)["predictions"], regressor.predict(X), rtol=1e-12)


def test_float64_stays(tmp_path: Path) -> None:
    classifier = MLPClassifier(**FEW).fit(X, Y)
    classifier.to_onnx(tmp_path / "iris.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "iris.onnx", providers=["CPUExecutionProvider"])
    _, probabilities = session.run(None, {"X": X})
    np.testing.assert_allclose(probabilities, classifier.predict_proba(X), rtol=1e-12)


def test_what_is_not_fitted_is_refused() -> None:
    with pytest.raises(NotFittedError):
        MLPClassifier().to_onnx()


@pytest.mark.mnist
def test_the_probabilities_of_mnists_test_rows() -> None:
    if not os.environ.get("MLP_XP_DATA"):
        pytest.skip("MLP_XP_DATA does not say where MNIST is")
    train, test = load("mnist").split()
    table, rows = ((part.features / 255).astype(np.float32) for part in (train, test))
    classifier = MLPClassifier((64,), max_iter=2, random_state=0).fit(table, train.targets)
    outputs = run(classifier.to_onnx(), rows)
    assert np.max(np.abs(outputs["probabilities"] - classifier.predict_proba(rows))) < 32 * np.finfo(np.float32).eps
    assert np.mean(outputs["label"] == test.targets) > 0.9
