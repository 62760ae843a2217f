"""Trainings that go wrong: noticed early, not too early, and told with the step, the layer and the likely cause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from checks import DTYPES
from mlp_xp.backend import Backend
from mlp_xp.checkpoint import host_tensors
from mlp_xp.datasets import Dataset, Split
from mlp_xp.divergence import LARGEST_GROWTH, STREAK, WatchedStep, find_divergence, untrained_loss
from mlp_xp.errors import TrainingDiverged
from mlp_xp.network import Parameters
from mlp_xp.replicas import train_replicas
from mlp_xp.settings import Settings
from mlp_xp.trainer import Trainer, make_objective
from mlp_xp.training import train

SETTINGS = Settings(hidden_layer_sizes=(6, 5), batch_size=100, epochs=3, dtype="float64")


def find(
    losses: list[float], n_steps: int = 100, first_loss: float | None = 2.0, untrained_loss: float = 0.0
) -> tuple[int, str] | None:
    table = np.asarray([[1.0] * len(losses), losses])
    found = find_divergence(table, [None, first_loss], lambda: untrained_loss, LARGEST_GROWTH, n_steps)
    if found is None:
        return None
    network, step, what = found
    assert network == 1
    return step, what


def test_a_loss_that_is_not_finite_is_found_where_it_is_first() -> None:
    assert find([1.0, np.inf, np.nan]) == (1, "the loss is inf")
    assert find([np.nan, 1.0]) == (0, "the loss is nan")
    assert find([1e300] * 3) is None, "three steps are no streak yet"


def test_a_loss_explodes_if_it_stays_a_thousand_times_the_first() -> None:
    calm = [1.0] * 5
    found = find([*calm, *[2001.0] * STREAK, *calm])
    assert found == (5, "the loss explodes: 2e+03 is 1e+03 times that of an untrained network")
    assert find([*calm, *[1999.0] * 50]) is None
    assert find([*calm, *[2001.0] * (STREAK - 1), *calm]) is None
    assert find([*calm, *[1e9] * STREAK], first_loss=None) is None, "of the first loss nothing is known"
    assert find([*calm, *[1e9] * STREAK], first_loss=0.0) is None, "nothing to compare with"


@pytest.mark.parametrize("first_loss", [0.0, 1e-300, 1e-3])
def test_a_first_loss_by_chance_next_to_nothing_is_no_measure(first_loss: float) -> None:
    assert find([2001.0] * STREAK, first_loss=first_loss, untrained_loss=2.0) == (
        *(0, "the loss explodes: 2e+03 is 1e+03 times that of an untrained network"),
    )
    assert find([1999.0] * STREAK, first_loss=first_loss, untrained_loss=2.0) is None


def test_what_an_untrained_network_has_is_asked_only_where_it_may_decide() -> None:
    def refuse() -> float:
        raise AssertionError

    losses = np.full((1, 2 * STREAK), 1999.0)
    assert find_divergence(losses, [2.0], refuse, LARGEST_GROWTH, 100) is None
    for first_loss in (2.0, 0.0, None):
        assert find_divergence(1e9 * losses, [first_loss], refuse, np.inf, 100) is None
    with pytest.raises(AssertionError):
        find_divergence(2 * losses, [2.0], refuse, LARGEST_GROWTH, 100)


def test_one_strange_batch_is_no_explosion_unless_it_is_absurd() -> None:
    assert find([1.0] * 20 + [19_000.0] + [1.0] * 20) is None
    found = find([1.0] * 20 + [21_000.0] + [1.0] * 20)
    assert found is not None
    assert found[0] == 20


def test_an_epoch_of_few_steps_explodes_by_all_of_them() -> None:
    found = find([3000.0] * 3, n_steps=3)
    assert found is not None
    assert found[0] == 0


@pytest.mark.parametrize(
    ("loss", "n_classes"),
    [
        *(("cross_entropy", 2), ("cross_entropy", 5), ("binary_cross_entropy", 2), ("squared_error", 2)),
        *(("squared_error", 5), ("squared_error", None), ("poisson", None)),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_loss_of_an_untrained_network(
    loss: str, n_classes: int | None, dtype: str, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the book: of all rows, whatever the pieces they come in."""
    monkeypatch.setattr("mlp_xp.divergence.ROWS", 7)
    rng = np.random.default_rng(0)
    targets = rng.exponential(3.0, (40, 2)) if n_classes is None else rng.integers(0, n_classes, 40, dtype=np.int32)
    data = Dataset("data", rng.normal(size=(40, 3)), targets, n_classes)
    settings = replace(SETTINGS, loss=loss, hidden_layer_sizes=())
    objective = make_objective(settings, data)
    n_outputs = objective.network.layer_sizes[-1]
    if n_classes is None:
        t = targets
    else:
        t = targets[:, None].astype(float) if n_outputs == 1 else np.eye(n_outputs)[targets]
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = {
            "cross_entropy": np.full(40, np.log(n_outputs)),
            "binary_cross_entropy": np.full(40, n_outputs * np.log(2.0)),
            "squared_error": np.sum(t**2, axis=1) / 2,
            "poisson": np.sum(np.where(t > 0, t * np.log(t), 0.0) - t + 1.0, axis=1),
        }[loss]
    with backend.working():
        backend.asarray(np.zeros(1), dtype)  # as a training has some already: JAX is asked for float64 when one is made
        found = untrained_loss(objective, data, backend, dtype)
    assert type(found) is float
    assert found == pytest.approx(np.mean(expected), rel=64 * float(np.finfo(dtype).eps))


def test_a_training_asks_for_it_once_and_only_if_it_may_decide(
    numpy_backend: Backend, digits: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def count(*arguments: object) -> float:
        calls.append(arguments)
        return 1e30

    monkeypatch.setattr("mlp_xp.training.untrained_loss", count)
    growing = replace(SETTINGS, hidden_layer_sizes=(), loss="squared_error", batch_size=200, learning_rate=0.26)
    list(train(replace(growing, learning_rate=0.1), digits, numpy_backend))
    list(train(growing, digits, numpy_backend, largest_growth=np.inf))
    assert calls == []
    list(train(replace(growing, epochs=4), digits, numpy_backend))
    assert len(calls) == 1


@pytest.mark.parametrize("n", [None, 2], ids=["alone", "replicas"])
def test_what_a_pre_training_made_explode_is_no_measure(numpy_backend: Backend, digits: Split, n: int | None) -> None:
    settings = replace(SETTINGS, hidden_layer_sizes=(32, 32), activation="sigmoid", learning_rate=1e6, epochs=1)
    settings = replace(settings, pretrain="layerwise", pretrain_epochs=1)
    with pytest.raises(
        TrainingDiverged, match=r"pre-training of layer 0, epoch 0, step \d: the loss explodes: "
    ) as caught:
        list(
            train(settings, digits, numpy_backend) if n is None else train_replicas(settings, digits, numpy_backend, n)
        )
    assert caught.value.explodes
    (epoch,) = train(settings, digits, numpy_backend, largest_growth=np.inf)
    assert epoch.loss > 1000.0
    *_, epoch = train(replace(settings, learning_rate=0.1), digits, numpy_backend)
    assert epoch.loss < 3.0


def test_a_pre_training_of_small_numbers_is_none_that_explodes(numpy_backend: Backend) -> None:
    """A network as it is drawn is then far worse than one whose outputs are 0."""
    features = np.random.default_rng(0).normal(size=(600, 20))
    data = Dataset("small", features, 0.001 * features[:, :1], None).split()
    settings = Settings((32, 32), loss="squared_error", learning_rate=0.01, batch_size=20, epochs=2)
    for each in (settings, replace(settings, pretrain="layerwise", pretrain_epochs=2)):
        *_, last = train(each, data, numpy_backend)
        assert last.first_loss is not None
        assert last.first_loss > LARGEST_GROWTH * float(np.mean(data.train.targets**2)) / 2
        assert last.loss < last.first_loss


def test_a_first_batch_without_what_is_hard_is_no_measure(numpy_backend: Backend) -> None:
    """Of 600 rows, few have a large number to predict, and the first batch of some seeds has none of them."""
    rng = np.random.default_rng(0)
    targets = np.where(rng.random((600, 1)) < 0.02, 1000.0, 0.0)
    data = Dataset("rare", rng.normal(size=(600, 4)), targets, None).split()
    settings = Settings((8,), loss="squared_error", optimizer="adam", learning_rate=0.001, batch_size=50, epochs=3)
    first_losses = []
    for seed in range(20):
        *_, last = train(replace(settings, seed=seed), data, numpy_backend)
        assert last.first_loss is not None
        first_losses.append(last.first_loss)
    assert min(first_losses) * LARGEST_GROWTH < np.mean(targets**2) / 2, "one of them had none"


def test_to_watch_a_step_changes_nothing(backend: Backend, digits: Split) -> None:
    settings = replace(SETTINGS, dropout=0.2, momentum=0.9, arithmetic="exact")
    trainer = Trainer(settings, digits.train, backend)
    (piece,) = trainer.pieces(0)
    watched = WatchedStep(**vars(trainer.loop.step))
    (parameters, state), peaks = backend.scan(watched, piece.carry, piece.xs, piece.data)
    assert {peak.shape for peak in peaks} == {(14,)}
    expected = host_tensors(trainer.loop.parameters, trainer.loop.optimizer_state, backend)
    for name, tensor in host_tensors(parameters, state, backend).items():
        np.testing.assert_array_equal(tensor, expected[name], strict=True)


def message(data: Split, settings: Settings, backend: Backend, initial: Parameters | None = None) -> str:
    with pytest.raises(TrainingDiverged) as caught:
        list(train(settings, data, backend, initial=initial))
    return str(caught.value)


def test_too_large_a_learning_rate_is_told(backend: Backend, digits: Split) -> None:
    settings = replace(SETTINGS, hidden_layer_sizes=(), loss="squared_error", learning_rate=0.3)
    said = message(digits, settings, backend)
    assert said.startswith("epoch 0, step ")
    assert ": the loss explodes: " in said
    assert "; layer 0 has the largest gradient (" in said
    assert ": the learning rate is likely too large; try a smaller --learning-rate (now 0.3), or scale" in said


def with_features(change: Callable[[np.ndarray], None], data: Split) -> Split:
    def changed(part: Dataset) -> Dataset:
        features = part.features.astype(np.float64)
        change(features)
        return replace(part, features=features)

    return Split(*map(changed, data))


def test_features_of_another_magnitude_are_told(backend: Backend, digits: Split) -> None:
    def blow_up(features: np.ndarray) -> None:
        features[:, 20] *= 1e6

    said = message(with_features(blow_up, digits), replace(SETTINGS, loss="squared_error"), backend)
    assert "; the features reach 1e+06, which is likely the cause; " in said


def grown(layer: int, backend: Backend, digits: Split) -> Parameters:
    """Return initial parameters of which one layer's weights overflow as soon as they are multiplied."""
    initial = Trainer(SETTINGS, digits.train, backend).model.host_parameters()
    weight = np.sign(initial[layer].weight) * 1e200
    return tuple(each._replace(weight=weight) if i == layer else each for i, each in enumerate(initial))


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_layer_whose_outputs_overflow_first_is_named(layer: int, backend: Backend, digits: Split) -> None:
    def one_layer_overflows(features: np.ndarray) -> None:
        features *= 1.0 if layer else 1e150

    settings = replace(SETTINGS, activation="relu", loss="squared_error")
    initial = grown(layer, backend, digits)
    data = with_features(one_layer_overflows, digits)
    if layer:  # the layer before hands on numbers that are too large for the next one's
        initial = tuple(
            each._replace(weight=np.sign(each.weight) * 1e140) if i == layer - 1 else each
            for i, each in enumerate(initial)
        )
    said = message(data, settings, backend, initial)
    assert said.startswith("epoch 0, step 0: the loss is ")
    assert f"; the outputs of layer {layer} are the first that are not finite; no step was taken before: " in said


def test_a_gradient_that_overflows_behind_a_finite_loss(backend: Backend, digits: Split) -> None:
    """The outputs of 1e-10 × 1e150 × 1e12 have a finite square; that of their factors by the features is not."""
    initial = Trainer(SETTINGS, digits.train, backend).model.host_parameters()
    data = with_features(lambda features: None, digits)
    initial = tuple(
        layer._replace(weight=np.sign(layer.weight) * size, bias=layer.bias * 0.0)
        for layer, size in zip(initial, (1e-12, 1e150, 1e12), strict=True)
    )
    said = message(data, replace(SETTINGS, loss="squared_error"), backend, initial)
    assert said.startswith("epoch 0, step 1: the loss is ")
    assert "; the gradient of layer 0 is the first that is not finite (in step 0); no step was taken before: " in said


def test_of_gradients_that_overflow_the_last_layers_is_the_first(backend: Backend, digits: Split) -> None:
    """What goes back overflows behind the last layer: in the layer before it, and in all before that."""
    initial = Trainer(SETTINGS, digits.train, backend).model.host_parameters()
    initial = tuple(
        layer._replace(weight=np.sign(layer.weight) * size, bias=layer.bias * 0.0)
        for layer, size in zip(initial, (1e-12, 1e-5, 1e165), strict=True)
    )
    said = message(digits, replace(SETTINGS, loss="squared_error"), backend, initial)
    assert "; the gradient of layer 1 is the first that is not finite (in step 0); no step was taken before: " in said


def test_a_replicas_own_numbers_are_looked_at(backend: Backend, digits: Split) -> None:
    settings = replace(SETTINGS, hidden_layer_sizes=(), loss="squared_error", learning_rate=0.3)
    with pytest.raises(
        TrainingDiverged, match=r"^seed 0: epoch 0, step \d+: the loss explodes: .*; layer 0 has the la"
    ):
        list(train_replicas(settings, digits, backend, 2))


def test_without_a_bound_nothing_explodes(backend: Backend, digits: Split) -> None:
    settings = replace(SETTINGS, hidden_layer_sizes=(), loss="squared_error", learning_rate=0.3, epochs=1)
    (epoch,) = train(settings, digits, backend, largest_growth=np.inf)
    assert epoch.loss > 1e3
