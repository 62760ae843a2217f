"""array-api-strict as a backend: the standard and nothing else, on devices that stand in for a GPU.

Its device "device1" refuses ``numpy.asarray`` of its arrays and arithmetic with another device's, so a hidden
copy to the host is an error there. Features that not every library has (boolean masks, shapes that depend on
values) are switched off.
"""

from __future__ import annotations

from typing import Any

import array_api_strict as xp
import numpy as np

from mlp_xp.array_types import Array, PyTree
from mlp_xp.backend import Backend, Step, choose_device

xp.set_array_api_strict_flags(boolean_indexing=False, data_dependent_shapes=False)


class StrictBackend(Backend):
    """array-api-strict on one of its devices."""

    name = "strict"

    def __init__(self, device: str | None = None) -> None:
        self.xp = xp
        self._device_name = choose_device(self.name, device, self.devices())
        self.device = xp.Device("CPU_DEVICE" if self._device_name == "cpu" else self._device_name)

    @classmethod
    def devices(cls) -> list[str]:
        return ["cpu", "device1"]

    def asarray(self, host: np.ndarray[Any, Any], dtype: str | None = None) -> Array:
        return xp.asarray(np.array(host, dtype=dtype), device=self.device)

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        return np.asarray(array.to_device(xp.Device("CPU_DEVICE")))

    def describe(self) -> dict[str, Any]:
        return {"array_api_strict": xp.__version__, "device": self._device_name}

    def scan(
        self, step: Step, carry: PyTree, xs: tuple[Array, ...], constants: PyTree = ()
    ) -> tuple[PyTree, tuple[Array, ...]]:
        with np.errstate(over="ignore", invalid="ignore"):  # it computes with NumPy
            return super().scan(step, carry, xs, constants)
