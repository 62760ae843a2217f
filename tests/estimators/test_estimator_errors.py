"""Bad input gets the error that scikit-learn's users know, whatever library it comes in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import sklearn.neural_network as theirs
from sklearn.datasets import load_iris
from sklearn.exceptions import DataConversionWarning, NotFittedError

import mlp_xp.neural_network as ours
from documentation import documents
from mlp_xp.backend import Backend
from mlp_xp.cluster import KMeans
from mlp_xp.errors import DataError
from mlp_xp.neural_network import MLPClassifier, MLPRegressor

X, Y = load_iris(return_X_y=True)
FEW: dict[str, Any] = {"hidden_layer_sizes": (4,), "max_iter": 2, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba"])
def test_not_fitted(backend: Backend, method: str) -> None:
    with pytest.raises(NotFittedError, match="This MLPClassifier instance is not fitted yet"):
        getattr(MLPClassifier(), method)(backend.asarray(X, "float32"))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda X: X[0], "Expected 2D array, got 1D array instead"),
        (lambda X: X[:0], r"Found array with 0 sample\(s\) \(shape=\(0, 4\)\) while a minimum of 1 is required"),
        (lambda X: X[:, :0], r"Found array with 0 feature\(s\) \(shape=\(150, 0\)\) while a minimum of 1 is required"),
        (lambda X: X + np.where(np.arange(4) == 2, np.nan, 0), "Input X contains NaN"),
        (lambda X: X + np.where(np.arange(4) == 2, np.inf, 0), "Input X contains infinity or a value too large for"),
        (lambda X: X[:9], r"Found input variables with inconsistent numbers of samples: \[9, 150\]"),
    ],
)
def test_tables_that_are_none(backend: Backend, change: Any, text: str) -> None:
    wrong = change(X).astype(np.float64)
    with pytest.raises(ValueError, match=text):
        MLPClassifier(**FEW).fit(backend.asarray(wrong, "float64"), Y)
    with pytest.raises(ValueError, match=text):  # word for word
        theirs.MLPClassifier(**FEW).fit(wrong, Y)


def test_complex_numbers(backend: Backend) -> None:
    with pytest.raises(ValueError, match="Complex data not supported"):
        MLPClassifier(**FEW).fit(backend.asarray((X + 1j).astype(np.complex64)), Y)


def test_other_numbers_of_features(backend: Backend) -> None:
    classifier = MLPClassifier(**FEW).fit(backend.asarray(X, "float32"), Y)
    with pytest.raises(ValueError, match="X has 3 features, but MLPClassifier is expecting 4 features as input"):
        classifier.predict(backend.asarray(X[:, :3], "float32"))


def test_sparse_tables_get_one_clear_error() -> None:
    with pytest.raises(TypeError, match=r"Sparse data was passed for X, but dense data is required\. Use .\.toarray"):
        MLPClassifier(**FEW).fit(scipy.sparse.csr_array(X), Y)


@pytest.mark.parametrize(
    ("y", "text"),
    [
        (X[:, 0], "Unknown label type: continuous"),
        (np.stack([Y, Y], axis=1), "Multioutput target data is not supported"),
        (np.where(Y == 1, np.nan, Y), "Input y contains NaN"),
        (None, "requires y to be passed, but the target y is None"),
    ],
)
def test_labels_that_are_none(backend: Backend, y: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        MLPClassifier(**FEW).fit(backend.asarray(X, "float32"), y)


def test_a_column_of_labels_is_taken_with_a_warning() -> None:
    with pytest.warns(DataConversionWarning, match="A column-vector y was passed when a 1d array was expected"):
        MLPClassifier(**FEW).fit(X, Y[:, None])


@pytest.mark.parametrize("weights", [np.ones(3), np.full(150, -1.0), np.full(150, np.nan)])
def test_weights_that_are_none(backend: Backend, weights: Any) -> None:
    with pytest.raises(ValueError, match="sample_weight"):
        MLPRegressor(**FEW).fit(backend.asarray(X, "float32"), X[:, 0], sample_weight=weights)


@documents(
    momentum="Should be between",
    validation_fraction="Must be between",
    beta_1="Exponential decay rate",
    beta_2="Exponential decay rate",
)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("activation", "rectified"),
        ("solver", "newton"),
        ("alpha", -1.0),
        ("batch_size", 0),
        ("learning_rate", "falling"),
        ("learning_rate_init", 0.0),
        ("power_t", -1.0),
        ("max_iter", 0),
        ("shuffle", "yes"),
        ("tol", -1.0),
        ("momentum", 1.5),
        ("momentum", -0.1),
        ("validation_fraction", 1.0),
        ("validation_fraction", -0.1),
        ("beta_1", 1.0),
        ("beta_1", -0.1),
        ("beta_2", 1.0),
        ("beta_2", -0.1),
        ("epsilon", 0.0),
        ("n_iter_no_change", 0),
        ("max_fun", 0),
        ("hidden_layer_sizes", (3, 0)),
    ],
)
def test_parameters_out_of_range_are_refused_in_scikit_learns_words(name: str, value: Any) -> None:
    texts = []
    for module in (theirs, ours):
        with pytest.raises(ValueError, match=name) as caught:
            module.MLPRegressor(**{name: value}).fit(X, X[:, 0])
        texts.append(str(caught.value).rstrip("."))
    if name != "activation":  # there are more of them here
        assert texts[1].partition("{")[0] == texts[0].partition("{")[0]


@pytest.mark.parametrize(
    ("name", "value"), [("dropout", 1.0), ("max_gradient_norm", 0.0), ("callbacks", 3), ("arithmetic", "fuzzy")]
)
def test_what_is_new_is_checked_too(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"The '{name}' parameter of MLPRegressor must be"):
        MLPRegressor(**{name: value}).fit(X, X[:, 0])


def test_partial_fit_must_know_the_classes() -> None:
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        MLPClassifier(**FEW).partial_fit(X, Y)
    classifier = MLPClassifier(**FEW).partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="is not the same as on last call to partial_fit"):
        classifier.partial_fit(X, Y, classes=[0, 1])
    with pytest.raises(ValueError, match=r"`y` has classes not in `self\.classes_`"):
        classifier.partial_fit(X, Y + 1)
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        MLPClassifier(early_stopping=True).partial_fit(X, Y, classes=[0, 1, 2])
    with pytest.raises(AttributeError, match="has no attribute 'partial_fit'"):
        MLPClassifier(solver="lbfgs").partial_fit(X, Y, classes=[0, 1, 2])


def test_warm_start_must_see_the_same_classes() -> None:
    classifier = MLPClassifier(**FEW, warm_start=True).fit(X, Y)
    with pytest.raises(ValueError, match="warm_start can only be used where `y` has the same classes"):
        classifier.fit(X[:100], Y[:100])


def test_a_batch_larger_than_the_data_is_clipped_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="larger than sample size"):
        MLPClassifier(**FEW, batch_size=1000).fit(X, Y)


@pytest.mark.filterwarnings("always")
@pytest.mark.parametrize("settings", [{"batch_size": 1000}, {"solver": "lbfgs"}], ids=str)
def test_a_warning_points_at_the_line_that_called(settings: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="clipped|failed to converge") as caught:
        MLPClassifier(**FEW, **settings).fit(X, Y)
    assert {warning.filename for warning in caught} == {__file__}


def test_negative_counts(backend: Backend) -> None:
    with pytest.raises(ValueError, match=r"y has the value -1\.0: loss='poisson' takes no numbers below 0"):
        MLPRegressor(**FEW, loss="poisson").fit(backend.asarray(X, "float32"), Y - 1)


def test_too_few_validation_rows() -> None:
    with pytest.raises(ValueError, match="The validation set is too small"):
        MLPRegressor(**FEW, early_stopping=True, validation_fraction=0.001).fit(X, X[:, 0])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("solver", ["sgd", "lbfgs"])
def test_a_diverging_training_says_what_to_do(backend: Backend, solver: str) -> None:
    X_there = backend.asarray(X * 1e30, "float32")
    regressor = MLPRegressor(**FEW, solver=solver, learning_rate_init=1e3)
    with pytest.raises(ValueError, match=r"non-finite parameter weights.*need to be preprocessed"):
        regressor.fit(X_there, X[:, 0])


def test_ctrl_c_keeps_what_was_learnt() -> None:
    def interrupt(estimator: MLPClassifier) -> None:
        if estimator.n_iter_ == 2:
            raise KeyboardInterrupt

    classifier = MLPClassifier((4,), max_iter=9, random_state=0, callbacks=[interrupt])
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        classifier.fit(X, Y)
    assert classifier.n_iter_ == len(classifier.loss_curve_) == 2
    assert classifier.predict(X).shape == (150,)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_ctrl_c_in_the_first_epoch_leaves_the_initial_weights(
    monkeypatch: pytest.MonkeyPatch, early_stopping: bool
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mlp_xp.loop.Loop.run", interrupt)
    classifier = MLPClassifier((4,), max_iter=9, random_state=0, early_stopping=early_stopping)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        classifier.fit(X, Y)
    assert classifier.n_iter_ == len(classifier.loss_curve_) == 0
    assert classifier.predict(X).shape == (150,)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_sparse_targets_get_one_clear_error(kind: Any) -> None:
    table = scipy.sparse.csr_array(np.stack([Y == 0, Y > 0], axis=1).astype(int))
    partly = {"classes": [0, 1]} if kind is MLPClassifier else {}
    for method, more in (("fit", {}), ("partial_fit", partly)):
        with pytest.raises(TypeError, match=r"Sparse data was passed for y, but dense data is required\. Use .\.to"):
            getattr(kind(**FEW), method)(X, table, **more)


@pytest.mark.parametrize(
    "sizes",
    [
        "",
        b"\x05",
        10.5,
        "10",
        True,
        np.float64(4.0),
        [10.5],
        ["10"],
        [True],
        (3, np.True_),
        [[3, 4]],
        [None],
        np.array(7),
    ],
)
def test_layers_of_no_whole_number_of_units(sizes: Any) -> None:
    with pytest.raises(ValueError, match=r"hidden_layer_sizes.* must be an array-like of ints or an int in") as caught:
        MLPClassifier(hidden_layer_sizes=sizes).fit(X, Y)
    assert str(caught.value).endswith(f"Got {sizes!r} instead.")


@pytest.mark.parametrize("sizes", [np.int64(3), np.array([3]), (np.int32(3),), [3], 3])
def test_layers_of_any_whole_number(sizes: Any) -> None:
    assert MLPClassifier(**{**FEW, "hidden_layer_sizes": sizes}).fit(X, Y).coefs_[0].shape == (4, 3)


@pytest.mark.parametrize("weight", [-1, np.nan, np.inf, "heavy"])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_class_weights_that_are_none(method: str, weight: Any) -> None:
    classifier = MLPClassifier(**FEW, class_weight={0: 1.0, 1: weight, 2: 1.0})
    more = {"classes": [0, 1, 2]} if method == "partial_fit" else {}
    with pytest.raises(ValueError, match=f"class_weight has {weight!r} for the class 1: it must be a finite number"):
        getattr(classifier, method)(X, Y, **more)


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ({0: 0, 1: 0.0}, "has 0 for every class"),
        ([{0: 1.0}, {0: 0, 1: 0}], "must be a dict or"),
        ([3], "must be a dict or"),
        ({7: 2.0}, r"class_weight has the classes \[7\], but y has \[False, True\]"),
        ({False: 2.0, "True": 1.0}, r"class_weight has the classes \['True'\], but"),
    ],
)
def test_class_weights_that_do_not_fit_the_classes(weights: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        MLPClassifier(**FEW, class_weight=weights).fit(X, Y == 1)
    assert "class_weight" in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ({0: 1.0}, "a list of dicts, one for every label: 2 here"),
        ([{0: 1.0}], "a list of dicts, one for every label: 2 here"),
        ([{0: 1.0}, "balanced"], "a list of dicts, one for every label: 2 here"),
        ([{0: 1.0}, {1: -2.0}], "class_weight has -2.0 for the class 1"),
        ([{0: 1.0}, {0: 0.0, 1: 0.0}], "has 0 for every class"),
    ],
)
def test_class_weights_that_do_not_fit_the_labels_of_a_row(weights: Any, text: str) -> None:
    table = np.stack([Y == 0, Y > 0], axis=1).astype(int)
    with pytest.raises(ValueError, match=text):
        MLPClassifier(**FEW, class_weight=weights).fit(X, table)


def test_rows_that_the_type_of_the_fit_cannot_hold(backend: Backend) -> None:
    regressor = MLPRegressor(**FEW).fit(backend.asarray(X, "float32"), Y)
    place = backend.asarray(X * 1e39, "float64")
    words = r"X contains a value too large for (\w+\.)?float32, in which this MLPRegressor was fitted"
    with pytest.raises(ValueError, match=words):
        regressor.predict(place)
    with pytest.raises(ValueError, match=words):
        regressor.partial_fit(place, Y)
    assert regressor.predict(backend.asarray(X, "float64")).dtype == place.dtype


def test_two_classes_of_which_one_has_a_single_row_cannot_be_split() -> None:
    for module in (theirs, ours):
        with pytest.raises(ValueError, match="The least populated classes in y have only 1 member"):
            module.MLPClassifier(**FEW, early_stopping=True).fit(X[:51], Y[:51])


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_weights_of_rows_and_of_classes_that_leave_nothing(solver: str) -> None:
    classifier = MLPClassifier(**FEW, solver=solver, class_weight={0: 0.0})
    with pytest.raises(ValueError, match="leave no row with a weight above 0"):
        classifier.fit(X[:100], Y[:100], sample_weight=(Y[:100] == 0) * 1.0)
    if solver != "lbfgs":  # a batch may be of rows that do not count
        assert classifier.partial_fit(X[:50], Y[:50], classes=[0, 1]).loss_ == 0.0


def test_class_weights_may_name_classes_that_these_rows_have_not() -> None:
    given = MLPClassifier(**FEW, class_weight={0: 2.0, 1: 1.0, 9: 5.0}).fit(X[:100], Y[:100])
    assert given.loss_curve_ == MLPClassifier(**FEW, class_weight={0: 2.0}).fit(X[:100], Y[:100]).loss_curve_


def test_callbacks_that_cannot_be_called() -> None:
    with pytest.raises(ValueError, match=r"callbacks=\[3\] must be a list of callables or None"):
        MLPClassifier(**FEW, callbacks=[3]).fit(X, Y)


def test_a_column_that_exact_arithmetic_rounds_to_nothing(backend: Backend) -> None:
    table = np.column_stack([X[:, 0] * 1e6, X[:, 1] * 1e-3])
    place = backend.asarray(table, "float64")
    for estimator in (MLPClassifier(**FEW, arithmetic="exact"), KMeans(3, arithmetic="exact", random_state=0)):
        with pytest.warns(UserWarning, match="column 1, counted from 0, varies by 0.0024, but the largest") as found:
            estimator.fit(place, Y)
        assert found[0].filename == __file__
        assert "arithmetic='native'" in str(found[0].message)


def test_sparse_tensors_of_pytorch() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    with pytest.raises(DataError, match=r"this PyTorch tensor is sparse \(torch.sparse_coo\); call its to_dense"):
        MLPClassifier(**FEW).fit(torch.tensor(X).to_sparse(), Y)


def test_the_method_that_was_called_is_named(backend: Backend) -> None:
    place = backend.asarray(X, "float64")
    if isinstance(place, np.ndarray):
        return  # where else could it be
    classifier = MLPClassifier(**FEW).fit(X, Y)
    with pytest.raises(ValueError, match=r"Inputs passed to MLPClassifier\.partial_fit\(\) must use the same"):
        classifier.partial_fit(place, Y)


def test_an_estimator_of_ours_is_none_of_scikit_learns() -> None:
    with pytest.raises(TypeError, match=r"of scikit-learn's is wanted, not mlp_xp\.neural_network\.MLPClassifier"):
        ours.from_sklearn(MLPClassifier(**FEW).fit(X, Y))
