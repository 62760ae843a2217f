"""NumPy: the reference backend, and the only one that is always there."""

from __future__ import annotations

import logging
import platform
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController, threadpool_info

import mlp_xp_numpy_namespace as xp
from mlp_xp.array_types import Array, PyTree, leaves, rebuild, signature
from mlp_xp.backend import Backend, MapStep, Programs, Step, choose_device
from mlp_xp_numpy_program import Program

FEWEST_STEPS = 16
"""Of a loop that is worth tracing at first sight: that takes as long as two to four steps."""
MOST_PROGRAMS = 4
"""That are kept for later, each with its memory; the one that was used last stays longest."""

_limiting = threading.Lock()
"""Of the number of BLAS's threads, which is the whole process's."""

_log = logging.getLogger(__name__)


class NumPyBackend(Backend):
    """NumPy on the CPU."""

    name = "numpy"
    rows_at_once = 1024

    def __init__(self, device: str | None = None) -> None:
        self.xp = xp
        self.device = choose_device(self.name, device, self.devices())
        self._programs: Programs[Program] = Programs(FEWEST_STEPS, MOST_PROGRAMS)

    def asarray(self, host: np.ndarray[Any, Any], dtype: str | None = None) -> Array:
        return np.asarray(host, dtype=dtype)

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        return np.asarray(array)

    def segment_sum(self, x: Array, segments: Array, weights: Array, n_segments: int) -> tuple[Array, Array]:
        from scipy.sparse import csc_array  # here alone: its import takes longer than NumPy's

        # A sparse product adds row by row, each to its sum, which stays in the cache.
        starts = np.arange(len(x) + 1, dtype=segments.dtype)  # of columns, each with one number
        members = csc_array((weights, segments, starts), shape=(n_segments, len(x)))
        return members @ x, np.bincount(segments, weights, n_segments).astype(x.dtype)

    def describe(self) -> dict[str, Any]:
        blas = [
            {key: info.get(key) for key in ("internal_api", "version", "architecture", "num_threads")}
            for info in threadpool_info()
            if info.get("user_api") == "blas"
        ]
        return {"numpy": np.__version__, "device": self.device, "machine": platform.machine(), "blas": blas}

    def map_reduce(
        self, step: MapStep, zero: PyTree, xs: tuple[Array, ...], constants: PyTree = ()
    ) -> tuple[PyTree, tuple[Array, ...]]:
        # Threads that take whole steps share out all of their operations, of which BLAS's only share out its own.
        n_threads = max((info["num_threads"] for info in self._blas.info()), default=1)
        numbers = range(xs[0].shape[0])

        def run(i: int) -> tuple[PyTree, tuple[Array, ...]]:
            with np.errstate(over="ignore", invalid="ignore"):
                return step(tuple(x[i] for x in xs), constants)

        def add_up(results: Iterable[tuple[PyTree, tuple[Array, ...]]]) -> tuple[PyTree, tuple[Array, ...]]:
            sums, ys = zero, []
            for summands, y in results:
                sums = rebuild(sums, map(np.add, leaves(sums), leaves(summands)))
                ys.append(y)
            return sums, tuple(map(np.stack, zip(*ys, strict=True)))

        if min(n_threads, len(numbers)) == 1:
            return add_up(map(run, numbers))
        with _limiting, self._blas.limit(limits=1), ThreadPoolExecutor(n_threads) as pool:
            return add_up(pool.map(run, numbers))

    @cached_property
    def _blas(self) -> ThreadpoolController:
        return ThreadpoolController().select(user_api="blas")

    def scan(
        self, step: Step, carry: PyTree, xs: tuple[Array, ...], constants: PyTree = ()
    ) -> tuple[PyTree, tuple[Array, ...]]:
        # As every other library: an overflow shows in the result, which the caller looks at.
        with np.errstate(over="ignore", invalid="ignore"):
            try:
                rows = tuple(x[0] for x in xs)
                key = step, signature(carry), signature(rows), signature(constants, "strides")
                program = self._programs.take(key)
                if program is None and self._programs.are_worth(key, xs[0].shape[0]):
                    program = Program(step, carry, xs, constants)
                if program is not None:
                    try:
                        return program.run(carry, xs, constants)
                    finally:
                        self._programs.keep(key, program)
            except Exception as error:
                _log.debug("%r is run without being traced: %s", step, error)
            carry, ys = super().scan(step, carry, xs, constants)
            return rebuild(carry, map(np.asanyarray, leaves(carry))), ys  # a 0-d array is a number after any operation
