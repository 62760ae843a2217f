"""NumPy whose arrays cannot be written to: a step that writes to an argument fails."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_xp.array_types import Array, PyTree
from mlp_xp.backend import Step
from mlp_xp_plain import PlainBackend


def freeze(tree: PyTree) -> PyTree:
    """Return a pytree of read-only views of its arrays."""
    if isinstance(tree, tuple):
        frozen = [freeze(leaf) for leaf in tree]
        return type(tree)(*frozen) if hasattr(tree, "_fields") else tuple(frozen)
    if isinstance(tree, (np.ndarray, np.generic)):
        view = np.asarray(tree).view()
        view.flags.writeable = False
        return view
    return tree


class ReadOnlyBackend(PlainBackend):
    """NumPy, with everything that a step receives made read-only."""

    name = "readonly"

    def asarray(self, host: np.ndarray[Any, Any], dtype: str | None = None) -> Array:
        return freeze(super().asarray(host, dtype))

    def scan(
        self, step: Step, carry: PyTree, xs: tuple[Array, ...], constants: PyTree = ()
    ) -> tuple[PyTree, tuple[Array, ...]]:
        def frozen_step(carry: PyTree, x: tuple[Array, ...], constants: PyTree) -> Any:
            return step(freeze(carry), freeze(x), freeze(constants))

        return super().scan(frozen_step, carry, xs, constants)
