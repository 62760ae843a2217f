"""Gradient clipping: a gradient that is too long is shortened, in its own direction."""

from __future__ import annotations

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array
from mlp_xp.network import Parameters


def gradient_norm(gradient: Parameters, arithmetic: Arithmetic) -> Array:
    """Return the Euclidean norm over all parameters, shape (...)."""
    total: Array | None = None
    for layer in gradient:
        for name, array in layer._asdict().items():
            axes = (-2, -1) if name == "weight" else -1
            squares = arithmetic.sum(arithmetic.multiply(array, array), axis=axes)
            total = squares if total is None else total + squares
    return arithmetic.sqrt(total)


def clip_by_norm(gradient: Parameters, largest: float, arithmetic: Arithmetic) -> Parameters:
    """Return the gradient × min(1, largest / norm).

    Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013, algorithm 1.

    Parameters
    ----------
    gradient : tuple of Layer
        Perhaps of many networks side by side; each has its own norm.
    largest : float
        > 0.
    arithmetic : Arithmetic
    """
    norm = gradient_norm(gradient, arithmetic)
    # A limit that the type does not hold would be 0 or infinite, and the factor not a number.
    numbers = arithmetic.xp.finfo(arithmetic.dtype)
    largest = min(max(largest, float(numbers.smallest_normal)), float(numbers.max))
    limit = arithmetic.xp.ones_like(norm) * largest
    factor = arithmetic.divide(limit, arithmetic.xp.maximum(norm, limit))  # exactly 1 where nothing is clipped

    def shortened(factors: Array, array: Array) -> Array:
        return arithmetic.round_state(arithmetic.multiply(factors, array))  # a small number × a small factor may fade

    of_row, of_matrix = factor[..., None], factor[..., None, None]
    return tuple(
        type(layer)(
            *(shortened(of_matrix if name == "weight" else of_row, array) for name, array in layer._asdict().items())
        )
        for layer in gradient
    )
