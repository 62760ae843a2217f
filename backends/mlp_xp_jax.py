"""JAX: the training loop is one compiled ``lax.scan``; ``jax.grad`` is used nowhere."""

from __future__ import annotations

import contextlib
import re
from functools import partial
from typing import Any

import numpy as np

from mlp_xp.array_types import Array, PyTree
from mlp_xp.backend import Backend, Step, choose_device
from mlp_xp.errors import BackendUnavailable, DataError

try:
    import jax
except ModuleNotFoundError as error:
    raise BackendUnavailable("backend 'jax': JAX is not installed; pip install 'mlp-xp[jax]'") from error

from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mlp_xp_cuda_errors import meaning

MANY_SEGMENTS = 32
"""Of which a processor adds up the rows one by one sooner than by a product."""
LOST = ("UNAVAILABLE", "ABORTED", "DATA_LOSS")
"""How XLA's errors begin when a device is to blame; "INTERNAL" may be CUDA's words, or a mistake of its compiler."""


def _devices() -> dict[str, Any]:
    """Return name -> device over all platforms, JAX's default first."""
    found = {}
    devices = jax.devices()
    with contextlib.suppress(RuntimeError):  # JAX_PLATFORMS may leave the CPU out
        devices += [] if jax.default_backend() == "cpu" else jax.devices("cpu")
    for device in devices:
        found[_name(device)] = device
    return found


def _name(device: Any) -> str:
    kind = "cuda" if device.platform == "gpu" else device.platform
    return "cpu" if kind == "cpu" and device.id == 0 else f"{kind}:{device.id}"


def _span(name: str) -> list[str]:
    """Return the names in a span of devices, such as "cpu:0-3"; of anything else, itself."""
    if not (span := re.fullmatch(r"(\w+):(\d+)-(\d+)", name)):
        return [name]
    kind, first, last = span[1], int(span[2]), int(span[3])
    return [f"{kind}:{i}" if (kind, i) != ("cpu", 0) else "cpu" for i in range(first, last + 1)]


class JAXBackend(Backend):
    """JAX on one device, or on a span of them such as "cuda:0-3", which share out the rows of every batch.

    Opening it sets two of JAX's process-wide options, as JAX has no others: float32 products are computed in
    float32 (a GPU's default is TF32) unless the user has set a precision, and 64-bit types are switched on when
    the first 64-bit array is asked for (by default JAX would make it 32 bits wide).
    """

    name = "jax"

    def __init__(self, device: str | None = None) -> None:
        self.xp = jax.numpy
        found = _devices()
        names = [choose_device(self.name, name, list(found)) for name in (_span(device) if device else [None])]
        self._device_name = names[0] if len(names) == 1 else str(device)
        self._first, self._rows = found[names[0]], None
        self.device = self._first
        if len(names) > 1:
            mesh = Mesh(np.array([found[name] for name in names]), ("rows",))
            self.device = NamedSharding(mesh, PartitionSpec())  # a copy of everything on each
            self._rows = NamedSharding(mesh, PartitionSpec(None, "rows"))  # but each its part of a batch
        if jax.config.jax_default_matmul_precision is None:
            jax.config.update("jax_default_matmul_precision", "highest")

    @classmethod
    def devices(cls) -> list[str]:
        return list(_devices())

    @classmethod
    def device_of(cls, array: Array) -> str:
        if isinstance(array, jax.core.Tracer):
            raise DataError(
                "this JAX array is only being traced (by jax.jit, grad, vmap or the like), so it has no values and is "
                "on no device; make this call outside of the function that JAX traces"
            )
        names = sorted(map(_name, array.devices()))
        if len(names) > 1:
            raise DataError(
                f"this JAX array is spread over {len(names)} devices ({', '.join(names)}); "
                "bring it to one first, for example by jax.device_put(array, jax.devices()[0])"
            )
        return names[0]

    def asarray(self, host: np.ndarray[Any, Any], dtype: str | None = None) -> Array:
        # The copy is ours alone: device_put may keep the host's memory, and JAX computes later than it is asked to.
        copy = np.array(host, dtype=dtype)
        if copy.dtype.itemsize == 8:
            jax.config.update("jax_enable_x64", True)
        return jax.device_put(copy, self.device)

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        return np.asarray(array)

    def describe(self) -> dict[str, Any]:
        return {
            "jax": jax.__version__,
            "jaxlib": jax.lib.__version__,
            "device": self._device_name,
            "device_kind": self._first.device_kind,
            "matmul_precision": jax.config.jax_default_matmul_precision,
        }

    @staticmethod
    def isolate(x: Array) -> Array:
        # XLA merges and re-orders across its own barriers, but not across a maximum that it cannot decide.
        return jax.numpy.maximum(x, jax.numpy.finfo(x.dtype).min)

    def segment_sum(self, x: Array, segments: Array, weights: Array, n_segments: int) -> tuple[Array, Array]:
        if self._first.platform != "cpu" or n_segments < MANY_SEGMENTS:
            return super().segment_sum(x, segments, weights, n_segments)
        sums, totals = (jax.ops.segment_sum(rows, segments, n_segments) for rows in (x * weights[:, None], weights))
        return self.isolate(sums), totals

    def failure(self, error: Exception) -> Exception | None:
        if not isinstance(error, jax.errors.JaxRuntimeError):
            return None
        status, _, text = str(error).partition(": ")
        if status == "RESOURCE_EXHAUSTED":
            return MemoryError(text.partition("\n")[0].rstrip("."))
        if self._first.platform == "cpu":
            return None
        return self.lost(error) if status in LOST else meaning(self, error)

    def synchronize(self) -> None:
        jax.block_until_ready(jax.live_arrays())  # JAX has no wait for all that a device was asked to do

    def scan(
        self, step: Step, carry: PyTree, xs: tuple[Array, ...], constants: PyTree = ()
    ) -> tuple[PyTree, tuple[Array, ...]]:
        result: tuple[PyTree, tuple[Array, ...]] = _scan(step, self._rows, carry, xs, constants)
        return result


@partial(jax.jit, static_argnums=(0, 1))
def _scan(step: Step, rows: NamedSharding | None, carry: PyTree, xs: tuple[Array, ...], constants: PyTree) -> Any:
    if rows is not None:
        xs = jax.lax.with_sharding_constraint(xs, rows)
    return jax.lax.scan(lambda carry, x: step(carry, x, constants), carry, xs)
