"""In scikit-learn's company: its checks, pipelines, searches, metadata."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score, cross_validate
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from documentation import documents
from mlp_xp.backend import Backend
from mlp_xp.neural_network import MLPClassifier, MLPRegressor

X, Y = load_iris(return_X_y=True)
FEW: dict[str, Any] = {"hidden_layer_sizes": (6,), "max_iter": 20, "learning_rate_init": 0.03, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

CHECK = """
import json, warnings
from sklearn.utils.estimator_checks import check_estimator
from mlp_xp.cluster import KMeans
from mlp_xp.decomposition import PCA
from mlp_xp.neural_network import MLPClassifier, MLPRegressor
warnings.simplefilter("ignore")
results = {}
for estimator in (MLPClassifier(max_iter=100), MLPRegressor(max_iter=100), KMeans(3), PCA()):
    fails = {"check_sample_weight_equivalence_on_dense_data": "draws other rows"} if type(estimator) is KMeans else {}
    for result in check_estimator(estimator, on_fail=None, on_skip=None, expected_failed_checks=fails):
        reason = "" if result["status"] == "passed" else str(result["exception"])
        results.setdefault(result["status"], []).append([result["check_name"], reason])
print(json.dumps(results))
"""
MAY_BE_MISSING = (
    "is not installed",
    "requires cuda",
    "no XPU device",
    "PYTORCH_ENABLE_MPS_FALLBACK",
    "decision_function",
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("estimator", [MLPClassifier(max_iter=100), MLPRegressor(max_iter=100)])
def test_check_estimator_passes(estimator: Any) -> None:
    statuses = [result["status"] for result in check_estimator(estimator, on_skip=None)]
    assert statuses.count("passed") > 50
    assert set(statuses) <= {"passed", "skipped"}


def test_check_estimator_passes_with_array_api_dispatch() -> None:
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    done = subprocess.run([sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True, check=True)
    results = json.loads(done.stdout)
    assert set(results) <= {"passed", "skipped", "xfail"}, results
    assert len(results["xfail"]) == 1  # as of scikit-learn's own KMeans
    passed = [name for name, _ in results["passed"]]
    assert passed.count("check_array_api_input") >= 8  # NumPy and array-api-strict's devices, for each of the four
    assert passed.count("check_array_api_same_namespace") == 4
    assert all(any(reason in text for reason in MAY_BE_MISSING) for _, text in results["skipped"])


def test_kinds() -> None:
    assert is_classifier(MLPClassifier())
    assert is_regressor(MLPRegressor())
    copy = clone(MLPClassifier((3, 2), dropout=0.1, callbacks=[print]))
    assert copy.get_params() == MLPClassifier((3, 2), dropout=0.1, callbacks=[print]).get_params()
    assert "dropout=0.1" in repr(copy)


def test_in_a_pipeline(backend: Backend) -> None:
    X_there = backend.asarray(X, "float64")
    pipeline = make_pipeline(FunctionTransformer(lambda table: table - 3.0), MLPClassifier(**FEW)).fit(X_there, Y)
    assert type(pipeline.predict(X_there)) is type(X_there)
    assert pipeline.score(X_there, Y) > 0.8


def test_in_a_pipeline_with_a_scaler() -> None:
    assert make_pipeline(StandardScaler(), MLPClassifier(**FEW)).fit(X, Y).score(X, Y) > 0.9


@documents(feature_names_in_="Names of")
def test_data_frames_keep_their_names() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(X, columns=["a", "b", "c", "d"])
    classifier = MLPClassifier(**FEW).fit(frame, pandas.Series(Y))
    assert classifier.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="The feature names should match those that were passed during fit"):
        classifier.predict(frame[["b", "a", "c", "d"]])
    pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), MLPClassifier(**FEW)).fit(frame, Y)
    assert pipeline[-1].feature_names_in_.tolist() == ["a", "b", "c", "d"]


@documents(feature_names_in_="Defined only when")
def test_only_frames_whose_names_are_all_strings_have_names(backend: Backend) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    for table in (backend.asarray(X, "float32"), pandas.DataFrame(X), pandas.DataFrame(X).to_numpy()):
        classifier = MLPClassifier(**FEW).fit(table, Y)
        assert not hasattr(classifier, "feature_names_in_")
        assert classifier.n_features_in_ == 4
    mixed = pandas.DataFrame(X, columns=["a", "b", 3, 4])
    with pytest.raises(TypeError, match="Feature names are only supported if all input features have string names"):
        MLPClassifier(**FEW).fit(mixed, Y)


def test_polars_frames_keep_their_names() -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    frame = polars.DataFrame(X, schema=["a", "b", "c", "d"])
    assert MLPClassifier(**FEW).fit(frame, Y).feature_names_in_.tolist() == ["a", "b", "c", "d"]
    assert MLPClassifier(**FEW).fit(frame, Y).predict(frame).shape == (150,)


def test_in_searches_and_cross_validation() -> None:
    search = GridSearchCV(MLPClassifier(**FEW), {"hidden_layer_sizes": [(1,), (8,)], "dropout": [0.0, 0.9]}, cv=3)
    assert search.fit(X, Y).best_params_ == {"dropout": 0.0, "hidden_layer_sizes": (8,)}
    assert cross_val_score(MLPRegressor(**FEW), X[:, 1:], X[:, 0], cv=3).shape == (3,)
    assert MultiOutputRegressor(MLPRegressor(**FEW)).fit(X, X[:, :2]).predict(X).shape == (150, 2)
    regressor = MLPRegressor(hidden_layer_sizes=(6,), solver="lbfgs", random_state=0)
    logarithmic = TransformedTargetRegressor(regressor, func=np.log, inverse_func=np.exp)
    assert logarithmic.fit(X, X[:, 0]).score(X, X[:, 0]) > 0.5


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_cross_validation_of_arrays_that_scikit_learn_can_index(name: str) -> None:
    library = pytest.importorskip(name, reason=f"{name} is not installed")
    place = library.asarray if name == "torch" else library.numpy.asarray
    scores = cross_val_score(MLPClassifier(**FEW), place(X.astype(np.float32)), Y, cv=3)
    assert scores.shape == (3,)
    assert np.all(scores > 0.3)


def test_metadata_is_routed() -> None:
    weights = np.where(Y == 0, 1e-6, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = MLPClassifier(**FEW).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), estimator)
        results = cross_validate(pipeline, X, Y, params={"sample_weight": weights}, cv=3, return_estimator=True)
    by_hand, unweighted = [], []
    folds = [rows for _, rows in StratifiedKFold(3).split(X, Y)]
    for fitted, score, rows in zip(results["estimator"], results["test_score"], folds, strict=True):
        by_hand.append(fitted[-1].loss_curve_[-1])
        right = fitted.predict(X[rows]) == Y[rows]
        unweighted.append(np.mean(right))
        assert score == pytest.approx(np.average(right, weights=weights[rows]))
    assert results["test_score"].tolist() != pytest.approx(unweighted, abs=0.01)
    with sklearn.config_context(enable_metadata_routing=True):
        without = cross_validate(
            make_pipeline(StandardScaler(), MLPClassifier(**FEW)), X, Y, cv=3, return_estimator=True
        )
    assert all(a != b[-1].loss_curve_[-1] for a, b in zip(by_hand, without["estimator"], strict=True))
