"""Layer-wise pre-training: what every stage learns, and what is left for the training that follows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from checks import assert_close
from mlp_xp.backend import Backend
from mlp_xp.datasets import load
from mlp_xp.datasets.dataset import Dataset, Split
from mlp_xp.errors import SettingsError, TrainingDiverged
from mlp_xp.initializers import initial_layer
from mlp_xp.network import Parameters
from mlp_xp.randomness import PRETRAINING, batch_order
from mlp_xp.replicas import train_replicas
from mlp_xp.settings import Settings
from mlp_xp.trainer import Trainer
from mlp_xp.training import train

SETTINGS = Settings(
    hidden_layer_sizes=(12, 8),
    activation="tanh",
    momentum=0.5,
    batch_size=100,
    epochs=1,
    dtype="float64",
    pretrain="layerwise",
    pretrain_epochs=2,
)


@pytest.fixture(scope="module")
def digits() -> Split:
    return load("digits").split(0.2, 2020)


def pretrained(settings: Settings, data: Dataset, backend: Backend) -> Parameters:
    """Return what a training begins with."""
    trainer = Trainer(settings, data, backend)
    for _ in trainer.pretrain():
        pass
    return trainer.model.host_parameters()


def assert_layers(actual: Parameters, expected: Parameters, ulps: float) -> None:
    for one, other in zip(actual, expected, strict=True):
        for array, wanted in zip(one, other, strict=True):
            assert_close(array, wanted, ulps)


def test_every_stage_is_a_training_of_two_layers(digits: Split, backend: Backend) -> None:
    """The second stage has the first one's outputs as features, and its last layer becomes the network's."""
    found = pretrained(SETTINGS, digits.train, backend)
    start = Trainer(replace(SETTINGS, pretrain="none"), digits.train, backend).model.host_parameters()
    data, features = digits.train, digits.train.features * digits.train.scale
    lasts = [initial_layer(12, 10, PRETRAINING, SETTINGS.init, SETTINGS.seed), start[-1]]
    for stage, (layer, last) in enumerate(zip(start[:-1], lasts, strict=True)):
        alone = replace(SETTINGS, hidden_layer_sizes=(layer.bias.size,), pretrain="none", epochs=2)
        part = Dataset("part", features, data.targets, data.n_classes)
        trainer = Trainer(alone, part, backend, (layer, last))
        for epoch in range(2):
            order = batch_order(data.n_samples, 100, SETTINGS.seed, PRETRAINING + 2 * stage + epoch)
            trainer.loop.run(order)
        hidden, top = trainer.model.host_parameters()
        assert_layers((found[stage],), (hidden,), 2**10)
        features = np.tanh(features @ hidden.weight + hidden.bias)
    assert_layers(found[-1:], (top,), 2**10)


def test_the_training_goes_on_from_there(digits: Split, backend: Backend) -> None:
    start = pretrained(SETTINGS, digits.train, backend)
    (epoch,) = train(SETTINGS, digits, backend)
    (same,) = train(replace(SETTINGS, pretrain="none"), digits, backend, initial=start)
    np.testing.assert_array_equal(epoch.step_losses, same.step_losses)
    assert epoch.digests.layers == same.digests.layers
    assert epoch.digests.chain != same.digests.chain  # of other settings


def test_replicas_are_pretrained_side_by_side(digits: Split, backend: Backend) -> None:
    settings = replace(SETTINGS, dropout=0.2, residual=True, batch_norm=True, hidden_layer_sizes=(8, 8))
    (together,) = train_replicas(settings, digits, backend, 2)
    for replica, seed in zip(together.replicas, (0, 1), strict=True):
        (alone,) = train(replace(settings, seed=seed), digits, backend)
        assert_close(replica.step_losses, alone.step_losses, 2**16)


def test_frozen_layers_stay_as_they_are(digits: Split, numpy_backend: Backend) -> None:
    trainer = Trainer(replace(SETTINGS, batch_norm=True, l2=0.1), digits.train, numpy_backend)
    first: list[Parameters] = []
    for stage, epoch, losses, _ in trainer.pretrain():
        assert losses.shape == (14,)
        if (stage, epoch) == (1, 0):
            first.append(trainer.model.host_parameters())
    for array, before in zip(trainer.model.host_parameters()[0], first[0][0], strict=True):
        np.testing.assert_array_equal(array, before)


def test_it_helps_a_deep_sigmoid_network(digits: Split, numpy_backend: Backend) -> None:
    settings = replace(SETTINGS, hidden_layer_sizes=(30,) * 5, activation="sigmoid", batch_size=20, momentum=0.9)
    (pre,) = train(settings, digits, numpy_backend)
    (plain,) = train(replace(settings, pretrain="none", epochs=1), digits, numpy_backend)
    assert pre.accuracy is not None
    assert plain.accuracy is not None
    assert pre.accuracy > 0.5 > 0.2 > plain.accuracy


def test_a_stage_that_diverges_is_named(digits: Split, numpy_backend: Backend) -> None:
    settings = replace(SETTINGS, activation="relu", loss="squared_error", learning_rate=1e6)
    where = "pre-training of layer 0, epoch"
    with pytest.raises(TrainingDiverged, match=rf"{where} 0, step 1: the loss explodes"):
        next(train(settings, digits, numpy_backend))
    with np.errstate(all="ignore"), pytest.raises(TrainingDiverged, match=rf"{where} 1, step \d+: the loss is inf"):
        next(train(settings, digits, numpy_backend, largest_growth=np.inf))


def test_settings_that_ask_for_nothing_to_pretrain() -> None:
    with pytest.raises(SettingsError, match="pretrain = 'layerwise': must be none without hidden layers"):
        replace(SETTINGS, hidden_layer_sizes=())
    with pytest.raises(SettingsError, match="pretrain_epochs = 0: must be a whole number ≥ 1"):
        replace(SETTINGS, pretrain_epochs=0)
    with pytest.raises(SettingsError, match="pretrain = 'layers': must be one of none, layerwise"):
        replace(SETTINGS, pretrain="layers")


def test_every_epoch_of_it_is_told(digits: Split, numpy_backend: Backend) -> None:
    told: list[tuple[int, int]] = []
    settings = replace(SETTINGS, epochs=2)
    epochs = train(settings, digits, numpy_backend, on_pretrained=lambda one: told.append((one.stage, one.epoch)))
    assert told == []
    next(epochs)
    assert told == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert len(told) == settings.n_pretraining_epochs
    assert replace(settings, pretrain="none").n_pretraining_epochs == 0
