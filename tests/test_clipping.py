"""Gradients that are too long are shortened, in their own direction, each network's by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from checks import DTYPES, assert_array, exact, native, random_parameters
from mlp_xp.backend import Backend
from mlp_xp.clipping import clip_by_norm, gradient_norm
from mlp_xp.network import Layer, Parameters, map_parameters

SIZES = (4, 3, 2)


def flat(parameters: Parameters) -> Any:
    return np.concatenate([np.ravel(array) for layer in parameters for array in layer])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_norm_is_that_of_all_numbers(backend: Backend, dtype: str) -> None:
    host = random_parameters(np.random.default_rng(0), SIZES, 1)
    gradient = map_parameters(lambda x: backend.asarray(x, dtype), host)
    norm = gradient_norm(gradient, native(backend, dtype))
    assert_array(norm, [np.linalg.norm(flat(host))], backend, like=gradient[0].bias)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("share", [0.1, 0.999, 1.001, 100.0])
def test_only_what_is_too_long_is_shortened(backend: Backend, share: float, dtype: str) -> None:
    host = map_parameters(lambda x: x.astype(dtype), random_parameters(np.random.default_rng(0), SIZES))
    gradient = map_parameters(backend.asarray, host)
    largest = share * float(np.linalg.norm(flat(host).astype(np.float64)))
    clipped = clip_by_norm(gradient, largest, native(backend, dtype))
    for mine, other, given in zip(clipped, host, gradient, strict=True):
        for array, whole, like in zip(mine, other, given, strict=True):
            assert_array(array, whole * min(share, 1.0), backend, like=like, ulps=8)
            if share > 1:
                assert np.array_equal(backend.to_host(array), whole)


@pytest.mark.parametrize("largest", [1e-300, 1.0, 1e300])  # a float32 holds neither the first nor the last
def test_nothing_stays_nothing(backend: Backend, largest: float) -> None:
    host = map_parameters(lambda x: 0.0 * x.astype("float32"), random_parameters(np.random.default_rng(0), SIZES))
    clipped = clip_by_norm(map_parameters(backend.asarray, host), largest, native(backend, "float32"))
    assert not np.any(flat(map_parameters(backend.to_host, clipped)))


def test_a_small_number_times_a_small_factor_is_not_subnormal(backend: Backend) -> None:
    """Some libraries would take it for 0, others not."""
    layer = Layer(np.asarray([[2.0**400], [2.0**-560], [0.0]]), np.asarray([2.0**-200]))
    arithmetic = exact(backend)
    clipped = clip_by_norm(map_parameters(backend.asarray, (layer,)), 2.0**-100, arithmetic)
    np.testing.assert_array_equal(flat(map_parameters(backend.to_host, clipped)), [2.0**-100, 0.0, 0.0, 0.0])


def test_networks_side_by_side_have_norms_of_their_own(backend: Backend) -> None:
    host = random_parameters(np.random.default_rng(0), SIZES, 3)
    host = map_parameters(lambda x: x * np.reshape([0.01, 1.0, 100.0], (3,) + (1,) * (x.ndim - 1)), host)
    clipped = clip_by_norm(map_parameters(backend.asarray, host), 2.0, native(backend))
    for i in range(3):
        alone = map_parameters(lambda x, i=i: x[i], host)
        norm = float(np.linalg.norm(flat(alone)))
        of_i = flat(map_parameters(lambda x, i=i: backend.to_host(x)[i], clipped))
        np.testing.assert_allclose(of_i, flat(alone) * min(1.0, 2.0 / norm), rtol=1e-14)
