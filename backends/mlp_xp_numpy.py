"""NumPy: the reference backend, and the only one that is always there."""

from __future__ import annotations

import platform
from typing import Any

import array_api_compat.numpy as xp
import numpy as np
from threadpoolctl import threadpool_info

from mlp_xp.array_types import Array, PyTree
from mlp_xp.backend import Backend, Step, choose_device


class NumPyBackend(Backend):
    """NumPy on the CPU."""

    name = "numpy"

    def __init__(self, device: str | None = None) -> None:
        self.xp = xp
        self.device = choose_device(self.name, device, self.devices())

    def asarray(self, host: np.ndarray[Any, Any], dtype: str | None = None) -> Array:
        return np.asarray(host, dtype=dtype)

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        return np.asarray(array)

    def describe(self) -> dict[str, Any]:
        blas = [
            {key: info.get(key) for key in ("internal_api", "version", "architecture", "num_threads")}
            for info in threadpool_info()
            if info.get("user_api") == "blas"
        ]
        return {"numpy": np.__version__, "device": self.device, "machine": platform.machine(), "blas": blas}

    def scan(
        self, step: Step, carry: PyTree, xs: tuple[Array, ...], constants: PyTree = ()
    ) -> tuple[PyTree, tuple[Array, ...]]:
        # As every other library: an overflow shows in the result, which the caller looks at.
        with np.errstate(over="ignore", invalid="ignore"):
            return super().scan(step, carry, xs, constants)
