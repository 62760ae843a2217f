"""What the tests of the equations share: arrays of a backend, and an assertion that looks at all of an array."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from mlp_xp.arithmetic import Arithmetic, make_arithmetic
from mlp_xp.array_types import Array, PyTree
from mlp_xp.backend import Backend
from mlp_xp.network import Layer, Network, NormalizedLayer, Parameters

DTYPES = ("float32", "float64")


def native(backend: Backend, dtype: str = "float64") -> Arithmetic:
    """Return native arithmetic on a backend, its 64-bit types switched on if need be."""
    backend.asarray(np.zeros(1), dtype)
    return make_arithmetic("native", backend, dtype)


def exact(backend: Backend) -> Arithmetic:
    """Return exact arithmetic on a backend."""
    backend.asarray(np.zeros(1), "float64")
    return make_arithmetic("exact", backend, "float64")


@dataclass(frozen=True)
class Once:
    """A step for `Backend.scan`: a function of an arithmetic and of the step's arrays."""

    function: Callable[..., Array]
    arithmetic: Arithmetic

    def __call__(self, carry: PyTree, x: tuple[Array, ...], _constants: PyTree) -> tuple[PyTree, tuple[Array, ...]]:
        return carry, (self.function(self.arithmetic, *x),)


def computed(function: Callable[..., Array], arithmetic: Arithmetic, backend: Backend, *hosts: Any) -> Array:
    """Return ``function(arithmetic, *arrays)`` as a training step computes it: compiled, where the library compiles."""
    xs = tuple(backend.asarray(np.asarray(host)[None, ...]) for host in hosts)
    _, (results,) = backend.scan(Once(function, arithmetic), (), xs)
    return results[0, ...]


def jax_says(code: str) -> str:
    """Return what some code prints in a process whose JAX has two devices."""
    flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    header = "import jax, numpy as np\nfrom mlp_xp.namespaces import backend_of\n"
    command = [sys.executable, "-c", header + code]
    return subprocess.run(command, env=os.environ | flags, capture_output=True, text=True, check=True).stdout


def as_integers(host: NDArray[Any]) -> int:
    """Return the largest of the integers that, times one power of two (the largest possible), are these numbers."""
    fractions = [abs(Fraction(x)) for x in np.ravel(host).tolist() if x]
    lowest_bit = min((Fraction(x.numerator & -x.numerator, x.denominator) for x in fractions), default=Fraction(1))
    return int(max(fractions, default=Fraction(0)) / lowest_bit)


def random_network(rng: np.random.Generator, network: Network, *leading: int) -> Parameters:
    """Return host parameters of random numbers in the usual range, of whatever layers the network has."""
    *hidden, last = random_parameters(rng, network.layer_sizes, *leading)
    if not network.batch_norm:
        return (*hidden, last)

    def normalized(weight: NDArray[Any], bias: NDArray[Any]) -> NormalizedLayer:
        scale, mean = rng.normal(size=(2, *bias.shape))
        return NormalizedLayer(weight, bias, scale, mean, rng.random(size=bias.shape) + 0.5)

    return (*(normalized(layer.weight, layer.bias) for layer in hidden), last)


def random_parameters(rng: np.random.Generator, sizes: tuple[int, ...], *leading: int) -> Parameters:
    """Return host parameters of random numbers in the usual range, of dense layers."""
    return tuple(
        Layer(
            rng.normal(size=(*leading, n_in, n_out)) / np.sqrt(n_in),
            rng.normal(size=(*leading, n_out)),
        )
        for n_in, n_out in pairwise(sizes)
    )


def assert_array(actual: Array, expected: Any, backend: Backend, *, like: Array, ulps: float = 4.0) -> None:
    """Assert that an array is the backend's, of ``like``'s dtype and device, and has the expected shape and values.

    Parameters
    ----------
    actual : array of the backend
    expected : array-like
        On the host, in float64.
    backend : Backend
    like : array
        Has the dtype and the device that the result must have.
    ulps : float
        Allowed error, as a multiple of the dtype's epsilon times the largest expected magnitude.
    """
    assert type(actual) is type(like)
    assert actual.dtype == like.dtype
    assert array_api_compat.device(actual) == array_api_compat.device(like)
    host = backend.to_host(actual)
    reference = np.asarray(expected, dtype=np.float64)
    assert host.shape == reference.shape
    assert_close(host, reference, ulps)


def assert_close(actual: NDArray[Any], expected: NDArray[Any], ulps: float = 4.0) -> None:
    """Assert that host values agree within a multiple of the epsilon of ``actual``'s dtype."""
    scale = max(float(np.max(np.abs(expected), initial=0.0)), float(np.finfo(actual.dtype).tiny))
    error = float(np.max(np.abs(actual.astype(np.float64) - expected), initial=0.0))
    allowed = ulps * float(np.finfo(actual.dtype).eps) * scale
    assert error <= allowed, f"off by {error:.3g}, allowed {allowed:.3g}"
