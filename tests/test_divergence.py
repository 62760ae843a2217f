"""Trainings that go wrong: noticed early, not too early, and told with the step, the layer and the likely cause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mlp_xp.backend import Backend
from mlp_xp.checkpoint import host_tensors
from mlp_xp.datasets import Dataset, Split
from mlp_xp.divergence import LARGEST_GROWTH, STREAK, WatchedStep, find_divergence
from mlp_xp.errors import TrainingDiverged
from mlp_xp.network import Parameters
from mlp_xp.replicas import train_replicas
from mlp_xp.settings import Settings
from mlp_xp.trainer import Trainer
from mlp_xp.training import train

SETTINGS = Settings(hidden_layer_sizes=(6, 5), batch_size=100, epochs=3, dtype="float64")


def find(losses: list[float], n_steps: int = 100, first_loss: float | None = 2.0) -> tuple[int, str] | None:
    found = find_divergence(np.asarray([[1.0] * len(losses), losses]), [None, first_loss], LARGEST_GROWTH, n_steps)
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
    assert find([*calm, *[2001.0] * STREAK, *calm]) == (5, "the loss explodes: 2e+03 is 1e+03 times the first one")
    assert find([*calm, *[1999.0] * 50]) is None
    assert find([*calm, *[2001.0] * (STREAK - 1), *calm]) is None
    assert find([*calm, *[1e9] * STREAK], first_loss=None) is None, "of the first loss nothing is known"
    assert find([*calm, *[1e9] * STREAK], first_loss=0.0) is None


def test_one_strange_batch_is_no_explosion_unless_it_is_absurd() -> None:
    assert find([1.0] * 20 + [19_000.0] + [1.0] * 20) is None
    found = find([1.0] * 20 + [21_000.0] + [1.0] * 20)
    assert found is not None
    assert found[0] == 20


def test_an_epoch_of_few_steps_explodes_by_all_of_them() -> None:
    found = find([3000.0] * 3, n_steps=3)
    assert found is not None
    assert found[0] == 0


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
