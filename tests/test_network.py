"""Forward and backward: against plain Python loops, with leading axes, under permutations, arguments untouched."""

from __future__ import annotations

import math

import numpy as np
import pytest

from checks import DTYPES, assert_array, native, random_parameters
from mlp_xp.backend import Backend
from mlp_xp.network import Layer, Network, Parameters, backward, forward, map_parameters

SIZES = (4, 5, 3, 2)


def loops(parameters: Parameters, rows: list[list[float]]) -> list[list[float]]:
    """Return the outputs of a tanh network, written out as sums of numbers."""
    for i, (weight, bias, *_) in enumerate(parameters):
        z = [
            [math.fsum(x * w for x, w in zip(row, weight[:, j], strict=True)) + bias[j] for j in range(bias.size)]
            for row in rows
        ]
        rows = z if i == len(parameters) - 1 else [[math.tanh(value) for value in row] for row in z]
    return rows


@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_is_what_the_loops_give(backend: Backend, dtype: str) -> None:
    rng = np.random.default_rng(0)
    # Numbers that a float32 holds, so that both precisions start from the same ones.
    parameters = map_parameters(lambda a: a.astype(np.float32).astype(np.float64), random_parameters(rng, SIZES))
    rows = rng.integers(-8, 9, size=(6, 4)) / 8
    on_device = map_parameters(lambda a: backend.asarray(a, dtype), parameters)
    features = backend.asarray(rows, dtype)
    trace = forward(Network(SIZES, "tanh"), on_device, features, native(backend, dtype))
    assert_array(trace.outputs[-1], loops(parameters, rows.tolist()), backend, like=features, ulps=8)
    assert [tuple(array.shape) for array in trace.inputs] == [(6, 4), (6, 5), (6, 3)]
    assert [tuple(array.shape) for array in trace.outputs] == [(6, 5), (6, 3), (6, 2)]
    assert [array.shape for array in trace.pre_activations] == [(6, 5), (6, 3), (6, 2)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_networks_side_by_side_are_computed_as_each_alone(backend: Backend, dtype: str) -> None:
    rng = np.random.default_rng(1)
    arithmetic, network = native(backend, dtype), Network(SIZES, "sigmoid")
    stacked = map_parameters(lambda a: a.astype(dtype), random_parameters(rng, SIZES, 3))
    features, seed = rng.normal(size=(6, 4)).astype(dtype), rng.normal(size=(3, 6, 2)).astype(dtype)
    on_device = map_parameters(backend.asarray, stacked)
    trace = forward(network, on_device, backend.asarray(features), arithmetic)
    gradients = backward(network, on_device, trace, backend.asarray(seed), arithmetic)
    for i in range(3):
        alone = map_parameters(lambda a, i=i: backend.asarray(a[i]), stacked)
        trace_i = forward(network, alone, backend.asarray(features), arithmetic)
        gradient_i = backward(network, alone, trace_i, backend.asarray(seed[i]), arithmetic)
        logits = backend.to_host(trace_i.outputs[-1])
        assert_array(trace.outputs[-1][i, ...], logits, backend, like=on_device[0].bias, ulps=8)
        for together, one in zip(gradients, gradient_i, strict=True):
            for field in Layer._fields:
                expected = backend.to_host(getattr(one, field))
                assert_array(getattr(together, field)[i, ...], expected, backend, like=on_device[0].bias, ulps=16)


def test_gradients_have_the_parameters_shapes_types_and_device(backend: Backend) -> None:
    rng = np.random.default_rng(2)
    arithmetic, network = native(backend, "float32"), Network(SIZES)
    parameters = map_parameters(lambda a: backend.asarray(a, "float32"), random_parameters(rng, SIZES))
    trace = forward(network, parameters, backend.asarray(rng.normal(size=(6, 4)), "float32"), arithmetic)
    gradient = backward(network, parameters, trace, trace.outputs[-1], arithmetic)
    for layer, expected in zip(gradient, parameters, strict=True):
        for field in Layer._fields:
            actual, like = getattr(layer, field), getattr(expected, field)
            assert_array(actual, backend.to_host(actual), backend, like=like, ulps=0)
            assert actual.shape == like.shape


def test_renaming_hidden_units_changes_nothing(backend: Backend) -> None:
    rng = np.random.default_rng(3)
    arithmetic, network = native(backend), Network((4, 5, 2), "relu")
    first, second = random_parameters(rng, (4, 5, 2))
    order = rng.permutation(5)
    renamed = (Layer(first.weight[:, order], first.bias[order]), Layer(second.weight[order], second.bias))
    features = backend.asarray(rng.normal(size=(6, 4)))
    logits, again = (
        forward(network, map_parameters(backend.asarray, p), features, arithmetic).outputs[-1]
        for p in ((first, second), renamed)
    )
    assert_array(again, backend.to_host(logits), backend, like=features)


def test_dead_units_pass_no_gradient(backend: Backend) -> None:
    arithmetic, network = native(backend), Network((1, 2, 1), "relu")
    layers = (Layer(np.asarray([[1.0, -1.0]]), np.zeros(2)), Layer(np.asarray([[1.0], [1.0]]), np.zeros(1)))
    parameters = map_parameters(backend.asarray, layers)
    ones = backend.asarray(np.ones((3, 1)))
    trace = forward(network, parameters, ones, arithmetic)
    gradient = backward(network, parameters, trace, ones, arithmetic)
    assert_array(gradient[0].weight, [[3.0, 0.0]], backend, like=ones, ulps=0)
    assert_array(gradient[0].bias, [3.0, 0.0], backend, like=ones, ulps=0)


def test_the_last_layer_has_no_activation() -> None:
    assert Network((4, 5, 3, 2), "tanh").activations == ("tanh", "tanh", "identity")
    assert Network((4, 2), "tanh").activations == ("identity",)
