"""What addition, products and rounding mean: the few operations whose meaning an arithmetic may change.

The equations of the network are written once with these operations. Everything else they use (comparisons,
``where``, ``maximum``, ``take``, sums and differences of two arrays, products with a power of two) is exact or
correctly rounded in every library and is called on ``arithmetic.xp`` directly.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from mlp_xp.arithmetic.exact import Exact
from mlp_xp.arithmetic.native import Native
from mlp_xp.arithmetic.tables import Tables, make_tables
from mlp_xp.array_types import Array, Namespace

if TYPE_CHECKING:
    from mlp_xp.backend import Backend


class Arithmetic(Protocol):
    """The operations that an arithmetic defines; implementations are frozen, hashable values.

    ``round_activation``, ``round_gradient``, ``round_weight`` and ``round_state`` are the *rounding points*: places
    where an arithmetic may replace a tensor by a nearby one. Native arithmetic leaves it as it is.
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

    def certify(self, layer_sizes: tuple[int, ...], batch_size: int, scale: float) -> None:
        """See that no sum of a training step can round, if the arithmetic promises that.

        Parameters
        ----------
        layer_sizes : tuple of int
            As in `mlp_xp.network.Network`.
        batch_size : int
        scale : float
            Factor of stored features.

        Raises
        ------
        SettingsError
            If a sum could; names the layer, the bits and the remedy.
        """

    def for_inference(self) -> Arithmetic:
        """Return the arithmetic for rows that nothing is learnt from: no row's result depends on another row."""

    def matmul(self, left: Array, right: Array) -> Array:
        """Return the matrix product over the last two axes of two tensors that came from rounding points."""

    def sum(self, x: Array, axis: int | tuple[int, ...], *, keepdims: bool = False) -> Array:
        """Return the sum over ``axis``."""

    def sum_rounded(self, x: Array, axis: int) -> Array:
        """Return the sum over ``axis`` of a tensor that came from a rounding point."""

    def multiply(self, left: Any, right: Any) -> Array:
        """Return the product of two arrays, or of an array and a number, that may have to be rounded."""

    def divide(self, numerator: Array, denominator: Array) -> Array:
        """Return the quotient."""

    def exp(self, x: Array) -> Array:
        """Return e to the power of x; in exact arithmetic e**-300 for x < -300, and infinity for x ≥ 300."""

    def log(self, x: Array) -> Array:
        """Return the natural logarithm, for x ≥ 1."""

    def tanh(self, x: Array) -> Array:
        """Return the hyperbolic tangent."""

    def sqrt(self, x: Array) -> Array:
        """Return the square root, for x ≥ 0."""

    def round_activation(self, x: Array) -> Array:
        """Rounding point: the features, and what a layer hands to the next one."""

    def round_gradient(self, x: Array) -> Array:
        """Rounding point: what a layer hands back to the one before."""

    def round_weight(self, x: Array) -> Array:
        """Rounding point: the weights as the matrix products take them; the parameters keep all their bits."""

    def round_state(self, x: Array) -> Array:
        """Rounding point: what may fade away, as an optimiser's state, a penalised weight, a shortened gradient may."""


def _native(backend: Backend, dtype: str) -> Arithmetic:
    return Native(backend.xp, getattr(backend.xp, dtype), backend.device)


def _exact(backend: Backend, dtype: str) -> Arithmetic:
    host: Any = (array("d", table) for table in make_tables())  # this package imports no NumPy
    tables = Tables(*map(backend.asarray, host))
    return Exact(backend.xp, getattr(backend.xp, dtype), backend.device, backend.isolate, tables)


ARITHMETICS: Mapping[str, Callable[[Backend, str], Arithmetic]] = {"native": _native, "exact": _exact}


def make_arithmetic(name: str, backend: Backend, dtype: str) -> Arithmetic:
    """Return an arithmetic on a backend's arrays.

    Parameters
    ----------
    name : str
        A name in `ARITHMETICS`.
    backend : Backend
        An open one.
    dtype : str
        "float32" or "float64"; exact arithmetic has float64 alone.
    """
    return ARITHMETICS[name](backend, dtype)
