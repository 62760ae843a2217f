"""NumPy without its compiler: one operation at a time, as the step says them."""

from __future__ import annotations

import numpy as np

from mlp_xp.array_types import Array, PyTree
from mlp_xp.backend import Backend, MapStep, Step
from mlp_xp_numpy import NumPyBackend


class PlainBackend(NumPyBackend):
    """What NumPy's replayed programs are held against, and what test backends with operations of their own stand on."""

    name = "plain"

    def scan(
        self, step: Step, carry: PyTree, xs: tuple[Array, ...], constants: PyTree = ()
    ) -> tuple[PyTree, tuple[Array, ...]]:
        with np.errstate(over="ignore", invalid="ignore"):
            return Backend.scan(self, step, carry, xs, constants)

    def map_reduce(
        self, step: MapStep, zero: PyTree, xs: tuple[Array, ...], constants: PyTree = ()
    ) -> tuple[PyTree, tuple[Array, ...]]:
        return Backend.map_reduce(self, step, zero, xs, constants)
