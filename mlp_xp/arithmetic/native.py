"""Native arithmetic: the library's own floating-point operations, rounded as the library rounds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlp_xp.array_types import Array, Namespace


@dataclass(frozen=True)
class Native:
    """IEEE floats as they are; every rounding point is the identity.

    Parameters
    ----------
    xp : module
        An array API namespace.
    dtype : object
        ``xp.float32`` or ``xp.float64``.
    device : object
        Where new arrays are made, as ``xp`` names it.
    """

    xp: Namespace
    dtype: Any
    device: Any = None

    def certify(self, layer_sizes: tuple[int, ...], batch_size: int, scale: float) -> None:
        pass

    def for_inference(self) -> Native:
        return self

    def matmul(self, left: Array, right: Array) -> Array:
        return self.xp.matmul(left, right)

    def sum(self, x: Array, axis: int | tuple[int, ...], *, keepdims: bool = False) -> Array:
        return self.xp.sum(x, axis=axis, keepdims=keepdims)

    def sum_rounded(self, x: Array, axis: int) -> Array:
        return self.xp.sum(x, axis=axis)

    def multiply(self, left: Any, right: Any) -> Array:
        return left * right

    def exp(self, x: Array) -> Array:
        return self.xp.exp(x)

    def log(self, x: Array) -> Array:
        return self.xp.log(x)

    def tanh(self, x: Array) -> Array:
        return self.xp.tanh(x)

    def sqrt(self, x: Array) -> Array:
        return self.xp.sqrt(x)

    def divide(self, numerator: Array, denominator: Array) -> Array:
        return numerator / denominator

    def round_activation(self, x: Array) -> Array:
        return x

    def round_gradient(self, x: Array) -> Array:
        return x

    def round_weight(self, x: Array) -> Array:
        return x

    def round_state(self, x: Array) -> Array:
        return x
