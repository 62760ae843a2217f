"""Backends that are wrong in the ways of real ones: products in too few bits, a factor, infinity, a crash."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from mlp_xp.array_types import Array
from mlp_xp_numpy import NumPyBackend
from mlp_xp_plain import PlainBackend


class Namespace:
    """A namespace with another matrix product."""

    def __init__(self, xp: Any, matmul: Callable[[Array, Array], Array]) -> None:
        self._xp = xp
        self.matmul = matmul

    def __getattr__(self, name: str) -> Any:
        return getattr(self._xp, name)


def rounded(array: Array, bits: int) -> Array:
    """Return the array with that many significant bits."""
    mantissa, exponent = np.frexp(array)
    return np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits).astype(array.dtype)


class WrongBackend(PlainBackend):
    """NumPy but for its matrix product."""

    def __init__(self, device: str | None = None) -> None:
        super().__init__(device)
        self.xp = Namespace(self.xp, self.matmul)

    @abstractmethod
    def matmul(self, left: Array, right: Array) -> Array:
        """Return a product that is not the right one."""


class TF32Backend(WrongBackend):
    """In float32, factors of 11 significant bits: what a GPU does where it is allowed to."""

    name = "tf32"

    def matmul(self, left: Array, right: Array) -> Array:
        if left.dtype == np.float32:
            return rounded(left, 11) @ rounded(right, 11)
        return left @ right


class BfloatBackend(WrongBackend):
    """Factors of 8 significant bits."""

    name = "bfloat"

    def matmul(self, left: Array, right: Array) -> Array:
        return rounded(left, 8) @ rounded(right, 8)


class EmulatedBackend(WrongBackend):
    """Products good to 48 bits, as from several of half the width: right to the eye, and to any ordinary tolerance."""

    name = "emulated"

    def matmul(self, left: Array, right: Array) -> Array:
        return rounded(left @ right, 48)


class ScaledBackend(WrongBackend):
    """Products a little too large."""

    name = "scaled"

    def matmul(self, left: Array, right: Array) -> Array:
        return (left @ right) * (1 + 1e-4)


class InfiniteBackend(WrongBackend):
    """Products of infinity."""

    name = "infinite"

    def matmul(self, left: Array, right: Array) -> Array:
        return (left @ right) + np.inf


class LateBackend(WrongBackend):
    """A hundred right products, and then infinity."""

    name = "late"

    def __init__(self, device: str | None = None) -> None:
        super().__init__(device)
        self.products = 0

    def matmul(self, left: Array, right: Array) -> Array:
        self.products += 1
        return left @ right if self.products <= 100 else (left @ right) + np.inf


class CrashingBackend(NumPyBackend):
    """Cannot be opened, and says so in its own way."""

    name = "crashing"

    def __init__(self, device: str | None = None) -> None:
        super().__init__(device)
        raise RuntimeError("the driver is too old")


class UnlistedBackend(NumPyBackend):
    """Its devices are not a list."""

    name = "unlisted"

    @classmethod
    def devices(cls) -> list[str]:
        return None  # type: ignore[return-value]
