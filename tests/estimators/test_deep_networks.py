"""Shortcuts, batch normalisation and layer-wise pre-training in the estimators."""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris

from mlp_xp.array_types import leaves
from mlp_xp.backend import Backend
from mlp_xp.network import Layer, NormalizedLayer
from mlp_xp.neural_network import MLPClassifier, MLPRegressor
from mlp_xp.randomness import PRETRAINING, dropout_keys

X, Y = load_iris(return_X_y=True)
FEW: dict[str, Any] = {"hidden_layer_sizes": (4, 4), "max_iter": 5, "batch_size": 40, "random_state": 0}
ALL: dict[str, Any] = {"residual": True, "batch_norm": True, "pretrain": "layerwise"}
PLAIN: Any = MLPClassifier(**FEW).partial_fit(X, Y, classes=[0, 1, 2]).state_dict()
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("options", [{name: ALL[name]} for name in ALL] + [ALL], ids=[*ALL, "all"])
@pytest.mark.parametrize("arithmetic", ["native", "exact"])
def test_everything_follows_x(backend: Backend, options: dict[str, Any], arithmetic: str) -> None:
    dtype = "float64" if arithmetic == "exact" else "float32"
    place = backend.asarray(X, dtype)
    settings = {**FEW, **options, "arithmetic": arithmetic}
    classifier = MLPClassifier(**settings).fit(place, Y)
    n = 2 if classifier.batch_norm else 0
    assert len(classifier.scales_) == len(classifier.running_means_) == len(classifier.running_variances_) == n
    for array in (*leaves(classifier._parameters), classifier.predict_proba(place)):
        assert type(array) is type(place)
        assert array.dtype == place.dtype
        assert array_api_compat.device(array) == array_api_compat.device(place)
    here = MLPClassifier(**settings).fit(X.astype(dtype), Y)
    if arithmetic == "exact":
        assert classifier.loss_curve_ == here.loss_curve_
        np.testing.assert_array_equal(
            backend.to_host(classifier.predict_proba(place)), here.predict_proba(X.astype(dtype))
        )
    else:
        assert classifier.loss_curve_ == pytest.approx(here.loss_curve_, rel=1e-4)
    assert here.loss_curve_ != MLPClassifier(**FEW, arithmetic=arithmetic).fit(X.astype(dtype), Y).loss_curve_
    classifier.move_to(np.empty(0))
    np.testing.assert_allclose(classifier.predict_proba(X), here.predict_proba(X), rtol=1e-3)


def test_weights_are_repetitions() -> None:
    """Also for the statistics of a batch; but the variance's estimate does not know that they are numbers of rows."""
    weights = np.arange(81) % 3
    rows = np.repeat(np.arange(81), weights)
    options = {**FEW, "batch_norm": True, "residual": True, "max_iter": 1, "shuffle": False, "alpha": 0.0}
    weighted, repeated = (
        MLPRegressor(**{**options, "batch_size": len(given)}).fit(X[given], X[given, 0], sample_weight=shares)
        for given, shares in ((np.arange(81), weights), (rows, None))
    )
    for name in ("coefs_", "intercepts_", "scales_", "running_means_"):
        for one, other in zip(getattr(weighted, name), getattr(repeated, name), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10)
    assert weighted.loss_ == pytest.approx(repeated.loss_, rel=1e-12)


def test_rows_that_fill_up_a_last_batch_do_not_count() -> None:
    options = {**FEW, "batch_norm": True, "max_iter": 1, "shuffle": False, "alpha": 0.0}
    whole = MLPClassifier(**{**options, "batch_size": 50}).fit(X[:75], Y[:75])
    parts = MLPClassifier(**{**options, "batch_size": "auto"}).partial_fit(X[:50], Y[:50], classes=[0, 1])
    parts.partial_fit(X[50:75], Y[50:75])
    for one, other in zip(leaves(whole._parameters), leaves(parts._parameters), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_a_last_batch_of_one_row_leaves_the_statistics_alone() -> None:
    options = {**FEW, "batch_norm": True, "max_iter": 1, "shuffle": False}
    uneven = MLPRegressor(**{**options, "batch_size": 50}).fit(X[:51], X[:51, 0])
    even = MLPRegressor(**{**options, "batch_size": 50}).fit(X[:50], X[:50, 0])
    for one, other in zip(uneven.running_variances_, even.running_variances_, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    for one, other in zip(uneven.running_means_, even.running_means_, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    assert np.any(uneven.intercepts_[-1] != even.intercepts_[-1])


def test_pretraining_takes_weights_as_they_are() -> None:
    """Rows without weight are not there; so also the penalty is that of the others."""
    options = {**FEW, "max_iter": 1, "shuffle": False, "pretrain": "layerwise", "pretrain_epochs": 3, "alpha": 0.1}
    weights = (np.arange(150) % 3 > 0) * 1.0
    given = MLPClassifier(**{**options, "batch_size": 150}).fit(X, Y, sample_weight=weights)
    alone = MLPClassifier(**{**options, "batch_size": 100}).fit(X[weights > 0], Y[weights > 0])
    for one, other in zip(leaves(given._parameters), leaves(alone._parameters), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10)


def test_every_epoch_of_pretraining_leaves_out_other_units(monkeypatch: pytest.MonkeyPatch) -> None:
    epochs: list[int] = []

    def noted(n_steps: int, n_hidden: int, seed: int, epoch: int) -> Any:
        epochs.append(epoch)
        return dropout_keys(n_steps, n_hidden, seed, epoch)

    monkeypatch.setattr("mlp_xp.estimators.stochastic.dropout_keys", noted)
    MLPClassifier(**{**FEW, "max_iter": 2}, dropout=0.2, pretrain="layerwise", pretrain_epochs=3).fit(X, Y)
    assert epochs == [*range(PRETRAINING, PRETRAINING + 6), 0, 1]


def test_an_interrupted_pretraining_keeps_what_was_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    def say(_: Any, text: str) -> None:
        lines.append(text)
        if len(lines) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(MLPClassifier, "_say", say)
    options = {**FEW, "pretrain": "layerwise", "pretrain_epochs": 2, "early_stopping": True}
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        stopped = MLPClassifier(**options).fit(X, Y)
    assert len(lines) == 2
    start = MLPClassifier(**{**FEW, "max_iter": 1}).partial_fit(X, Y, classes=[0, 1, 2])
    assert np.max(np.abs(stopped.coefs_[0] - start.coefs_[0])) > 1e-3
    assert stopped.predict(X).shape == (150,)


def test_a_training_goes_on_by_partial_fit() -> None:
    options = {**FEW, "residual": True, "batch_norm": True, "shuffle": False}
    whole = MLPClassifier(**options).fit(X, Y)
    step = MLPClassifier(**options)
    for _ in range(5):
        step.partial_fit(X, Y, classes=[0, 1, 2])
    assert step.loss_curve_ == whole.loss_curve_
    for one, other in zip(leaves(step._parameters), leaves(whole._parameters), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_training_that_goes_on_is_not_pretrained_again() -> None:
    said: list[int] = []
    options = {**FEW, "pretrain": "layerwise", "pretrain_epochs": 3, "learning_rate_init": 0.01, "warm_start": True}
    classifier = MLPClassifier(**options, callbacks=[lambda one: said.append(len(one.loss_curve_))]).fit(X, Y)
    before = classifier.loss_curve_[-1]
    classifier.fit(X, Y)
    assert said == [*range(1, 11)]
    assert classifier.loss_curve_[5] < 1.05 * before
    again = MLPClassifier(**{**options, "warm_start": False}).fit(X, Y)
    assert again.loss_curve_ == classifier.loss_curve_[:5]


def test_pretraining_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    MLPClassifier(**{**FEW, "max_iter": 1}, pretrain="layerwise", pretrain_epochs=2, verbose=True).fit(X, Y)
    lines = [line.partition(", loss")[0] for line in capsys.readouterr().out.splitlines()]
    layers = [f"Pre-training of layer {layer}, epoch {epoch}" for layer in (0, 1) for epoch in (1, 2)]
    assert lines == [*layers, "Iteration 1"]


@pytest.mark.parametrize("option", ["residual", "batch_norm", "pretrain"])
def test_they_help_a_deep_sigmoid_network(option: str) -> None:
    digits, labels = load_digits(return_X_y=True)
    deep: dict[str, Any] = {
        "hidden_layer_sizes": (32,) * 8,
        "activation": "logistic",
        "solver": "sgd",
        "learning_rate_init": 0.05,
        "batch_size": 50,
        "max_iter": 15,
        "pretrain_epochs": 10,
        "random_state": 0,
    }
    plain = MLPClassifier(**deep).fit(digits / 16, labels)
    helped = MLPClassifier(**{**deep, option: ALL[option]}).fit(digits / 16, labels)
    assert plain.score(digits / 16, labels) < 0.3 < 0.6 < helped.score(digits / 16, labels)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_onnx_predicts_the_same(batch_norm: bool) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    rows = X.astype(np.float32)
    for activation in ("relu", "silu"):
        classifier = MLPClassifier(**{**FEW, "activation": activation}, residual=True, batch_norm=batch_norm)
        model = classifier.fit(rows, Y).to_onnx()
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        _, probabilities = session.run(None, {"X": rows})
        np.testing.assert_allclose(
            probabilities, classifier.predict_proba(rows), atol=16 * float(np.finfo(np.float32).eps)
        )


def test_a_state_dict_with_batch_normalisation_is_pytorchs(backend: Backend) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    place = backend.asarray(X, "float32")
    classifier = MLPClassifier(**{**FEW, "activation": "tanh"}, batch_norm=True).fit(place, Y)
    nn = torch.nn
    state = {key: torch.asarray(np.array(backend.to_host(array))) for key, array in classifier.state_dict().items()}
    for has_bias in (False, True):
        normal = [nn.Linear(4, 4, bias=has_bias), nn.BatchNorm1d(4), nn.Tanh()]
        again = [nn.Linear(4, 4, bias=has_bias), nn.BatchNorm1d(4), nn.Tanh()]
        network = nn.Sequential(*normal, *again, nn.Linear(4, 3), nn.Softmax(1))
        network.load_state_dict(state, strict=not has_bias)  # biases that we do not have stay as they are drawn
        network.eval()
        rows = torch.asarray(X, dtype=torch.float32)
        with torch.no_grad():
            theirs = network(rows)
        other = MLPClassifier(**{**FEW, "activation": "tanh", "random_state": 1}, batch_norm=True).fit(X, Y)
        other.load_state_dict(network.state_dict())
        np.testing.assert_allclose(other.predict_proba(rows), theirs, atol=1e-6)
        if not has_bias:
            np.testing.assert_allclose(backend.to_host(classifier.predict_proba(place)), theirs.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state.pop("1.running_var"), "must have a weight and a bias of every layer"),
        (lambda state: state.update({"1.running_var": -state["1.running_var"]}), r"1\.running_var has numbers below 0"),
        (lambda state: state.update({"1.running_mean": np.ones(3)}), r"0\.weight has the shape \(4, 4\) and what goes"),
        (
            lambda state: [state.pop(f"6.{name}") for name in ("weight", "bias")],
            "normalisation after its last layer",
        ),
        (
            lambda state: (
                [state.pop(f"4.{name}") for name in ("weight", "running_mean", "running_var")]
                and state.update({"3.bias": state.pop("4.bias")})
            ),
            "batch normalisation after some layers alone: an estimator has it after all",
        ),
        (
            lambda state: [state.update({f"2.{key[2:]}": state.pop(key)}) for key in [*state] if key[0] == "1"],
            "must have a weight and a bias of every layer",
        ),
        (
            lambda state: [
                *[state.update({f"2.{key[2:]}": state.pop(key)}) for key in [*state] if key[0] == "1"],
                state.update({"0.bias": np.zeros(4)}),
            ],
            r"2\.weight has the shape \(4,\)",
        ),
        (lambda state: state.clear() or state.update(PLAIN), "no batch normalisation, but batch_norm=True"),
    ],
)
def test_a_state_dict_of_something_else_is_refused(change: Any, reason: str) -> None:
    classifier = MLPClassifier(**FEW, batch_norm=True).fit(X, Y)
    state = dict(classifier.state_dict())
    change(state)
    with pytest.raises(ValueError, match=reason):
        classifier.load_state_dict(state)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"batch_norm": True, "solver": "lbfgs"}, "batch_norm=True needs solver='sgd' or 'adam'"),
        ({"pretrain": "layerwise", "solver": "lbfgs"}, "pretrain='layerwise' needs solver='sgd' or 'adam'"),
        ({"batch_norm": True, "batch_size": 1}, "batch_norm=True needs batches of at least 2 rows, but batch_size=1"),
        (
            {"residual": True, "hidden_layer_sizes": (5, 3)},
            r"as inputs, but the layers are \(4, 5, 3, 3\)",
        ),
        ({"pretrain": "layers"}, "The 'pretrain' parameter of MLPClassifier must be"),
        ({"pretrain_epochs": 0}, "The 'pretrain_epochs' parameter of MLPClassifier must be"),
        ({"residual": "yes"}, "The 'residual' parameter of MLPClassifier must be"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        MLPClassifier(**{**FEW, **settings}).fit(X, Y)


def test_what_cannot_go_on_or_be_taken_elsewhere_is_refused() -> None:
    with pytest.raises(ValueError, match="partial_fit does not support pretrain='layerwise'"):
        MLPClassifier(**FEW, pretrain="layerwise").partial_fit(X, Y, classes=[0, 1, 2])
    classifier = MLPClassifier(**FEW, batch_norm=True, warm_start=True).fit(X, Y)
    classifier.set_params(batch_norm=False)
    with pytest.raises(ValueError, match="has batch normalisation, but batch_norm=False; give what it was fitted with"):
        classifier.fit(X, Y)
    plain = MLPClassifier(**FEW, warm_start=True).fit(X, Y).set_params(batch_norm=True)
    with pytest.raises(ValueError, match="has no batch normalisation, but batch_norm=True"):
        plain.fit(X, Y)
    for name in ("residual", "batch_norm"):
        with pytest.raises(ValueError, match=f"{name}=True: scikit-learn has nothing of the kind"):
            MLPClassifier(**{**FEW, name: True}).fit(X, Y).to_sklearn()
    with pytest.raises(ValueError, match="batch_norm=True: scikit-learn has nothing of the kind"):
        MLPClassifier(**FEW, batch_norm=True).fit(X, Y).set_params(batch_norm=False).to_sklearn()


def test_layers_are_named_for_what_they_are() -> None:
    classifier = MLPClassifier(**FEW, batch_norm=True).fit(X, Y)
    assert [type(layer) for layer in classifier._parameters] == [NormalizedLayer, NormalizedLayer, Layer]
    again = classifier.set_params(batch_norm=False).fit(X, Y)
    assert again.scales_ == again.running_means_ == again.running_variances_ == []
