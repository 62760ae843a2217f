"""JAX whose compiler may merge a product with the addition that follows."""

from __future__ import annotations

from mlp_xp.array_types import Array
from mlp_xp_jax import JAXBackend


class MergingBackend(JAXBackend):
    """Keeps nothing apart."""

    name = "merging"

    @staticmethod
    def isolate(x: Array) -> Array:
        return x
