"""CuPy: NumPy's interface on a CUDA device."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_xp.array_types import Array, PyTree
from mlp_xp.backend import Backend, Step, choose_device
from mlp_xp.errors import BackendUnavailable

REMEDY = "pip install 'mlp-xp[cupy13]' for CUDA 13 or 'mlp-xp[cupy12]' for CUDA 12"

try:
    import cupy
except ModuleNotFoundError as error:
    raise BackendUnavailable(f"backend 'cupy': CuPy is not installed; {REMEDY}") from error

import mlp_xp_cupy_namespace as xp
from mlp_xp_cuda_errors import meaning
from mlp_xp_cupy_graph import CAPTURING, Replays


class CuPyBackend(Backend):
    """CuPy on one CUDA device; its float32 products are float32 products unless CUPY_TF32=1 is set."""

    name = "cupy"

    def __init__(self, device: str | None = None) -> None:
        available = self.devices()
        if not available:
            raise BackendUnavailable(
                f"backend 'cupy': CuPy {cupy.__version__} is installed but finds no CUDA device; "
                f"it needs an NVIDIA GPU with a driver that fits ({REMEDY}); elsewhere use --backend numpy or jax"
            )
        self.xp = xp
        self.device = cupy.cuda.Device(int(choose_device(self.name, device, available).removeprefix("cuda:")))
        self.device.use()  # for whatever else is done with xp: CuPy computes on the thread's current device
        self._replays = Replays(cupy)

    @classmethod
    def devices(cls) -> list[str]:
        count = cupy.cuda.runtime.getDeviceCount() if cupy.is_available() else 0
        return [f"cuda:{i}" for i in range(count)]

    @classmethod
    def device_of(cls, array: Array) -> str:
        return f"cuda:{array.device.id}"

    def asarray(self, host: np.ndarray[Any, Any], dtype: str | None = None) -> Array:
        with self.device:
            return cupy.asarray(host, dtype=dtype)

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        with self.device:
            result: np.ndarray[Any, Any] = cupy.asnumpy(array)
        return result

    def describe(self) -> dict[str, Any]:
        properties = cupy.cuda.runtime.getDeviceProperties(self.device.id)
        return {
            "cupy": cupy.__version__,
            "cuda_runtime": cupy.cuda.runtime.runtimeGetVersion(),
            "cuda_driver": cupy.cuda.runtime.driverGetVersion(),
            "cublas": cupy.cuda.cublas.getVersion(self.device.cublas_handle),
            "device": f"cuda:{self.device.id}",
            "device_kind": properties["name"].decode(),
        }

    def failure(self, error: Exception) -> Exception | None:
        # What CuPy's pool could not get is a MemoryError of Python's already, and names the size.
        return meaning(self, error) if isinstance(error, RuntimeError) else None

    def synchronize(self) -> None:
        with CAPTURING:
            self.device.synchronize()

    def scan(
        self, step: Step, carry: PyTree, xs: tuple[Array, ...], constants: PyTree = ()
    ) -> tuple[PyTree, tuple[Array, ...]]:
        with self.device:
            return self._replays.scan(super().scan, step, carry, xs, constants)
