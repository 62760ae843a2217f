"""The sheet's claims of vanishing gradients, on every backend, and what the study makes of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks import exact, native, random_network
from mlp_xp.activations import ACTIVATIONS
from mlp_xp.backend import Backend, open_backend
from mlp_xp.cli import main
from mlp_xp.datasets import load
from mlp_xp.datasets.dataset import Dataset, Split
from mlp_xp.errors import SettingsError
from mlp_xp.losses import gradient_of_mean
from mlp_xp.network import Layer, Network, backward, forward, map_parameters
from mlp_xp.objective import Objective
from mlp_xp.settings import Settings
from mlp_xp.studies.gradients import MITIGATIONS, ROWS, STEEPEST, Flow, at_start, cases, depths, follow, measure
from mlp_xp.studies.gradients_figure import draw_gradients
from mlp_xp.studies.gradients_report import Findings, report
from mlp_xp.training import train

BASE = Settings(init="glorot", batch_size=50, epochs=2, learning_rate=0.1, dtype="float64")
SIZES = (6, 5, 5, 5, 5, 3)


@pytest.fixture(scope="module")
def digits() -> Split:
    return load("digits").split(0.2, 2020)


def test_a_sigmoids_derivative_is_at_most_a_quarter(backend: Backend) -> None:
    x = np.concatenate([np.linspace(-40.0, 40.0, 1001), [0.0, 1e-8, -1e-8, 1e300, -1e300]])[None]
    for arithmetic in (native(backend, "float32"), native(backend), exact(backend)):
        z = arithmetic.xp.astype(backend.asarray(np.clip(x, -1e30, 1e30)), arithmetic.dtype)
        sigmoid = ACTIVATIONS["sigmoid"]
        y = sigmoid.forward(z, arithmetic)
        slope = backend.to_host(sigmoid.backward(arithmetic.xp.ones_like(z), z, y, arithmetic))
        assert np.all(slope <= 0.25)
        assert np.all(slope >= 0.0)
        assert np.max(slope) == slope[0, 1001] == 0.25
        assert np.all(slope[np.abs(x) < 15] > 0.0)


@pytest.mark.parametrize("activation", STEEPEST)
def test_the_steepest_derivatives_are_what_is_stated(numpy_backend: Backend, activation: str) -> None:
    z, arithmetic = np.concatenate([np.linspace(-8.0, 8.0, 1001), [1e-9]])[None], native(numpy_backend)
    y = ACTIVATIONS[activation].forward(z, arithmetic)
    slopes = ACTIVATIONS[activation].backward(np.ones_like(z), z, y, arithmetic)
    assert np.max(slopes) == STEEPEST[activation]


@pytest.mark.parametrize("activation", STEEPEST)
def test_every_layer_takes_its_share_of_the_gradient(backend: Backend, activation: str) -> None:
    """With delta = dL/dz: ‖delta of a layer‖ ≤ steepest derivative × ‖weight above‖₂ × ‖delta above‖."""
    for arithmetic in (native(backend), exact(backend)):
        network = Network(SIZES, activation)
        rng = np.random.default_rng(0)
        parameters = tuple(
            layer._replace(weight=arithmetic.round_weight(layer.weight))
            for layer in map_parameters(backend.asarray, random_network(rng, network))
        )
        features = arithmetic.round_activation(backend.asarray(rng.normal(size=(20, 6))))
        trace = forward(network, parameters, features, arithmetic)
        delta = gradient_of_mean(trace.outputs[-1], backend.asarray(rng.normal(size=(20, 3))), None, arithmetic)
        norms = []
        for n in reversed(range(1, len(SIZES))):  # the gradient of a bias in a batch of one row is delta
            rows = [
                backward(network, parameters, _row(trace, i), delta[i : i + 1, :], arithmetic)[n - 1].bias
                for i in range(20)
            ]
            norms.append(np.linalg.norm([backend.to_host(row) for row in rows]))
        for below, above, layer in zip(norms[1:], norms, reversed(parameters), strict=False):
            most = STEEPEST[activation] * np.linalg.norm(backend.to_host(layer.weight), 2) * above
            assert 0.0 < below <= most * (1 + 1e-5)


def _row(trace: Any, i: int) -> Any:
    return type(trace)(*([None if part is None else part[i : i + 1, :] for part in parts] for parts in trace))


@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(STEEPEST)), st.floats(0.01, 10.0), st.integers(2, 6))
def test_no_gradient_is_longer_than_its_bound(seed: int, activation: str, scale: float, depth: int) -> None:
    backend, rng = open_backend("numpy"), np.random.default_rng(seed)
    network = Network((4, *(3,) * depth, 2), activation)
    host = map_parameters(lambda array: array * scale, random_network(rng, network))
    objective = Objective(network, "cross_entropy")
    data = rng.normal(size=(8, 4)), np.eye(2)[rng.integers(0, 2, 8)]
    flow = measure(objective, host, *data, native(backend), backend)
    assert flow.bounds is not None
    assert np.all(flow.norms <= flow.bounds * (1 + 1e-9))


def test_a_sigmoids_gradient_shrinks_geometrically_with_depth(digits: Split, backend: Backend) -> None:
    """The logarithm falls by a constant per layer: each depth is within a factor of 3 of a straight line."""
    plain = cases(BASE, 6, 20)["sigmoid"]
    found = [(depth, at_start(settings, digits.train, backend)) for depth, settings in depths(plain, 6)]
    assert [depth for depth, _ in found] == [*range(2, 13)]
    ratios = np.log([flow.ratio for _, flow in found])
    slope, offset = np.polyfit([depth for depth, _ in found], ratios, 1)
    assert slope < np.log(0.5)
    assert np.max(np.abs(ratios - offset - slope * np.arange(2, 13))) < np.log(3.0)
    for _, flow in found:
        assert flow.bounds is not None
        assert np.all(flow.norms <= flow.bounds)
        assert not flow.dead.any()


def test_depth_10_and_what_helps(digits: Split, backend: Backend) -> None:
    networks = cases(BASE, 10, 30)
    start = {
        name: at_start(settings, digits.train, backend)
        for name, settings in networks.items()
        if settings.pretrain == "none"
    }
    assert start["sigmoid"].ratio < 1e-4
    for name in ("tanh", "relu", "sigmoid, residual", "sigmoid, batch norm"):
        assert start[name].ratio > 1e-3
    assert start["sigmoid, residual"].bounds is None
    assert start["sigmoid, batch norm"].bounds is None


def test_norms_are_those_of_the_whole_gradient(digits: Split, backend: Backend) -> None:
    """The rows are the first of the training set, and the weights those of the trainer."""
    settings = cases(BASE, 3, 5)["tanh"]
    flow = at_start(settings, digits.train, backend)
    few = Dataset("few", digits.train.features[:ROWS], digits.train.targets[:ROWS], 10, digits.train.scale)
    (moment, *_) = follow(replace(settings, batch_size=few.n_samples), Split(few, digits.test), backend)
    np.testing.assert_allclose(moment.flow.norms, flow.norms, rtol=1e-12)
    assert (moment.epoch, moment.loss, moment.accuracy) == (0, None, None)


def test_units_that_are_0_for_every_row_are_dead(backend: Backend) -> None:
    bias = np.array([0.0, -100.0, 0.0, -100.0])
    layers = (Layer(np.eye(4), bias), Layer(np.eye(4), np.full(4, 1.0)), Layer(np.ones((4, 2)), np.zeros(2)))
    parameters = map_parameters(backend.asarray, layers)
    objective = Objective(Network((4, 4, 4, 2), "relu"), "cross_entropy")
    rows = backend.asarray(np.random.default_rng(0).normal(size=(9, 4)))
    targets = backend.asarray(np.eye(2)[np.arange(9) % 2])
    flow = measure(objective, parameters, rows, targets, native(backend), backend)
    assert flow.dead.tolist() == [2, 0]


def test_a_pretrained_network_starts_from_there(digits: Split, backend: Backend) -> None:
    settings = replace(cases(BASE, 2, 8)["sigmoid, pre-training"], pretrain_epochs=2)
    moments = list(follow(settings, digits, backend))
    assert [moment.epoch for moment in moments] == [0, 1, 2]
    assert moments[0].flow.norms[0] != at_start(settings, digits.train, backend).norms[0]
    for moment, epoch in zip(moments[1:], train(settings, digits, backend), strict=True):
        assert (moment.loss, moment.accuracy) == (epoch.test_loss, epoch.accuracy)


def findings(data: Split, backend: Backend) -> Findings:
    networks = cases(BASE, 4, 8)
    starts = {
        name: [(depth, at_start(one, data.train, backend)) for depth, one in depths(settings, 4)]
        for name, settings in networks.items()
        if settings.pretrain == "none"
    }
    moments = {name: list(follow(settings, data, backend)) for name, settings in networks.items()}
    return Findings("digits on a backend", networks, starts, moments)


def test_the_report_has_all_that_was_measured(digits: Split, numpy_backend: Backend) -> None:
    found = findings(digits, numpy_backend)
    made = report(found, {"name": "numpy"})
    assert made.holds
    assert [row[0] for row in made.rows] == [*STEEPEST, *(f"sigmoid, {name}" for name in MITIGATIONS)]
    again = json.loads(json.dumps(made.to_dict()))
    assert len(again["moments"]["relu"]) == 3
    assert len(again["moments"]["relu"][0]["weight_gradient_norms"]) == 5
    assert len(again["moments"]["relu"][0]["dead_units"]) == 4
    assert again["networks"]["sigmoid, residual"]["residual"]
    assert [one["hidden_layers"] for one in again["at_start_by_depth"]["tanh"]] == [*range(2, 9)]
    flow = found.moments["tanh"][1].flow
    worse = found.moments["tanh"][1]._replace(flow=flow._replace(norms=np.asarray(flow.bounds) * 1.1))
    wrong = report(replace(found, moments={**found.moments, "tanh": [worse]}), {})
    assert [claim.holds for claim in wrong.claims] == [True, False, True]
    assert "FAILS  tanh: no gradient is longer than 1 a layer" in wrong.text()


def test_the_picture_has_a_line_for_every_network(digits: Split, numpy_backend: Backend) -> None:
    figure = draw_gradients(findings(digits, numpy_backend))
    bounds, helped, by_depth, ratios, accuracy, dead = figure.axes
    assert [len(panel.get_lines()) for panel in (bounds, helped, by_depth, ratios, accuracy)] == [7, 4, 6, 6, 6]
    assert all(panel.get_yscale() == "log" for panel in (bounds, helped, by_depth, ratios))
    assert len(dead.patches) == 8
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*cases(BASE, 2, 2)]


def test_the_command_writes_all_three(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--depth=3", "--width=8", "--epochs=1", "--pretrain-epochs=1", "--batch-size=100", "--dtype=float64"]
    assert main(["study", "gradients", *quick, "--out", str(tmp_path / "it")]) == 0
    output = capsys.readouterr()
    text = (tmp_path / "it" / "gradients.txt").read_text()
    assert output.out == text
    assert text.startswith("gradients of 3 hidden layers of 8 units: digits on numpy\n")
    assert output.err.splitlines()[-1].endswith(f"gradients.json are in {tmp_path / 'it'}")
    data = json.loads((tmp_path / "it" / "gradients.json").read_text())
    assert data["study"] == "gradients"
    assert data["networks"]["sigmoid"]["dtype"] == "float64"
    assert (tmp_path / "it" / "gradients.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--depth 1", "depth = 1: must be at least 2"),
        ("--width 0", "width = 0: must be at least 1"),
        ("--epochs 0", "epochs = 0: must be a whole number ≥ 1"),
        ("--batch-size 1", "batch_size = 1: must be at least 2 with batch_norm"),
        ("--task regression --data {table}", "the data must have classes"),
    ],
)
def test_what_cannot_be_studied_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    table = tmp_path / "table.csv"
    table.write_text("".join(f"{i},{i % 7},{i % 5}\n" for i in range(50)))
    assert main(["study", "gradients", *options.format(table=table).split()]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("mlp-xp: error: ")
    assert message in error


def test_a_network_that_diverges_ends_there(digits: Split, numpy_backend: Backend) -> None:
    settings = replace(cases(BASE, 2, 8)["relu"], loss="squared_error", learning_rate=1e6)
    with np.errstate(all="ignore"):
        moments = list(follow(settings, digits, numpy_backend))
    assert [moment.epoch for moment in moments] == [0]


def test_a_regression_is_refused(numpy_backend: Backend) -> None:
    data = Dataset("numbers", np.ones((20, 3)), np.ones((20, 1)), None).split()
    with pytest.raises(SettingsError, match="study gradients: the data must have classes"):
        next(follow(BASE, data, numpy_backend))


def test_a_pretraining_that_diverges_is_a_row_of_the_table(digits: Split, numpy_backend: Backend) -> None:
    found = findings(digits, numpy_backend)
    settings = replace(found.networks["sigmoid, pre-training"], loss="squared_error", learning_rate=1e6)
    with np.errstate(all="ignore"):
        moments = list(follow(settings, digits, numpy_backend))
    assert moments == []
    without = replace(found, moments={**found.moments, "sigmoid, pre-training": moments})
    made = report(without, {})
    assert made.rows[-1] == ("sigmoid, pre-training", "-", "-", "-", "-", "-", "diverged in pre-training")
    assert made.holds
    assert len(draw_gradients(without).axes[4].get_lines()) == 6


def test_a_network_without_any_gradient_is_within_its_bounds(digits: Split, numpy_backend: Backend) -> None:
    dead = Flow(np.zeros(5), np.array([4.0, 3.0, 2.0, 1.0, 0.0]), np.full(4, 8))
    assert dead.is_within_bounds
    assert np.isnan(dead.ratio)
    found = findings(digits, numpy_backend)
    (start, *_) = found.moments["relu"]
    made = report(replace(found, moments={**found.moments, "relu": [start, start._replace(epoch=2, flow=dead)]}), {})
    assert made.holds
