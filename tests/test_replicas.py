"""Many at once: a replica is the training that its seed gives alone, and a spread is what statistics calls one."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from typing import Any

import array_api_compat
import numpy as np
import pytest

import mlp_xp.model
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend
from mlp_xp.checkpoint import map_named
from mlp_xp.datasets import Dataset, Split
from mlp_xp.errors import SettingsError, TrainingDiverged
from mlp_xp.initializers import initial_replicas
from mlp_xp.randomness import batch_order
from mlp_xp.replicas import ReplicatedEpoch, Spread, train_replicas
from mlp_xp.settings import Settings
from mlp_xp.trainer import Trainer
from mlp_xp.training import Epoch, train
from mlp_xp_numpy import NumPyBackend

N = 3
SGD = Settings(hidden_layer_sizes=(8,), momentum=0.9, nesterov=True, batch_size=120, epochs=2, seed=5)
ADAM = Settings((8,), "tanh", optimizer="adam", learning_rate=0.01, l2=0.001, batch_size=120, epochs=2, seed=5)
# Of some replicas a step's gradient is longer than this, of others not.
DROPOUT = replace(SGD, hidden_layer_sizes=(8, 6), dropout=0.3, max_gradient_norm=0.16)
TRAININGS = {"sgd": SGD, "adam": ADAM, "dropout": DROPOUT}
# Rounding errors grow by less than 1,000 in these 22 steps; a wrong formula is off in the first digits.
ULPS = 1000.0


def line(n: int) -> Split:
    """Return n rows, and one more to test on, with a number to predict."""
    features = np.linspace(-1.0, 1.0, n + 1)[:, None]
    data = Dataset("line", features, 2.0 * features, None)
    return Split(data.take(np.arange(n)), data.take(np.asarray([n])))


def both(settings: Settings, data: Split, backend: Backend) -> list[tuple[Epoch, Epoch]]:
    """Return every epoch of every replica, beside that of its seed trained alone."""
    together = list(train_replicas(settings, data, backend, N))
    alone = [list(train(replace(settings, seed=settings.seed + i), data, backend)) for i in range(N)]
    assert [epoch.epoch for epoch in together] == list(range(settings.epochs))
    return [(epoch.replicas[i], alone[i][epoch.epoch]) for epoch in together for i in range(N)]


@pytest.mark.parametrize("settings", TRAININGS.values(), ids=TRAININGS)
def test_in_exact_arithmetic_a_replica_has_the_bits_of_its_seed_alone(
    backend: Backend, digits: Split, settings: Settings
) -> None:
    for replica, alone in both(replace(settings, arithmetic="exact", dtype=""), digits, backend):
        assert replica.digests == alone.digests
        assert replica.row() | {"seconds": 0} == alone.row() | {"seconds": 0}
        np.testing.assert_array_equal(replica.step_losses, alone.step_losses, strict=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("settings", TRAININGS.values(), ids=TRAININGS)
def test_in_native_arithmetic_a_replica_draws_the_curve_of_its_seed_alone(
    backend: Backend, digits: Split, settings: Settings, dtype: str
) -> None:
    for replica, alone in both(replace(settings, dtype=dtype), digits, backend):
        tolerance = ULPS * float(np.finfo(dtype).eps) * float(np.max(alone.step_losses))
        assert float(np.max(np.abs(replica.step_losses - alone.step_losses))) <= tolerance
        assert abs(replica.test_loss - alone.test_loss) <= tolerance
        assert replica.accuracy == pytest.approx(alone.accuracy, abs=1.5 / digits.test.n_samples)
        arrays: dict[str, Array] = {}
        map_named(arrays.setdefault, (alone.model.parameters, alone.optimizer_state), "")

        def check(name: str, array: Array, arrays: dict[str, Array] = arrays) -> Array:
            expected = arrays.pop(name)
            assert type(array) is type(expected)
            assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
            assert array_api_compat.device(array) == array_api_compat.device(expected)
            return array

        map_named(check, (replica.model.parameters, replica.optimizer_state), "")
        assert not arrays
        assert replica.checkpoint().tensors.keys() == alone.checkpoint().tensors.keys()


def test_a_trainer_has_all_replicas_in_a_leading_axis(backend: Backend, digits: Split) -> None:
    trainer = Trainer(SGD, digits.train, backend, replicas=N)
    assert [layer.weight.shape for layer in trainer.loop.parameters] == [(N, 64, 8), (N, 8, 10)]
    assert [layer.bias.shape for layer in trainer.loop.parameters] == [(N, 8), (N, 10)]
    assert trainer.run_epoch(0).shape == (1437 // 120, N)
    values = trainer.model.predict(digits.test.features)
    assert values.values.shape == (N, 360, 10)
    assert values.labels is not None
    assert values.labels.shape == (N, 360)


def test_replicas_may_start_from_given_parameters(numpy_backend: Backend, digits: Split) -> None:
    initial = initial_replicas((64, 8, 10), SGD.init, range(SGD.seed, SGD.seed + N))
    given, drawn = (Trainer(SGD, digits.train, numpy_backend, start, replicas=N) for start in (initial, None))
    np.testing.assert_array_equal(given.run_epoch(0), drawn.run_epoch(0))
    for wrong, message in ((N + 1, r"\(3, 64, 8\), not \(4, 64, 8\)"), (None, r"\(3, 64, 8\), not \(64, 8\)")):
        with pytest.raises(SettingsError, match=f"initial: the weight of layer 0 has the shape {message}"):
            Trainer(SGD, digits.train, numpy_backend, initial, replicas=wrong)


def test_a_regression_and_a_single_output_have_replicas_too(numpy_backend: Backend) -> None:
    settings = Settings((4,), loss="squared_error", batch_size=4, epochs=2, dtype="float64")
    for replica, alone in both(settings, line(9), numpy_backend):
        assert replica.accuracy is None
        assert replica.loss == pytest.approx(alone.loss, rel=1e-12)
    data = Dataset("sign", line(9).train.features, np.arange(9) % 2, 2).split(0.4)
    for replica, alone in both(Settings((4,), loss="binary_cross_entropy", batch_size=2), data, numpy_backend):
        assert replica.accuracy == alone.accuracy


class Watching(NumPyBackend):
    """Keeps the shapes of what its loops run over."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def scan(self, step: Any, carry: Any, xs: Any, constants: Any = ()) -> Any:
        self.shapes.append(xs[0].shape)
        return super().scan(step, carry, xs, constants)


@pytest.mark.parametrize(("chunk_rows", "chunks"), [(4096, (1, 360)), (100, (11, 33)), (2, (360, 1))])
def test_all_replicas_are_tested_at_once_in_chunks_that_the_memory_holds(
    digits: Split, monkeypatch: pytest.MonkeyPatch, chunk_rows: int, chunks: tuple[int, int]
) -> None:
    settings = replace(SGD, epochs=1, arithmetic="exact", dtype="")
    (expected,) = train_replicas(settings, digits, NumPyBackend(), N)
    monkeypatch.setattr(NumPyBackend, "rows_at_once", chunk_rows)
    backend = Watching()
    (epoch,) = train_replicas(settings, digits, backend, N)
    assert backend.shapes[-2:] == [(11, N, 120), chunks]
    assert [replica.digests for replica in epoch.replicas] == [replica.digests for replica in expected.replicas]


@pytest.mark.parametrize("n", [1, 0, -1, 2.0, True, "3", None])
def test_fewer_than_two_are_no_replicas(numpy_backend: Backend, digits: Split, n: Any) -> None:
    with pytest.raises(SettingsError, match=rf"replicas = {n!r}: must be a whole number ≥ 2"):
        train_replicas(SGD, digits, numpy_backend, n)


def test_what_does_not_fit_the_data_is_refused_at_once(numpy_backend: Backend, digits: Split) -> None:
    with pytest.raises(SettingsError, match="batch_size = 1438: there are only 1437 rows"):
        train_replicas(replace(SGD, batch_size=1438), digits, numpy_backend, N)


def test_what_no_memory_holds_is_said_at_once(numpy_backend: Backend, digits: Split) -> None:
    with pytest.raises(MemoryError):
        train_replicas(SGD, digits, numpy_backend, 10**13)


def test_a_replica_that_diverges_is_named(backend: Backend) -> None:
    """One of three rows is left out of the only batch; only where it is the one beyond bounds all goes well."""
    data = line(3)
    data.train.targets[1] = 1e30
    without = [1 not in batch_order(3, 2, seed, 0) for seed in range(50)]
    first = next(i for i in range(50) if without[i : i + 3] == [True, True, False])
    settings = Settings((), loss="squared_error", batch_size=2, epochs=1, seed=first)
    assert len(list(train_replicas(settings, data, backend, 2))) == 1
    with pytest.raises(
        TrainingDiverged,
        match=rf"^seed {first + 2}: epoch 0, step 0: the loss is inf; .*; no step was taken before: .*; try a smaller",
    ):
        list(train_replicas(settings, data, backend, 3))


def test_a_later_replica_that_ends_badly_is_named(
    numpy_backend: Backend, digits: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine, bad = mlp_xp.model.Evaluation(1.0, 0.5), mlp_xp.model.Evaluation(math.inf, 0.5)
    monkeypatch.setattr(mlp_xp.model.Model, "evaluate_each", lambda *_: [fine, bad, fine])
    with pytest.raises(TrainingDiverged, match=r"^seed 6: epoch 0, after the last step: the test loss is inf"):
        list(train_replicas(SGD, digits, numpy_backend, N))


@pytest.mark.parametrize("replicas", [0, -1])
def test_there_is_one_replica_at_least(numpy_backend: Backend, digits: Split, replicas: int) -> None:
    with pytest.raises(SettingsError, match=rf"^replicas = {replicas}: must be a whole number ≥ 1"):
        Trainer(SGD, digits.train, numpy_backend, replicas=replicas)


def test_a_replica_that_diverges_in_the_last_step_is_named(backend: Backend) -> None:
    settings = Settings((), loss="squared_error", batch_size=3, epochs=1, learning_rate=1e30, seed=7)
    with pytest.raises(TrainingDiverged, match=r"^seed 7: epoch 0, after the last step: the test loss is"):
        list(train_replicas(settings, line(3), backend, 2))


def test_a_spread_is_that_of_statistics() -> None:
    values = np.random.default_rng(0).normal(size=(5, 7))
    spread = Spread.of(values)
    for i, row in enumerate(values.tolist()):
        expected = statistics.fmean(row), statistics.stdev(row), min(row), max(row)
        np.testing.assert_allclose([part[i] for part in spread], expected, rtol=1e-14)
    assert Spread.of([2.0, 2.0]).row() == {"mean": 2.0, "standard_deviation": 0.0, "least": 2.0, "most": 2.0}
    assert Spread.of([0.0, 0.0]).row() == {"mean": 0.0, "standard_deviation": 0.0, "least": 0.0, "most": 0.0}
    huge = Spread.of([1e308, 1.5e308, 1e308]).row()
    assert huge["mean"] == pytest.approx(3.5 / 3 * 1e308)
    assert huge["standard_deviation"] == pytest.approx(0.5e308 / math.sqrt(3))


def made_up(accuracies: list[float | None]) -> ReplicatedEpoch:
    """Return an epoch with losses 1, 2, …."""
    return ReplicatedEpoch(
        tuple(
            Epoch(3, 1.0 + i, 0.5 + i, accuracy, 2.0 + i, np.full(4, float(i)), None, None, None)  # type: ignore[arg-type]
            for i, accuracy in enumerate(accuracies)
        )
    )


def test_an_epoch_has_the_spreads_of_its_replicas() -> None:
    epoch = made_up([0.5, 0.75])
    root = math.sqrt(0.5)
    assert epoch.row() == {
        "epoch": 3,
        "loss": {"mean": 1.5, "standard_deviation": pytest.approx(root), "least": 1.0, "most": 2.0},
        "test_loss": {"mean": 1.0, "standard_deviation": pytest.approx(root), "least": 0.5, "most": 1.5},
        "accuracy": {"mean": 0.625, "standard_deviation": pytest.approx(root / 4), "least": 0.5, "most": 0.75},
        "seconds": 3.0,
    }
    np.testing.assert_array_equal(epoch.step_losses, [[0.0, 1.0]] * 4)
    assert epoch.summary() == "#summary:   3 1.5000 ± 0.7071 62.50% ± 17.68%"


def test_an_epoch_of_a_regression_has_no_accuracy() -> None:
    epoch = made_up([None, None])
    assert epoch.row()["accuracy"] is None
    assert epoch.summary() == "#summary:   3 1.5000 ± 0.7071 1.0000 ± 0.7071"
