"""Batch normalisation: its two formulas, beside PyTorch's, and what training and inference make of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checks import DTYPES, as_integers, assert_array, assert_close, exact, native, random_network
from mlp_xp.arithmetic.bits import activation_bits
from mlp_xp.arithmetic.certificate import certificate
from mlp_xp.array_types import leaves
from mlp_xp.backend import Backend
from mlp_xp.batch_norm import EPSILON, MOMENTUM, normalize_batch, normalize_by, track
from mlp_xp.cli import main
from mlp_xp.datasets import load
from mlp_xp.datasets.dataset import Split
from mlp_xp.errors import RunError, SettingsError
from mlp_xp.initializers import initial_parameters
from mlp_xp.network import Network, NormalizedLayer, forward, map_parameters, track_statistics
from mlp_xp.objective import Objective
from mlp_xp.randomness import batch_order
from mlp_xp.recorded import load_model
from mlp_xp.settings import Settings
from mlp_xp.training import train
from recorded_runs import edit_tensors, make_run

RNG = np.random.default_rng(5)
Z = RNG.normal(size=(9, 4)) * [1.0, 100.0, 0.01, 0.0] + [0.0, 3.0, -0.01, 2.0]
"""The last unit never changes."""
SETTINGS = Settings(
    hidden_layer_sizes=(16, 16), activation="tanh", learning_rate=0.1, batch_size=64, epochs=2, batch_norm=True
)


@pytest.fixture(scope="module")
def digits() -> Split:
    return load("digits").split(0.2, 2020)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_unit_has_mean_0_and_variance_1(backend: Backend, dtype: str) -> None:
    arithmetic = native(backend, dtype)
    z = backend.asarray(Z.astype(dtype))
    host = Z.astype(dtype).astype(np.float64)
    found = normalize_batch(z, None, arithmetic)
    mean, variance = host.mean(axis=0), host.var(axis=0)
    assert_array(found.mean, mean, backend, like=z)
    assert_array(found.variance, variance, backend, like=z, ulps=32)
    values = (host - mean) / np.sqrt(variance + EPSILON)
    assert_array(found.values, values, backend, like=z, ulps=64)
    by = normalize_by(z, found.mean, found.variance, arithmetic)
    np.testing.assert_array_equal(backend.to_host(by), backend.to_host(found.values))


def test_a_row_counts_by_its_share(backend: Backend) -> None:
    """A share of 0 is no row, and a double share is two rows: for the batch's statistics and for the running ones."""
    arithmetic = native(backend)
    shares = np.array([0, 1, 2, 0, 3, 1, 1, 0, 1]) / 9
    repeated = Z[np.repeat(np.arange(9), [0, 1, 2, 0, 3, 1, 1, 0, 1])]
    weighted = normalize_batch(backend.asarray(Z), backend.asarray(shares), arithmetic)
    alone = normalize_batch(backend.asarray(repeated), None, arithmetic)
    assert_close(backend.to_host(weighted.mean), backend.to_host(alone.mean))
    assert_close(backend.to_host(weighted.variance), backend.to_host(alone.variance), 32)
    even = normalize_batch(backend.asarray(Z), backend.asarray(np.full(9, 1 / 9)), arithmetic)
    zeros = backend.asarray(np.zeros(4))
    for given in (None, backend.asarray(np.full(9, 1 / 9))):
        mean, variance = track(zeros, zeros, even, given, arithmetic)
        assert_array(mean, MOMENTUM * Z.mean(axis=0), backend, like=zeros)
        assert_array(variance, MOMENTUM * Z.var(axis=0, ddof=1), backend, like=zeros, ulps=32)


@pytest.mark.parametrize("shares", [np.zeros(9), np.eye(9)[2]], ids=["no row", "one row"])
def test_batches_that_have_no_spread(backend: Backend, shares: Any) -> None:
    arithmetic = native(backend)
    given = backend.asarray(shares)
    batch = normalize_batch(backend.asarray(Z), given, arithmetic)
    assert np.all(np.isfinite(backend.to_host(batch.values)))
    before = backend.asarray(np.full(4, 3.0))
    for after in track(before, before, batch, given, arithmetic):
        assert_array(after, np.full(4, 3.0), backend, like=before)
    alone = normalize_batch(backend.asarray(Z[:1]), None, arithmetic)
    for after in track(before, before, alone, None, arithmetic):
        assert_array(after, np.full(4, 3.0), backend, like=before)


def test_inference_takes_every_row_by_itself(backend: Backend) -> None:
    for arithmetic in (native(backend), exact(backend).for_inference()):
        network = Network((5, 4, 3), "tanh", batch_norm=True)
        parameters = map_parameters(backend.asarray, random_network(np.random.default_rng(0), network))
        x = np.random.default_rng(1).normal(size=(6, 5))
        objective = Objective(network, "cross_entropy")
        rows = [arithmetic.round_activation(backend.asarray(part)) for part in (x, x[:1], x[::-1].copy())]
        together, alone, reversed_ = (
            backend.to_host(objective.predict(parameters, features, arithmetic)) for features in rows
        )
        assert_close(alone, together[:1])
        assert_close(reversed_, together[::-1])


def test_a_batch_moves_what_inference_takes(backend: Backend) -> None:
    arithmetic = native(backend)
    network = Network((5, 4, 3), "relu", batch_norm=True)
    host = random_network(np.random.default_rng(0), network)
    parameters = map_parameters(backend.asarray, host)
    x = np.random.default_rng(1).normal(size=(6, 5))
    trace = forward(network, parameters, backend.asarray(x), arithmetic, is_training=True)
    first, last = track_statistics(parameters, trace, None, arithmetic)
    assert isinstance(first, NormalizedLayer)
    assert isinstance(host[0], NormalizedLayer)
    z = x @ host[0].weight
    assert_array(first.mean, 0.9 * host[0].mean + 0.1 * z.mean(axis=0), backend, like=parameters[0].bias)
    assert_array(first.variance, 0.9 * host[0].variance + 0.1 * z.var(axis=0, ddof=1), backend, like=last.bias, ulps=16)
    for field in ("weight", "bias", "scale"):
        assert getattr(first, field) is getattr(parameters[0], field)
    assert last is parameters[1]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_same_training_as_pytorchs(digits: Split, numpy_backend: Backend, optimizer: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    settings = Settings(
        hidden_layer_sizes=(16, 16),
        activation="sigmoid",
        optimizer=optimizer,
        learning_rate=0.01,
        batch_size=100,
        epochs=1,
        batch_norm=True,
        dtype="float64",
    )
    initial = initial_parameters((64, 16, 16, 10), settings.init, settings.seed, batch_norm=True)
    layers: list[Any] = []
    for layer, sizes in zip(initial, pairwise((64, 16, 16, 10)), strict=True):
        linear = torch.nn.Linear(*sizes, bias=not isinstance(layer, NormalizedLayer), dtype=torch.float64)
        linear.weight.data[...] = torch.tensor(layer.weight.T)
        layers.append(linear)
        if isinstance(layer, NormalizedLayer):
            layers += [torch.nn.BatchNorm1d(sizes[1], dtype=torch.float64), torch.nn.Sigmoid()]
        else:
            linear.bias.data[...] = torch.tensor(layer.bias)
    network = torch.nn.Sequential(*layers)
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]
    steps = kind(network.parameters(), lr=settings.learning_rate)
    features = torch.tensor(digits.train.features * digits.train.scale, dtype=torch.float64)
    labels, losses = torch.tensor(digits.train.targets).long(), []
    for rows in batch_order(digits.train.n_samples, settings.batch_size, settings.seed, 0):
        steps.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(features[rows]), labels[rows])
        loss.backward()
        steps.step()
        losses.append(loss.item())
    (epoch,) = train(settings, digits, numpy_backend)
    np.testing.assert_allclose(epoch.step_losses, losses, rtol=1e-12)
    for layer, there in zip(epoch.model.host_parameters(), (network[1], network[4]), strict=False):
        assert isinstance(layer, NormalizedLayer)
        for ours, theirs in (
            (layer.scale, there.weight.detach()),
            (layer.mean, there.running_mean),
            (layer.variance, there.running_var),
        ):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-10)
    network.eval()
    with torch.no_grad():
        logits = network(torch.tensor(digits.test.features * digits.test.scale, dtype=torch.float64))
    expected = torch.softmax(logits, dim=1).numpy()
    np.testing.assert_allclose(epoch.model.predict(digits.test.features).values, expected, rtol=0, atol=1e-12)


def test_a_batch_of_one_row_is_refused() -> None:
    with pytest.raises(SettingsError, match="batch_size = 1: must be at least 2 with batch_norm"):
        Settings(batch_norm=True, batch_size=1)
    with pytest.raises(SettingsError, match="batch_norm = True: must be False without hidden layers"):
        Settings(batch_norm=True, hidden_layer_sizes=())


def test_exact_sums_heed_no_order(backend: Backend) -> None:
    """Of a network with all there is: the rows in another order have the gradient of the same bits."""
    arithmetic = exact(backend)
    network = Network((5, 5, 5, 3), "tanh", residual=True, batch_norm=True)
    objective = Objective(network, "squared_error", 0.01)
    rng = np.random.default_rng(3)
    parameters = map_parameters(backend.asarray, random_network(rng, network))
    x, y, order = rng.normal(size=(64, 5)), rng.normal(size=(64, 3)), rng.permutation(64)
    first, second = (
        objective.learn(
            parameters, arithmetic.round_activation(backend.asarray(x[rows])), backend.asarray(y[rows]), arithmetic
        )
        for rows in (np.arange(64), order)
    )
    for one, other in zip(leaves(first), leaves(second), strict=True):
        np.testing.assert_array_equal(backend.to_host(one), backend.to_host(other))


def test_what_is_normalised_is_rounded_in_exact_arithmetic(backend: Backend) -> None:
    found = normalize_batch(backend.asarray(Z), None, exact(backend))
    assert as_integers(backend.to_host(found.values)) <= 2 ** activation_bits(4)
    assert as_integers(backend.to_host(found.factor)) > 2**40


def test_a_recorded_run_predicts_and_is_verified(
    digits: Split, numpy_backend: Backend, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = replace(SETTINGS, residual=True, pretrain="layerwise", arithmetic="exact", dtype="")
    run = make_run(tmp_path / "run", digits, numpy_backend, settings)
    *_, last = train(settings, digits, numpy_backend)
    model = load_model(run, numpy_backend)
    for one, other in zip(leaves(model.parameters), leaves(last.model.parameters), strict=True):
        np.testing.assert_array_equal(one, other)
    rows = digits.test.features
    np.testing.assert_array_equal(model.predict(rows).values, last.model.predict(rows).values)
    assert main(["verify", str(run)]) == 0
    assert main(["verify", str(run), "--epochs", "1-1"]) == 0  # from a checkpoint: nothing is pre-trained again
    capsys.readouterr()
    edit_tensors("weights.safetensors", lambda tensors: tensors["layers.0.variance"].__imul__(-1.0))(run)
    with pytest.raises(RunError, match="layer 0 has running variances below 0; train again"):
        load_model(run, numpy_backend)
    alter = edit_tensors("weights.safetensors", lambda tensors: tensors.update({"layers.0.scale": np.ones(3)}))
    alter(run)
    with pytest.raises(RunError, match=r"layer 0 has shapes .*but run.json says"):
        load_model(run, numpy_backend)


def test_initial_layers_of_another_kind_are_refused(digits: Split, numpy_backend: Backend) -> None:
    for batch_norm in (False, True):
        initial = initial_parameters((64, 16, 16, 10), "pytorch", 0, batch_norm=not batch_norm)
        with pytest.raises(SettingsError, match=r"initial: layer 0 is a \w+, not a \w+"):
            train(replace(SETTINGS, batch_norm=batch_norm), digits, numpy_backend, initial=initial)


def test_the_certificate_has_the_sums_over_the_batch() -> None:
    entries = [entry for entry in certificate((5, 4, 4, 3), 100) if entry.sum == "x W (batch norm)"]
    assert [(entry.layer, entry.terms) for entry in entries] == [(0, 100), (1, 100)]
    assert all(entry.bits <= 53 for entry in entries)
