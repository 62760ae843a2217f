"""From an array to the backend that computes where it lives: the door for whoever comes with arrays, not with a name.

An array says which library it is of and which device it is on. If a backend is registered under the library's own
name ("numpy", "torch", …), it is opened on that device, and no other is imported. Otherwise the array API standard
has to do: `NamespaceBackend` needs nothing else of a library.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

import array_api_compat
import numpy as np

from mlp_xp.array_types import Array, Namespace, PyTree
from mlp_xp.backend import GROUP, Backend, Step, list_backends, load_backend, translating
from mlp_xp.errors import BackendUnavailable

if TYPE_CHECKING:
    from numpy.typing import NDArray


class NamespaceBackend(Backend):
    """Any library that follows the array API standard, one operation at a time.

    It is not opened by the name of a device but on one that an array is on: the standard promises no more of the
    devices that a library lists than that an array can be created there.

    Parameters
    ----------
    xp : module
        The library's namespace, of the standard of 2023.12 or later.
    device : object
        As an array has it.
    """

    def __init__(self, xp: Namespace, device: Any) -> None:
        if not hasattr(type(self), "name"):
            self.name = library_of(xp)
        if not hasattr(xp, "__array_namespace_info__"):
            raise BackendUnavailable(
                f"{self.name!r} does not follow the array API standard of 2023.12 or later; "
                f"convert its arrays to NumPy's first, or register a backend for it in the group {GROUP!r}"
            )
        self.xp = xp
        self.device = device

    @classmethod
    def devices(cls) -> list[str]:
        return []  # none by name

    def asarray(self, host: NDArray[np.generic], dtype: str | None = None) -> Array:
        # A copy in C order, as not every library takes every layout or memory that cannot be written to. The type is
        # given, too: by default a library may choose another one than the host's.
        copy = np.array(host, dtype=dtype, order="C")
        return self.xp.asarray(copy, dtype=getattr(self.xp, copy.dtype.name, None), device=self.device)

    def to_host(self, array: Array) -> NDArray[Any]:
        default = self.xp.__array_namespace_info__().default_device()
        moved = array if array.device == default else array_api_compat.to_device(array, default)
        # Most libraries have a protocol of NumPy's, too. It may refuse, and of an array without it NumPy makes one of
        # Python objects; then DLPack, the standard's protocol, brings the array from any device (with NumPy 2.1).
        with suppress(TypeError):
            host: NDArray[Any] = np.asarray(moved)
            if host.dtype != object:
                return host
        return np.from_dlpack(array, device="cpu")

    def describe(self) -> dict[str, Any]:
        library = library_of(self.xp)
        version = getattr(sys.modules.get(library), "__version__", self.xp.__array_api_version__)
        return {library: version, "device": self.device_of(self.xp.empty(0, device=self.device))}

    def scan(
        self, step: Step, carry: PyTree, xs: tuple[Array, ...], constants: PyTree = ()
    ) -> tuple[PyTree, tuple[Array, ...]]:
        with np.errstate(over="ignore", invalid="ignore"):  # many such libraries compute with NumPy
            return super().scan(step, carry, xs, constants)


def backend_of(array: Array) -> Backend:
    """Return the opened backend for the library and the device of an array; for the next one there, the same backend.

    Parameters
    ----------
    array : array
        Of any library that follows the array API standard. Lists, data frames and the like are for the caller to
        convert first, who knows as what.

    Raises
    ------
    TypeError
        If it is no array. This is a mistake in the calling code, so none of the errors that a user can mend.
    DataError
        If the array is not on one device, such as one that JAX is tracing.
    BackendUnavailable
        If the backend of this library cannot be opened, or not on this device.
    """
    try:
        xp = array_api_compat.array_namespace(array)
    except TypeError as error:
        raise TypeError(
            f"an object of type {type(array).__name__} is no array of a library that follows the array API standard; "
            "convert it first, for example by numpy.asarray"
        ) from error
    backend_class = _registered(library_of(xp))
    return _generic(xp, array.device) if backend_class is None else _open(backend_class, backend_class.device_of(array))


def is_foreign(values: Any) -> bool:
    """Return whether it is an array, and of another library than NumPy, the host's."""
    return array_api_compat.is_array_api_obj(values) and not isinstance(values, (np.ndarray, np.generic))


def library_of(xp: Namespace) -> str:
    """Return the name of the library that a namespace belongs to.

    >>> import array_api_compat.numpy
    >>> library_of(array_api_compat.numpy)
    'numpy'
    """
    name: str = xp.__name__
    return name.removeprefix("array_api_compat.").partition(".")[0]


# A backend is opened once for each device: that takes time, and what it has compiled stays with it. Two threads may
# both be the first, and then each has a backend that works.


@cache
def _open(backend_class: type[Backend], device: str) -> Backend:
    with translating(backend_class.name):
        return backend_class(device)


@cache
def _registered(library: str) -> type[Backend] | None:
    return load_backend(library) if library in list_backends() else None


_opened: list[NamespaceBackend] = []


def _generic(xp: Namespace, device: Any) -> NamespaceBackend:
    # Devices can be compared; the standard does not say that they can be hashed.
    for backend in _opened:
        if backend.xp is xp and backend.device == device:
            return backend
    backend = NamespaceBackend(xp, device)
    _opened.append(backend)
    return backend
