"""PyTorch, without autograd: shows that one more library costs one small module."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_xp.array_types import Array, PyTree
from mlp_xp.backend import Backend, Step, choose_device
from mlp_xp.errors import BackendUnavailable, DataError

try:
    import torch
except ModuleNotFoundError as error:
    raise BackendUnavailable("backend 'torch': PyTorch is not installed; pip install 'mlp-xp[torch]'") from error

import array_api_compat.torch as xp

from mlp_xp_cuda_errors import meaning


class TorchBackend(Backend):
    """PyTorch on the CPU or a CUDA device; its float32 products are float32 products by default."""

    name = "torch"

    def __init__(self, device: str | None = None) -> None:
        self.xp = xp
        self.device = torch.device(choose_device(self.name, device, self.devices()))

    @classmethod
    def devices(cls) -> list[str]:
        return [*(f"cuda:{i}" for i in range(torch.cuda.device_count())), "cpu"]

    @classmethod
    def device_of(cls, array: Array) -> str:
        if array.layout is not torch.strided:
            raise DataError(f"this PyTorch tensor is sparse ({array.layout}); call its to_dense() first")
        return super().device_of(array)

    def failure(self, error: Exception) -> Exception | None:
        if not isinstance(error, RuntimeError):
            return None
        text, of_cpu, reason = str(error).partition("\n")[0].partition("DefaultCPUAllocator: ")
        if of_cpu or isinstance(error, torch.OutOfMemoryError):
            return MemoryError(reason or text)
        return meaning(self, error)

    def asarray(self, host: np.ndarray[Any, Any], dtype: str | None = None) -> Array:
        # A copy in C order, since PyTorch takes no negative strides.
        return torch.from_numpy(np.array(host, dtype=dtype, order="C")).to(self.device)

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        result: np.ndarray[Any, Any] = array.numpy(force=True)
        return result

    def describe(self) -> dict[str, Any]:
        kind = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {
            "torch": torch.__version__,
            "device": str(self.device),
            "device_kind": kind,
            "threads": torch.get_num_threads(),
            "matmul_precision": torch.get_float32_matmul_precision(),
        }

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def scan(
        self, step: Step, carry: PyTree, xs: tuple[Array, ...], constants: PyTree = ()
    ) -> tuple[PyTree, tuple[Array, ...]]:
        with torch.no_grad():
            return super().scan(step, carry, xs, constants)
