"""What addition, products and rounding mean: the few operations whose meaning an arithmetic may change.

The equations of the network are written once with these operations. Everything else they use (comparisons,
``where``, ``maximum``, ``take``, sums and differences of two arrays) is exact or correctly rounded in every
library and is called on ``arithmetic.xp`` directly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from mlp_xp.arithmetic.native import Native
from mlp_xp.array_types import Array, Namespace


class Arithmetic(Protocol):
    """The operations that an arithmetic defines; implementations are frozen, hashable values.

    ``round_activation``, ``round_gradient`` and ``round_update`` are the *rounding points*: places where an
    arithmetic may replace a tensor by a nearby one. Native arithmetic leaves it as it is.
    """

    @property
    def xp(self) -> Namespace:
        """The namespace of the arrays."""

    @property
    def dtype(self) -> Any:
        """The floating-point type of parameters and activations, an attribute of ``xp``."""

    @property
    def device(self) -> Any:
        """Where new arrays are made."""

    def matmul(self, left: Array, right: Array) -> Array:
        """Return the matrix product over the last two axes."""

    def sum(self, x: Array, axis: int | tuple[int, ...] | None, *, keepdims: bool = False) -> Array:
        """Return the sum over ``axis`` (None: over everything)."""

    def exp(self, x: Array) -> Array:
        """Return e to the power of x."""

    def log(self, x: Array) -> Array:
        """Return the natural logarithm."""

    def tanh(self, x: Array) -> Array:
        """Return the hyperbolic tangent."""

    def sqrt(self, x: Array) -> Array:
        """Return the square root."""

    def divide(self, numerator: Array, denominator: Array) -> Array:
        """Return the quotient."""

    def round_activation(self, x: Array) -> Array:
        """Rounding point: what a layer hands to the next one."""

    def round_gradient(self, x: Array) -> Array:
        """Rounding point: what a layer hands back to the one before."""

    def round_update(self, x: Array) -> Array:
        """Rounding point: what an optimiser adds to its state or to a parameter."""


ARITHMETICS: Mapping[str, Callable[..., Arithmetic]] = {"native": Native}
"""Name -> the arithmetic, made from ``(xp, dtype, device)``."""


def make_arithmetic(name: str, xp: Namespace, dtype: str, device: Any) -> Arithmetic:
    """Return an arithmetic on arrays of a namespace.

    Parameters
    ----------
    name : str
        A name in `ARITHMETICS`.
    xp : module
        An array API namespace.
    dtype : str
        "float32" or "float64".
    device : object
        Where new arrays are made, as ``xp`` names it.
    """
    return ARITHMETICS[name](xp, getattr(xp, dtype), device)
