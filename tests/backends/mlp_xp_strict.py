"""array-api-strict as a backend: the standard and nothing else, on devices that stand in for a GPU.

Its device "device1" refuses ``numpy.asarray`` of its arrays and arithmetic with another device's, so a hidden
copy to the host is an error there. Features that not every library has (boolean masks, shapes that depend on
values) are switched off.
"""

from __future__ import annotations

import array_api_strict as xp

from mlp_xp.array_types import Array
from mlp_xp.backend import choose_device
from mlp_xp.namespaces import NamespaceBackend

xp.set_array_api_strict_flags(boolean_indexing=False, data_dependent_shapes=False)

DEVICES = {"cpu": xp.Device("CPU_DEVICE"), "device1": xp.Device("device1")}


class StrictBackend(NamespaceBackend):
    """array-api-strict on one of two of its devices."""

    name = "strict"

    def __init__(self, device: str | None = None) -> None:
        super().__init__(xp, DEVICES[choose_device(self.name, device, self.devices())])

    @classmethod
    def devices(cls) -> list[str]:
        return list(DEVICES)

    @classmethod
    def device_of(cls, array: Array) -> str:
        return next((name for name, device in DEVICES.items() if device == array.device), str(array.device))
