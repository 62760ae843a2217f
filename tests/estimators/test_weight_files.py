"""Files of estimators: they hold all that predicts and goes on; files that hold something else are refused."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import array_api_compat
import numpy as np
import pytest
import sklearn.neural_network as theirs
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError

import mlp_xp.neural_network as ours
from mlp_xp.array_types import leaves
from mlp_xp.backend import Backend
from mlp_xp.errors import DataError
from mlp_xp.estimators.inputs import to_host
from mlp_xp.estimators.state import HISTORY
from mlp_xp.neural_network import MLPClassifier, MLPRegressor, from_sklearn, load, save

IRIS = load_iris()
X, Y = IRIS.data, IRIS.target
NAMES = IRIS.target_names[Y]
FEW: dict[str, Any] = {"hidden_layer_sizes": (5,), "max_iter": 4, "random_state": 0}
TABLE = np.stack([Y == 0, Y > 0], axis=1).astype(int)
WHOLE: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "three classes": ("MLPClassifier", Y, {}),
    "classes of 8 bits": ("MLPClassifier", Y.astype(np.int8) - 1, {"random_state": np.int64(3)}),
    "classes that are floats": ("MLPClassifier", Y.astype(np.float32), {"n_iter_no_change": np.inf}),
    "names": ("MLPClassifier", NAMES, {"class_weight": {np.str_("setosa"): np.float32(2.0), "virginica": 1}}),
    "names that are objects": ("MLPClassifier", NAMES.astype(object), {"class_weight": "balanced"}),
    "two classes": ("MLPClassifier", Y == 1, {"class_weight": {True: 0.5, False: 2}}),
    "one class": ("MLPClassifier", np.ones(150, int), {"class_weight": {np.int64(1): 2.0}}),
    "several labels": ("MLPClassifier", TABLE, {"class_weight": [{0: 1, 1: 2}, {0: 1, 1: 1.5}]}),
    "early stopping": ("MLPClassifier", Y, {"early_stopping": True, "tol": np.float64(0.1)}),
    "layers from a range": ("MLPClassifier", Y, {"hidden_layer_sizes": range(3, 6)}),
    "layers from an array": ("MLPClassifier", Y, {"hidden_layer_sizes": np.array([3])}),
    "one layer": ("MLPClassifier", Y, {"hidden_layer_sizes": np.int64(3)}),
    "no layer": ("MLPClassifier", Y, {"hidden_layer_sizes": ()}),
    "exact": ("MLPClassifier", Y, {"arithmetic": "exact", "dropout": 0.1}),
    "batch normalisation": ("MLPClassifier", Y, {"hidden_layer_sizes": (4, 4), "residual": True, "batch_norm": True}),
    "numbers": ("MLPRegressor", X[:, 0], {"activation": "tanh", "loss": "poisson"}),
    "several numbers": ("MLPRegressor", X[:, :2], {"solver": "lbfgs"}),
}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("case", WHOLE)
def test_a_file_holds_all_that_predicts_and_goes_on(backend: Backend, tmp_path: Path, case: str) -> None:
    name, y, settings = WHOLE[case]
    place = backend.asarray(X, "float64")
    estimator = getattr(ours, name)(**{**FEW, **settings}, warm_start=True).fit(place, y)
    save(estimator, tmp_path / "it.safetensors")
    loaded = load(tmp_path / "it.safetensors")
    assert type(loaded) is type(estimator)
    for attribute in (*HISTORY, "validation_loss_curve_", "n_features_in_", "n_layers_", "n_outputs_"):
        assert getattr(loaded, attribute) == getattr(estimator, attribute)
    save(loaded, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "it.safetensors").read_bytes()
    assert clone(loaded).get_params() == loaded.get_params()
    sizes, wanted = loaded.hidden_layer_sizes, settings.get("hidden_layer_sizes", (5,))
    assert sizes == (int(wanted) if np.ndim(wanted) == 0 else tuple(wanted))
    loaded.move_to(place)
    for actual, expected in zip(leaves(loaded._parameters), leaves(estimator._parameters), strict=True):
        assert type(actual) is type(expected)
        assert actual.dtype == expected.dtype
        assert array_api_compat.device(actual) == array_api_compat.device(expected)
        np.testing.assert_array_equal(backend.to_host(actual), backend.to_host(expected))
    actual, expected = (one.predict(place) for one in (loaded, estimator))
    assert type(actual) is type(expected)
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(to_host(actual), to_host(expected))
    assert loaded.fit(place, y).loss_curve_ == estimator.fit(place, y).loss_curve_


@pytest.mark.parametrize("key", [1, "a", True, 0.5])
def test_keys_of_class_weights_keep_their_type(tmp_path: Path, key: Any) -> None:
    classifier = MLPClassifier(**FEW).fit(X, Y).set_params(class_weight={key: 2.0})
    save(classifier, tmp_path / "it.safetensors")
    ((loaded, weight),) = load(tmp_path / "it.safetensors").class_weight.items()
    assert (type(loaded), loaded, weight) == (type(key), key, 2.0)


def test_an_integer_of_numpys_own_is_a_random_state_and_another_is_none(tmp_path: Path) -> None:
    for given, kept in ((np.int64(7), 7), (np.random.RandomState(0), None)):
        save(MLPClassifier(**{**FEW, "random_state": given}).fit(X, Y), tmp_path / "it.safetensors")
        assert load(tmp_path / "it.safetensors").random_state == kept


@pytest.mark.parametrize("settings", [{}, {"early_stopping": True}, {"solver": "lbfgs"}], ids=str)
def test_what_scikit_learn_fitted_can_be_written(tmp_path: Path, settings: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        there = theirs.MLPClassifier(**FEW, **settings).fit(X, NAMES)
    save(from_sklearn(there), tmp_path / "it.safetensors")
    np.testing.assert_array_equal(load(tmp_path / "it.safetensors").predict(X), there.predict(X))


def test_names_of_features_are_in_the_file(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(X, columns=["a", "b", "c", "d"])
    save(MLPClassifier(**FEW).fit(frame, Y), tmp_path / "it.safetensors")
    with pytest.raises(ValueError, match="The feature names should match"):
        load(tmp_path / "it.safetensors").predict(frame[["b", "a", "c", "d"]])


def of_dates() -> MLPClassifier:
    return MLPClassifier(**FEW).fit(X, np.array(["2020-01-01", "2021-01-01", "2022-01-01"], "M8[D]")[Y])


def diverged() -> MLPClassifier:
    classifier = MLPClassifier(**FEW).fit(X, Y)
    classifier.coefs_[0][0, 0] = np.nan
    return classifier


def changed(**parameters: Any) -> Any:
    return MLPRegressor(**FEW).fit(X, X[:, 0]).set_params(**parameters)


class Own(MLPClassifier):
    """A subclass, of which `load` knows nothing."""


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (MLPClassifier, NotFittedError, "not fitted yet"),
        (lambda: MLPClassifier(**FEW).fit(X, Y).to_sklearn(), TypeError, r"not sklearn\.neural_network\..*Classifier"),
        (lambda: Own(**FEW).fit(X, Y), TypeError, "MLPClassifier or MLPRegressor of mlp_xp.neural_network is wanted"),
        (lambda: None, TypeError, "not builtins.NoneType"),
        (of_dates, TypeError, r"classes_ of the type datetime64\[D\] cannot be written"),
        (lambda: MLPClassifier(**FEW).fit(X, Y).set_params(class_weight={(1, 2): 1}), TypeError, r"key \(1, 2\)"),
        (lambda: MLPClassifier(**FEW).fit(X, Y).set_params(class_weight={1: {}}), ValueError, "class_weight is"),
        (lambda: changed(alpha=1j), TypeError, "alpha=1j cannot be written"),
        (lambda: changed(tol=np.longdouble(1)), TypeError, "tol=.* cannot be written"),
        (lambda: changed(hidden_layer_sizes=(7,)), ValueError, r"could not be read again: .*\(4, 5, 1\).*\(4, 7, 1\)"),
        (lambda: changed(loss="poisson"), ValueError, "could not be read again: .*'identity'"),
        (lambda: changed(alpha=-1.0), ValueError, "could not be read again: The 'alpha' parameter"),
        (diverged, ValueError, r"could not be read again: 0\.weight has numbers that are not finite"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(tmp_path: Path, make: Any, error: Any, text: str) -> None:
    path = tmp_path / "it.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(error, match=text):
        save(make(), path)
    assert path.read_bytes() == b"old"


def write_changed(path: Path, change: Any, estimator: Any = None) -> None:
    """Write the file of an estimator, after a change of its description and tensors, which are given as mappings."""
    save(MLPClassifier(**FEW).fit(X, Y) if estimator is None else estimator, path)
    with safe_open(path, framework="numpy") as file:
        described = json.loads(file.metadata()["mlp_xp.neural_network"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(described, tensors)
    save_file(tensors, path, metadata={"mlp_xp.neural_network": json.dumps(described)})


CLASSES: dict[str, tuple[dict[str, Any], str]] = {
    "too few": ({"classes": [0, 1]}, r"layers \(4, 5, 3\).* ask for \(4, 5, 1\)"),
    "none": ({"classes": []}, "classes are no list of int64"),
    "no list": ({"classes": {"0": 1}}, "classes are no list of int64"),
    "unsorted": ({"classes": [0, 2, 1]}, "classes are not sorted, or twice there"),
    "twice": ({"classes": [0, 1, 1]}, "classes are not sorted, or twice there"),
    "nested": ({"classes": [[0], [1], [2]]}, "classes are no list of int64"),
    "mixed": ({"classes": [0, 1, "2"]}, "classes are no list of int64"),
    "bools": ({"classes": [False, 1, 2]}, "classes are no list of int64"),
    "too large": ({"classes": [0, 1, 200], "classes_dtype": "int8"}, "OverflowError"),
    "far too large": ({"classes": [0, 1, 2**70]}, "OverflowError"),
    "not finite": ({"classes": [0.0, 1.0, float("inf")], "classes_dtype": "float64"}, "classes are not finite"),
    "no number": ({"classes": [0.0, 1.0, float("nan")], "classes_dtype": "float64"}, "classes are not finite"),
    "huge type": ({"classes": ["a", "b", "c"], "classes_dtype": "<U999999999"}, 'classes_dtype is "<U999999999"'),
    "no type": ({"classes_dtype": "no type"}, 'classes_dtype is "no type"'),
    "type of another kind": ({"classes_dtype": ["int64"]}, r'classes_dtype is \["int64"\]'),
    "long names": (
        {"classes": [*map(str, range(10**4)), "z" * 10**5], "classes_dtype": "str"},
        "classes would take 4000400000 bytes",
    ),
    "several labels": ({"is_multilabel": "yes"}, 'is_multilabel is "yes"'),
    "no numbers of columns": ({"is_multilabel": True, "classes": [1, 2, 3]}, "are not their numbers"),
    "other outputs": ({"is_multilabel": True}, "predicts by 'softmax'"),
}


@pytest.mark.parametrize("case", CLASSES)
def test_classes_that_are_none(tmp_path: Path, case: str) -> None:
    path = tmp_path / "it.safetensors"
    change, reason = CLASSES[case]
    write_changed(path, lambda described, _: described.update(change))
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"it\.safetensors: holds no estimator .*{reason}"):
        load(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20 + 64 * path.stat().st_size


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, value) for name in ("n_iter_", "t_", "_no_improvement_count") for value in (None, -1, 1.0, True, "1")],
        *[("loss_curve_", value) for value in (None, 1.0, ["a"], [True], [[1.0]], [10**400])],
        *[("validation_scores_", value) for value in (1.0, [None])],
        ("validation_loss_curve_", {}),
        *[(name, value) for name in ("loss_", "best_loss_", "best_validation_score_") for value in ("1", [1.0], False)],
        ("out_activation_", None),
    ],
)
def test_fitted_attributes_that_are_none(tmp_path: Path, name: str, value: Any) -> None:
    write_changed(tmp_path / "it.safetensors", lambda described, _: described["fitted"].update({name: value}))
    with pytest.raises(DataError, match=rf"it\.safetensors: holds no estimator .*{name} is "):
        load(tmp_path / "it.safetensors")


def of_parameters(**parameters: Any) -> Any:
    return lambda described, _: described["parameters"].update(parameters)


def of_tensors(**arrays: Any) -> Any:
    return lambda _, tensors: tensors.update({name.replace("_", "."): array for name, array in arrays.items()})


def as_regressor(described: dict[str, Any], _: Any) -> None:
    described["class"] = "MLPRegressor"
    for name in ("classes", "classes_dtype", "is_multilabel"):
        del described[name]
    del described["parameters"]["class_weight"]


OTHERS: dict[str, tuple[Any, str]] = {
    "class": (lambda described, _: described.update({"class": "Popen"}), "class is 'Popen', not one of MLPClassifier"),
    "list as class": (lambda described, _: described.update({"class": []}), "it names no class"),
    "no classes": (lambda described, _: described.pop("classes"), r"but MLPClassifier has \['class', 'classes'"),
    "no fitted": (lambda described, _: described.update(fitted={}), "fitted must have"),
    "list as fitted": (lambda described, _: described.update(fitted=[]), "fitted must have"),
    "regressor": (as_regressor, "predicts by 'softmax'"),
    "regressor with classes": (
        lambda described, _: described.update({"class": "MLPRegressor"}),
        r"but MLPRegressor has \['class', 'feature_names'",
    ),
    "names": (lambda described, _: described.update(feature_names=["a"]), "1 feature_names"),
    "numbers as names": (lambda described, _: described.update(feature_names=[1, 2, 3, 4]), "no list of names"),
    "text as names": (lambda described, _: described.update(feature_names="abcd"), "no list of names"),
    "range": (of_parameters(alpha=-1.0), "The 'alpha' parameter"),
    "too large": (of_parameters(alpha=10**400), "alpha is 1000"),
    "unknown": (of_parameters(no_such=1), r"no parameters \['no_such'\]"),
    "no parameters": (lambda described, _: described.update(parameters=[]), "parameters is no object"),
    "callbacks": (of_parameters(callbacks=[1]), "callbacks are no matter of a file"),
    "layers": (of_parameters(hidden_layer_sizes=[6]), r"layers \(4, 5, 3\).* ask for \(4, 6, 3\)"),
    "huge layers": (of_parameters(hidden_layer_sizes=[10**15]), "ask for"),
    "nested layers": (of_parameters(hidden_layer_sizes=[[5]]), r"hidden_layer_sizes is \[\[5\]\]"),
    "weights of classes": (of_parameters(class_weight={"0": 1}), "class_weight is"),
    "more than pairs": (of_parameters(class_weight={"pairs": [[0, 1]], "x": 1}), "class_weight is"),
    "no weight": (of_parameters(class_weight={"pairs": [[0, float("nan")]]}), "class_weight is"),
    "no dictionaries": (of_parameters(class_weight=[1, "x", None]), "class_weight is"),
    "pairs": (of_parameters(class_weight={"pairs": [[[0], 1]]}), "TypeError"),
    "words as weights": (of_parameters(class_weight={"pairs": [[0, "a"]]}), "class_weight is"),
    "null as key": (of_parameters(class_weight={"pairs": [[None, 1]]}), "class_weight is"),
    "integers": (of_tensors(**{"0_bias": np.ones(5, np.int32)}), r"0\.bias is of the type int32"),
    "16 bits": (of_tensors(**{"0_bias": np.ones(5, np.float16)}), r"0\.bias is of the type float16"),
    "not a number": (of_tensors(**{"0_bias": np.full(5, np.nan)}), r"0\.bias has numbers that are not finite"),
    "no dimension": (of_tensors(**{"0_weight": np.array(1.0)}), r"0\.weight has the shape \(\)"),
    "no row": (of_tensors(**{"0_weight": np.ones((5, 0))}), r"0\.weight has the shape \(5, 0\)"),
    "missing tensor": (lambda _, tensors: tensors.pop("0.bias"), "must have a weight and a bias"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_files_that_contradict_themselves(tmp_path: Path, case: str) -> None:
    change, reason = OTHERS[case]
    write_changed(tmp_path / "it.safetensors", change)
    with pytest.raises(DataError, match=rf"it\.safetensors: holds no estimator .*{reason}"):
        load(tmp_path / "it.safetensors")


@pytest.mark.parametrize("text", ["", "[]", "null", "[" * 10**5, "{", '{"class": "MLPClassifier"}'])
def test_descriptions_that_are_none(tmp_path: Path, text: str) -> None:
    save_file({"0.weight": np.ones((2, 3))}, tmp_path / "it.safetensors", metadata={"mlp_xp.neural_network": text})
    with pytest.raises(DataError, match=r"it\.safetensors: holds no estimator"):
        load(tmp_path / "it.safetensors")


@pytest.mark.parametrize("nothing", ["[]", "{}"])
def test_lists_of_nothing_are_not_parsed(tmp_path: Path, nothing: str) -> None:
    text = f"[{','.join([nothing] * 2**18)}]"
    save_file({"0.weight": np.ones((2, 3))}, tmp_path / "it.safetensors", metadata={"mlp_xp.neural_network": text})
    with pytest.raises(DataError, match=r"it\.safetensors: holds no estimator .*it has more than 262,144 brackets"):
        load(tmp_path / "it.safetensors")


def test_files_that_hold_no_estimator(tmp_path: Path) -> None:
    path = tmp_path / "it.safetensors"
    with pytest.raises(DataError, match=r"it\.safetensors: cannot be read as safetensors"):
        load(path)
    for dtype in ("BF16", "F8_E4M3"):  # which NumPy does not have, unless JAX brought them
        n_bytes = 2 if dtype == "BF16" else 1
        header = json.dumps({"0.bias": {"dtype": dtype, "shape": [1], "data_offsets": [0, n_bytes]}}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(n_bytes))
        with pytest.raises(DataError, match=r"it\.safetensors: (cannot be read as safetensors|holds no estimator)"):
            load(path)
    path.write_bytes(b"no tensors at all")
    with pytest.raises(DataError, match=r"it\.safetensors: cannot be read as safetensors"):
        load(path)
    save_file({"0.weight": np.ones((2, 3))}, path)
    with pytest.raises(DataError, match=r"holds no estimator .* \(KeyError"):
        load(path)


def test_a_pipe_is_no_estimator(tmp_path: Path) -> None:
    """To open one would wait until somebody writes to it."""
    os.mkfifo(tmp_path / "x")
    with pytest.raises(DataError, match=r"x: cannot be read as safetensors: it is a pipe or a device, not a file"):
        load(tmp_path / "x")


def test_headers_are_believed_up_to_a_limit(tmp_path: Path) -> None:
    """All that is in one is parsed before anything of it can be looked at."""
    path, classifier = tmp_path / "x", MLPClassifier(**FEW).fit(X, Y)
    save(classifier, path)
    content = path.read_bytes()
    for size in (0, len(content) - 7, 2**63):
        path.write_bytes(struct.pack("<Q", size) + content[8:])
        with pytest.raises(
            DataError, match=rf"its header of {size:,} bytes is not within the {len(content) - 8:,} that"
        ):
            load(path)
    path.write_bytes(struct.pack("<Q", 5_000_000) + bytes(6_000_000))
    with pytest.raises(DataError, match=r"its header of 5,000,000 bytes is not within .* 4,194,304 that are believed"):
        load(path)


def test_what_is_too_long_to_be_believed_is_not_written(tmp_path: Path) -> None:
    classifier = MLPClassifier(**FEW).fit(X, Y)
    classifier.loss_curve_ = [0.125] * 400_000
    save(classifier, tmp_path / "x")
    assert load(tmp_path / "x").loss_curve_ == classifier.loss_curve_
    classifier.loss_curve_ *= 2
    with pytest.raises(ValueError, match=r"not written: all but the tensors takes 5,[0-9,]+ bytes, at most 4,194,304"):
        save(classifier, tmp_path / "y")
    assert not (tmp_path / "y").exists()
