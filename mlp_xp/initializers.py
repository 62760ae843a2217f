"""Where training starts: names of initialisers, and the parameters they draw on the host.

The numbers are PCG64's raw words, whose stream NumPy guarantees across versions and machines, made into whole
multiples of a power of two with at most 24 bits. Every floating-point type from float32 up holds them exactly,
so every backend and every precision starts from the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np

from mlp_xp.array_types import Array, leaves
from mlp_xp.network import Layer, NormalizedLayer, Parameters
from mlp_xp.randomness import Stream, uniform

Bounds: TypeAlias = tuple[float, float]


def pytorch(n_in: int, _n_out: int) -> Bounds:
    """Weights and biases in ±1/√n_in: the default of PyTorch's ``nn.Linear``."""
    bound = 1.0 / math.sqrt(n_in)
    return bound, bound


def glorot(n_in: int, n_out: int) -> Bounds:
    """Weights in ±√(6 / (n_in + n_out)), biases 0 (Glorot and Bengio, AISTATS 2010, equation 16)."""
    return math.sqrt(6.0 / (n_in + n_out)), 0.0


def he(n_in: int, _n_out: int) -> Bounds:
    """Weights in ±√(6 / n_in), biases 0: variance 2 / n_in (He et al., ICCV 2015, equation 10)."""
    return math.sqrt(6.0 / n_in), 0.0


def lab(_n_in: int, _n_out: int) -> Bounds:
    """Weights and biases in ±0.1, whatever the layer's size."""
    return 0.1, 0.1


INITIALIZERS: Mapping[str, Callable[[int, int], Bounds]] = {
    "pytorch": pytorch,
    "glorot": glorot,
    "he": he,
    "lab": lab,
}
"""Name -> the bounds of the uniform distributions of a layer's weights and biases, from n_in and n_out."""


def initial_parameters(layer_sizes: tuple[int, ...], init: str, seed: int, *, batch_norm: bool = False) -> Parameters:
    """Draw the parameters of every layer.

    Parameters
    ----------
    layer_sizes : tuple of int
        As in `mlp_xp.network.Network`.
    init : str
        A name in `INITIALIZERS`.
    seed : int
        Non-negative.
    batch_norm : bool
        Whether the hidden layers are normalised over the batch: then their biases begin at 0 and their scales at 1.

    Returns
    -------
    tuple of Layer
        Host arrays of dtype float64.
    """
    layers = [initial_layer(*sizes, index, init, seed) for index, sizes in enumerate(pairwise(layer_sizes))]
    return with_batch_norm(layers) if batch_norm else tuple(layers)


def initial_layer(n_in: int, n_out: int, index: int, init: str, seed: int) -> Layer:
    """Draw the parameters of a layer, the ``index``-th of what the seed decides."""
    weight_bound, bias_bound = INITIALIZERS[init](n_in, n_out)
    weight: Any = uniform((n_in, n_out), weight_bound, seed, Stream.WEIGHT, index)
    return Layer(weight, uniform((n_out,), bias_bound, seed, Stream.BIAS, index))


def initial_replicas(
    layer_sizes: tuple[int, ...], init: str, seeds: Sequence[int], *, batch_norm: bool = False
) -> Parameters:
    """Draw the parameters of several networks, each as `initial_parameters` does, stacked along a leading axis."""
    n = len(seeds)
    # Made before anything is drawn: what no memory could hold fails at once.
    empty = [Layer(np.empty((n, *sizes)), np.empty((n, sizes[1]))) for sizes in pairwise(layer_sizes)]
    stacked = with_batch_norm(empty) if batch_norm else tuple(empty)
    for i, seed in enumerate(seeds):
        drawn = initial_parameters(layer_sizes, init, seed, batch_norm=batch_norm)
        for array, alone in zip(leaves(stacked), leaves(drawn), strict=True):
            array[i] = alone
    return stacked


def with_batch_norm(layers: Sequence[Layer]) -> Parameters:
    """Return layers of which the hidden ones are normalised over the batch; their biases are 0, their scales 1."""
    *hidden, last = layers

    def normalized(weight: Array, bias: Array) -> NormalizedLayer:
        return NormalizedLayer(weight, *(make(bias) for make in (np.zeros_like, np.ones_like) * 2))

    return (*(normalized(*layer) for layer in hidden), last)
