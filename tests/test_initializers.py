"""Initialisers: bounds as their sources state them, and one start for every backend and dtype."""

from __future__ import annotations

import numpy as np
import pytest

from mlp_xp.backend import Backend
from mlp_xp.initializers import INITIALIZERS, initial_parameters, initial_replicas

SIZES = (784, 256, 10)
# Standard deviation of a uniform distribution: its bound / √3.
WEIGHT_DEVIATION: dict[str, list[float]] = {
    "pytorch": [np.sqrt(1 / 784 / 3), np.sqrt(1 / 256 / 3)],
    "glorot": [np.sqrt(2 / (784 + 256)), np.sqrt(2 / (256 + 10))],
    "he": [np.sqrt(2 / 784), np.sqrt(2 / 256)],
    "lab": [0.1 / np.sqrt(3)] * 2,
}
BIAS_BOUND: dict[str, list[float]] = {"pytorch": [1 / 28, 1 / 16], "glorot": [0, 0], "he": [0, 0], "lab": [0.1, 0.1]}


def test_the_expectations_cover_the_table() -> None:
    assert set(WEIGHT_DEVIATION) == set(BIAS_BOUND) == set(INITIALIZERS)


@pytest.mark.parametrize("init", INITIALIZERS)
def test_shapes_and_spread(init: str) -> None:
    for i, (weight, bias, *_) in enumerate(initial_parameters(SIZES, init, seed=0)):
        assert weight.shape == (SIZES[i], SIZES[i + 1])
        assert bias.shape == (SIZES[i + 1],)
        assert weight.dtype == bias.dtype == np.float64
        assert abs(np.std(weight) / WEIGHT_DEVIATION[init][i] - 1) < 0.05
        assert abs(np.mean(weight)) < 0.1 * WEIGHT_DEVIATION[init][i]
        assert np.max(np.abs(bias)) <= BIAS_BOUND[init][i]
        assert (np.max(np.abs(bias)) > 0.5 * BIAS_BOUND[init][i]) == (BIAS_BOUND[init][i] > 0)


@pytest.mark.parametrize("init", INITIALIZERS)
def test_every_precision_starts_from_the_same_numbers(backend: Backend, init: str) -> None:
    for layer in initial_parameters((3, 5, 2), init, seed=7):
        for array in layer:
            single = backend.to_host(backend.asarray(array, "float32"))
            assert single.dtype == np.float32
            np.testing.assert_array_equal(single.astype(np.float64), array)


def test_seeds_differ() -> None:
    first, second = (initial_parameters((3, 2), "pytorch", seed)[0].weight for seed in (0, 1))
    assert not np.any(first == second)


def test_a_replica_starts_where_its_seed_does() -> None:
    together = initial_replicas((3, 5, 2), "glorot", range(4, 7))
    for i, seed in enumerate(range(4, 7)):
        for layers, alone in zip(together, initial_parameters((3, 5, 2), "glorot", seed), strict=True):
            for all_of_them, one in zip(layers, alone, strict=True):
                np.testing.assert_array_equal(all_of_them[i], one, strict=True)
