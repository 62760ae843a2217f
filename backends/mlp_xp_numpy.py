"""NumPy: the reference backend, and the only one that is always there."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

import mlp_xp_numpy_namespace as xp
from mlp_xp.array_types import Array, PyTree
from mlp_xp.backend import Backend, Step, choose_device
from mlp_xp_numpy_program import Program, signature

FEWEST_STEPS = 3
"""Of a loop that is worth tracing: that takes about as long as a step."""
MOST_PROGRAMS = 4
"""That are kept for later, each with its memory and its constants; the one that was used last stays longest."""


class NumPyBackend(Backend):
    """NumPy on the CPU."""

    name = "numpy"

    def __init__(self, device: str | None = None) -> None:
        self.xp = xp
        self.device = choose_device(self.name, device, self.devices())
        self._programs: dict[Any, Program] = {}

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
            if xs[0].shape[0] < FEWEST_STEPS:  # not worth a program
                return super().scan(step, carry, xs, constants)
            try:
                rows = tuple(x[0] for x in xs)
                key = step, signature(carry), signature(rows)
                # Taken out while it runs: another thread must not write to the same memory.
                program = self._programs.pop(key, None)
                if program is not None and not program.reads(constants):
                    program = None  # given up before the next one is made, as are the constants that it holds
                program = program or Program(step, carry, xs, constants)
            except Exception:  # whatever a step does that cannot be traced, the plain loop can do, or say why not
                return super().scan(step, carry, xs, constants)
            result = program.run(carry, xs)
            self._programs[key] = program
            while len(self._programs) > MOST_PROGRAMS:
                self._programs.pop(next(iter(self._programs)))
            return result
