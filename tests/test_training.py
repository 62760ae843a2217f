"""The epoch loop: one curve on every backend, and what an epoch is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import PoissonRegressor
from sklearn.metrics import mean_poisson_deviance

from mlp_xp.backend import Backend
from mlp_xp.datasets import Dataset, Split, load
from mlp_xp.errors import DataError, SettingsError, TrainingDiverged
from mlp_xp.initializers import initial_parameters
from mlp_xp.randomness import batch_order
from mlp_xp.settings import Settings
from mlp_xp.trainer import Trainer
from mlp_xp.training import Epoch, train

SETTINGS = Settings(hidden_layer_sizes=(32,), batch_size=100, epochs=3)
# Rounding errors grow by less than 1,000 in these 42 steps; a wrong formula is off in the first digits.
ULPS = 1000.0


def toy(n: int = 60, n_classes: int = 2) -> Split:
    """Return a small problem of random rows whose class is decided by the first feature."""
    features = np.random.default_rng(0).normal(size=(n, 5))
    edges = np.quantile(features[:, 0], np.linspace(0, 1, n_classes + 1)[1:-1])
    return Dataset("toy", features, np.searchsorted(edges, features[:, 0]).astype(np.int32), n_classes).split()


def curve(epochs: list[Epoch]) -> np.ndarray:
    return np.concatenate([epoch.step_losses for epoch in epochs])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adam", "learning_rate": 0.01, "activation": "sigmoid", "l2": 0.001},
        {"momentum": 0.9, "nesterov": True, "learning_rate": 0.02, "loss": "binary_cross_entropy"},
        {"loss": "squared_error", "activation": "tanh", "hidden_layer_sizes": (16, 16)},
        {"dropout": 0.3, "max_gradient_norm": 0.3, "activation": "tanh", "hidden_layer_sizes": (16, 16)},
    ],
    ids=["sgd", "adam", "nesterov", "squared error", "dropout"],
)
def test_every_backend_draws_the_same_curve(
    backend: Backend, numpy_backend: Backend, digits: Split, changes: dict[str, object], dtype: str
) -> None:
    settings = replace(SETTINGS, dtype=dtype, **changes)  # type: ignore[arg-type]
    epochs, reference = (list(train(settings, digits, each)) for each in (backend, numpy_backend))
    tolerance = ULPS * float(np.finfo(dtype).eps) * float(np.max(curve(reference)))
    assert float(np.max(np.abs(curve(epochs) - curve(reference)))) <= tolerance
    for epoch, expected in zip(epochs, reference, strict=True):
        assert abs(epoch.test_loss - expected.test_loss) <= tolerance
        assert epoch.accuracy == pytest.approx(expected.accuracy, abs=1.5 / digits.test.n_samples)
        for layer in epoch.model.parameters:
            for array in layer:
                assert array.dtype == getattr(backend.xp, dtype)


def test_it_learns(backend: Backend, digits: Split) -> None:
    *_, last = train(replace(SETTINGS, epochs=8, batch_size=20), digits, backend)
    assert last.accuracy is not None
    assert last.accuracy > 0.9


def test_the_same_call_gives_the_same_bits(backend: Backend, digits: Split) -> None:
    first, second = (curve(list(train(SETTINGS, digits, backend))) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_another_seed_gives_another_curve(numpy_backend: Backend, digits: Split) -> None:
    first, second = (curve(list(train(replace(SETTINGS, seed=s), digits, numpy_backend))) for s in (0, 1))
    assert not np.any(first == second)


def test_the_units_that_are_left_out_are_the_seeds(
    numpy_backend: Backend, digits: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the epoch's; all else that these decide stays the same here, and nothing is learnt."""
    monkeypatch.setattr("mlp_xp.trainer.batch_order", lambda n, size, _seed, _epoch: batch_order(n, size, 0, 0))
    initial = initial_parameters((64, 32, 10), "pytorch", 0)

    def losses(**changes: Any) -> list[Any]:
        settings = replace(SETTINGS, learning_rate=1e-30, epochs=2, **changes)
        return [epoch.step_losses for epoch in train(settings, digits, numpy_backend, initial=initial)]

    first, second = losses(dropout=0.5)
    np.testing.assert_array_equal(losses(dropout=0.5), [first, second])
    np.testing.assert_array_equal([*losses(), *losses(seed=1)], [losses()[0]] * 4)
    for other in (second, losses(dropout=0.5, seed=1)[0], losses(dropout=0.25)[0], losses()[0]):
        assert not np.any(other == first)


def test_no_unit_is_left_out_where_nothing_is_learnt(backend: Backend, digits: Split) -> None:
    settings = replace(SETTINGS, dropout=0.9, epochs=1, dtype="float64")
    (epoch,) = train(settings, digits, backend)
    hidden, last = epoch.model.host_parameters()
    units = np.maximum(digits.test.features / 16.0 @ hidden.weight + hidden.bias, 0.0)
    exponentials = np.exp(units @ last.weight + last.bias)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(epoch.model.predict(digits.test.features).values, probabilities, rtol=1e-12)
    losses = -np.log(probabilities[np.arange(digits.test.n_samples), digits.test.targets])
    assert abs(epoch.test_loss - np.mean(losses)) < 1e-12


def test_without_hidden_units_none_is_left_out(backend: Backend, digits: Split) -> None:
    with_dropout, without = (
        curve(list(train(replace(SETTINGS, hidden_layer_sizes=(), dropout=rate), digits, backend)))
        for rate in (0.5, 0.0)
    )
    np.testing.assert_array_equal(with_dropout, without)


def test_no_step_is_longer_than_allowed(backend: Backend, digits: Split) -> None:
    """One step per epoch; the penalty's part of the gradient counts."""
    rate, largest = 0.5, 0.125
    settings = Settings((8,), learning_rate=rate, l2=0.1, batch_size=1437, epochs=4, dtype="float64")

    def lengths(settings: Settings) -> np.ndarray:
        epochs = train(settings, digits, backend)
        points = [initial_parameters((64, 8, 10), "pytorch", 0), *(epoch.model.host_parameters() for epoch in epochs)]
        flat = [np.concatenate([np.ravel(array) for layer in point for array in layer]) for point in points]
        steps: np.ndarray = np.linalg.norm(np.diff(flat, axis=0), axis=1)
        return steps

    assert np.all(lengths(settings) > 2 * rate * largest)
    np.testing.assert_allclose(lengths(replace(settings, max_gradient_norm=largest)), rate * largest, rtol=1e-12)


def test_an_epoch_is_the_mean_of_its_batches_and_drops_the_partial_one(numpy_backend: Backend, digits: Split) -> None:
    for epoch in train(SETTINGS, digits, numpy_backend):
        assert epoch.step_losses.shape == (1437 // 100,)
        assert epoch.loss == float(np.mean(epoch.step_losses))
        assert epoch.seconds > 0


def test_a_loss_is_taken_before_its_step(numpy_backend: Backend) -> None:
    """With parameters at zero all classes are equally likely, so the first loss is log(n_classes)."""
    data = toy(n_classes=4)
    zeros = tuple(
        layer._replace(weight=layer.weight * 0, bias=layer.bias * 0)
        for layer in initial_parameters((5, 8, 4), "pytorch", 0)
    )
    settings = Settings(hidden_layer_sizes=(8,), batch_size=10, epochs=1, dtype="float64")
    (epoch,) = train(settings, data, numpy_backend, initial=zeros)
    assert abs(epoch.step_losses[0] - np.log(4)) < 1e-15


def test_every_test_row_counts(backend: Backend) -> None:
    """Also where the rows do not fill the last chunk: one more than are best at once make two chunks, one padded."""
    data = toy()
    n = backend.rows_at_once + 1
    rows = np.arange(n) % data.train.n_samples
    big = Split(data.train, data.train.take(rows))
    settings = Settings(hidden_layer_sizes=(4,), batch_size=48, epochs=1, dtype="float64")
    (epoch,) = train(settings, big, backend)
    labels, probabilities = epoch.model.predict(data.train.features)
    assert labels is not None
    losses = -np.log(probabilities[np.arange(labels.size), data.train.targets])
    assert abs(epoch.test_loss - np.mean(losses[rows])) <= 1e-13
    assert epoch.accuracy == np.mean((labels == data.train.targets)[rows])


def test_bytes_are_scaled_where_they_are_used(backend: Backend, digits: Split) -> None:
    assert digits.train.features.dtype == np.uint8
    floats = Split(*(replace(d, features=d.features / 16.0, scale=1.0) for d in digits))
    as_bytes, as_floats = (curve(list(train(SETTINGS, data, backend))) for data in (digits, floats))
    np.testing.assert_array_equal(as_bytes, as_floats)


def test_two_classes_with_one_output(backend: Backend) -> None:
    settings = Settings(
        hidden_layer_sizes=(8,), batch_size=8, epochs=40, learning_rate=0.5, loss="binary_cross_entropy"
    )
    data = toy(200)
    *_, last = train(settings, data, backend)
    assert last.model.objective.network.layer_sizes == (5, 8, 1)
    assert last.accuracy is not None
    assert last.accuracy > 0.9
    labels, probabilities = last.model.predict(data.test.features)
    np.testing.assert_array_equal(labels, (probabilities[:, 0] > 0.5).astype(np.int64))


def test_a_regression_has_no_accuracy(backend: Backend) -> None:
    features = np.random.default_rng(0).normal(size=(200, 3))
    targets = features @ np.asarray([[1.0], [-2.0], [0.5]]) + 0.25
    data = Dataset("line", features, targets, None).split()
    settings = Settings(hidden_layer_sizes=(), loss="squared_error", batch_size=20, epochs=60, dtype="float64")
    *_, last = train(settings, data, backend)
    assert last.accuracy is None
    assert last.test_loss < 1e-12
    prediction = last.model.predict(data.test.features)
    assert prediction.labels is None
    np.testing.assert_allclose(prediction.values, data.test.targets, atol=1e-6)
    assert last.summary().endswith(f"{last.test_loss:.4f}")


def counts(n: int = 400) -> Dataset:
    """Return numbers of events, many of them 0, whose logarithms' means are linear in the features."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, 3))
    means = np.exp(features @ np.asarray([[0.5, 0.0], [-0.75, 0.25], [0.0, 0.5]]) + [0.25, -0.5])
    return Dataset("counts", features, rng.poisson(means).astype(np.float64), None)


COUNTING = Settings((), loss="poisson", batch_size=20, epochs=40, learning_rate=0.05, dtype="float64")


@pytest.mark.parametrize(
    "changes", [{}, {"dtype": "float32"}, {"arithmetic": "exact"}], ids=["float64", "float32", "exact"]
)
def test_counts_are_learnt(backend: Backend, numpy_backend: Backend, changes: dict[str, Any]) -> None:
    """The best linear model is known: where the deviance's gradient is 0, scikit-learn finds it."""
    data, settings = counts().split(), replace(COUNTING, **changes)
    epochs, reference = (list(train(settings, data, each)) for each in (backend, numpy_backend))
    if settings.arithmetic == "exact":
        assert epochs[-1].digests == reference[-1].digests
    tolerance = ULPS * float(np.finfo(settings.dtype).eps) * float(np.max(curve(reference)))
    assert float(np.max(np.abs(curve(epochs) - curve(reference)))) <= tolerance
    last = epochs[-1]
    assert last.accuracy is None
    labels, values = last.model.predict(data.test.features)
    assert labels is None
    deviances = [mean_poisson_deviance(data.test.targets[:, i], values[:, i].astype(np.float64)) for i in range(2)]
    assert last.test_loss == pytest.approx(sum(deviances) / 2, rel=1e-5)
    best = [PoissonRegressor(alpha=0.0, tol=1e-8).fit(data.train.features, data.train.targets[:, i]) for i in range(2)]
    layer = last.model.host_parameters()[0]
    np.testing.assert_allclose(layer.weight.T, [model.coef_ for model in best], atol=0.1)
    np.testing.assert_allclose(layer.bias, [model.intercept_ for model in best], atol=0.1)


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize(
    ("value", "arithmetic", "message"),
    [
        (
            -1.5,
            "native",
            r"-1\.5, but the loss 'poisson' takes none below 0; correct or .*, or use --loss squared_error",
        ),
        (1e19, "exact", r"1e\+19, but the loss 'poisson' takes none above 2\*\*63 in exact arithmetic; choose another"),
    ],
)
def test_numbers_that_a_loss_does_not_take_are_refused_at_once(
    numpy_backend: Backend, part: str, value: float, arithmetic: str, message: str
) -> None:
    data, settings = counts().split(), replace(COUNTING, arithmetic=arithmetic)
    wrong = getattr(data, part).targets.copy()
    wrong[7, 1] = value
    data = data._replace(**{part: replace(getattr(data, part), targets=wrong)})
    place = f"counts: row 7 of the {'training' if part == 'train' else 'test'} set, column 1 "
    with pytest.raises(DataError, match=rf"{place}\(both counted from 0\): the number to predict is {message}"):
        train(settings, data, numpy_backend)
    others = {"loss": "squared_error"} if value < 0 else {"arithmetic": "native"}
    train(replace(settings, **others), data, numpy_backend)  # type: ignore[arg-type]


def test_classes_are_no_numbers_of_events(numpy_backend: Backend) -> None:
    with pytest.raises(SettingsError, match="loss = 'poisson': takes numbers ≥ 0 to predict, not classes; choose"):
        train(replace(SETTINGS, loss="poisson", batch_size=2), toy(), numpy_backend)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("arithmetic", ["native", "exact"])
def test_a_prediction_that_is_not_finite_stops_training(backend: Backend, arithmetic: str) -> None:
    with pytest.raises(TrainingDiverged, match=r"epoch 0, step \d+: the loss is (inf|nan); .*; try a smaller"):
        list(train(replace(COUNTING, learning_rate=1e3, arithmetic=arithmetic), counts().split(), backend))


def test_the_summary_is_the_labs_line(numpy_backend: Backend, digits: Split) -> None:
    (epoch,) = train(replace(SETTINGS, epochs=1), digits, numpy_backend)
    assert epoch.accuracy is not None
    assert epoch.summary() == "#summary:% 4d %.4f %.2f%%" % (0, epoch.loss, 100 * epoch.accuracy)


def test_batches_larger_than_the_data_are_refused_at_once(numpy_backend: Backend) -> None:
    with pytest.raises(SettingsError, match=r"batch_size = 49: there are only 48 rows to train on"):
        train(replace(SETTINGS, batch_size=49), toy(), numpy_backend)


def test_a_loss_that_does_not_fit_the_data_is_refused(numpy_backend: Backend) -> None:
    data = Dataset("line", np.zeros((9, 2)), np.zeros((9, 1)), None).split()
    with pytest.raises(SettingsError, match="a regression needs 'squared_error'"):
        train(replace(SETTINGS, batch_size=2), data, numpy_backend)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_a_loss_that_is_not_finite_stops_training(backend: Backend) -> None:
    data = toy(200)
    settings = Settings(hidden_layer_sizes=(8,), batch_size=10, learning_rate=1e30, loss="squared_error")
    with pytest.raises(TrainingDiverged, match=r"epoch 0, step \d+: the loss is (inf|nan); .*; try a smaller"):
        list(train(settings, data, backend))


def test_rows_that_are_not_split_are_refused(numpy_backend: Backend) -> None:
    with pytest.raises(SettingsError, match=r"data is a Dataset: give what its split\(\) returns"):
        train(SETTINGS, load("digits"), numpy_backend)  # type: ignore[arg-type]


def regression(n_targets: int) -> Dataset:
    return Dataset("line", np.zeros((9, 5)), np.zeros((9, n_targets)), None)


@pytest.mark.parametrize(
    ("train_set", "test_set", "message"),
    [
        (toy().train, replace(toy().test, features=np.zeros((12, 4))), "n_features = 4 in the test set, but 5 in the"),
        (toy().train, replace(toy().test, n_classes=3), "n_classes = 3 in the test set, but 2 in the training set"),
        (toy().train, replace(toy().test, scale=0.5), "scale = 0.5 in the test set, but 1.0 in the training set"),
        (regression(1), regression(2), "n_targets = 2 in the test set, but 1 in the training set"),
    ],
)
def test_a_test_set_of_another_kind_is_refused_at_once(
    numpy_backend: Backend, train_set: Dataset, test_set: Dataset, message: str
) -> None:
    with pytest.raises(DataError, match=f"{test_set.name}: {message}.*; give two parts of one data set"):
        train(replace(SETTINGS, loss="squared_error", batch_size=2), Split(train_set, test_set), numpy_backend)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((5, 8), "initial: 1 layers, but the network has 2"),
        ((5, 7, 2), r"initial: the weight of layer 0 has the shape \(5, 7\), not \(5, 8\)"),
        ((5, 8, 3), r"initial: the weight of layer 1 has the shape \(8, 3\), not \(8, 2\)"),
    ],
)
def test_initial_parameters_that_do_not_fit_are_refused_at_once(
    numpy_backend: Backend, sizes: tuple[int, ...], message: str
) -> None:
    settings = Settings(hidden_layer_sizes=(8,), batch_size=10)
    with pytest.raises(SettingsError, match=message):
        train(settings, toy(), numpy_backend, initial=initial_parameters(sizes, "pytorch", 0))


def test_an_initial_bias_that_does_not_fit_is_refused(numpy_backend: Backend) -> None:
    """It could be broadcast, and would then be trained in the wrong shape."""
    first, second = initial_parameters((5, 8, 2), "pytorch", 0)
    initial = (first._replace(bias=np.zeros((1, 8))), second)
    with pytest.raises(SettingsError, match=r"initial: the bias of layer 0 has the shape \(1, 8\), not \(8,\)"):
        train(Settings(hidden_layer_sizes=(8,), batch_size=10), toy(), numpy_backend, initial=initial)


def test_initial_parameters_may_be_written_to_afterwards(backend: Backend) -> None:
    settings = Settings(hidden_layer_sizes=(8,), batch_size=10, epochs=1, dtype="float64")
    initial = initial_parameters((5, 8, 2), "pytorch", 0)
    epochs = train(settings, toy(), backend, initial=initial)
    initial[0].weight[:] = 1e9
    np.testing.assert_array_equal(curve(list(epochs)), curve(list(train(settings, toy(), backend))))


@pytest.mark.parametrize("part", ["train", "test"])
def test_features_beyond_the_dtype_are_refused_at_once(backend: Backend, part: str) -> None:
    data = toy()
    huge = getattr(data, part).features.copy()
    huge[3, 2] = 1e300
    data = data._replace(**{part: replace(getattr(data, part), features=huge)})
    settings = Settings(hidden_layer_sizes=(8,), batch_size=10, epochs=1)
    with pytest.raises(
        DataError, match=r"toy: a feature \(column 2, .*1e\+300, which float32 cannot hold; use --dtype f"
    ):
        train(settings, data, backend)
    train(replace(settings, dtype="float64"), data, backend)


def test_a_column_that_exact_arithmetic_erases_is_warned_of(backend: Backend) -> None:
    """Next to one number that dwarfs the table; a column that never varied has nothing to lose."""
    rng = np.random.default_rng(0)
    features = np.column_stack([np.full(40, 0.5), rng.uniform(size=40), rng.uniform(size=40)])
    labels = (features[:, 1] > 0.5).astype(np.int32)
    exact = Settings(hidden_layer_sizes=(4,), batch_size=8, epochs=1, arithmetic="exact")
    list(train(exact, Dataset("mine", features, labels, 2).split(), backend))
    features[:, 2] = 2.0**30 * np.arange(40)
    message = r"mine: column 1, .* varies by 0\.\d+, but the largest feature of all is 4\.08e\+10.*standardise"
    with pytest.warns(UserWarning, match=message):
        train(exact, Dataset("mine", features, labels, 2).split(), backend)
    native = replace(exact, arithmetic="native")
    train(native, Dataset("mine", features, labels, 2).split(), backend)


def test_a_weight_that_the_penalty_alone_moves_fades_to_no_subnormal_number(
    backend: Backend, numpy_backend: Backend
) -> None:
    """Some libraries take those for 0, others do not: the weight of a pixel that is always 0 would tell them apart."""
    rng = np.random.default_rng(0)
    features = np.column_stack([np.zeros(80), rng.normal(size=80)])
    data = Dataset("mine", features, (features[:, 1] > 0).astype(np.int32), 2).split()
    settings = Settings(
        hidden_layer_sizes=(), batch_size=2, epochs=12, learning_rate=1.0, l2=0.9, arithmetic="exact", init="he"
    )
    *_, last = train(settings, data, backend)
    *_, reference = train(settings, data, numpy_backend)
    assert last.digests == reference.digests
    faded = np.abs(last.model.host_parameters()[0].weight[0])
    assert np.all(faded < 2.0**-600)
    assert np.all((faded == 0) | (faded > 2.0**-700))


def test_a_parameter_beyond_all_bounds_stops_the_training(backend: Backend) -> None:
    """The losses are finite: the last step of the only epoch makes it, and the test rows do not see it."""
    features = np.asarray([[1.0], [2.0], [1.5], [-1.0]])
    data = Split(
        Dataset("mine", features[:3], np.asarray([[1e5], [2e5], [1e5]]), None),
        Dataset("mine", features[3:], np.zeros((1, 1)), None),
    )
    settings = Settings(
        hidden_layer_sizes=(), loss="squared_error", batch_size=3, epochs=1, learning_rate=1e300, dtype="float64"
    )
    with pytest.raises(TrainingDiverged, match=r"epoch 0, after the last step: the (largest of layers|test loss)"):
        list(train(settings, data, backend))


def test_epochs_may_be_run_in_any_order(numpy_backend: Backend) -> None:
    """The order and the masks of the next epoch are drawn ahead; they must not pass for that of another one."""
    settings, data = Settings(hidden_layer_sizes=(8,), dropout=0.5, epochs=9), load("digits")

    def losses(epochs: tuple[int, ...]) -> Any:
        trainer = Trainer(settings, data, numpy_backend)
        start = trainer.loop.parameters, trainer.loop.optimizer_state
        results = []
        for epoch in epochs:
            trainer.loop.parameters, trainer.loop.optimizer_state = start
            results.append(trainer.run_epoch(epoch))
        return results

    for mine, other in zip(losses((0, 3, 2, 2)), (losses((i,))[0] for i in (0, 3, 2, 2)), strict=True):
        np.testing.assert_array_equal(mine, other)
