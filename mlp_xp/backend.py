"""What the project needs of an array library, and the door through which one comes in.

Needed: a namespace that follows the Python array API standard; a way to bring arrays from the host and back; a
way to wait for the device; and `Backend.scan`, a loop over a pure step function, which is where a library that
compiles does so.

Backends are found by name in the entry-point group ``mlp_xp.backends``. Listing them imports nothing.
"""

from __future__ import annotations

import difflib
import operator
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from mlp_xp.array_types import Array, Namespace, PyTree, leaves, rebuild
from mlp_xp.errors import BackendUnavailable, DeviceLost, MLPXPError, UnknownBackend

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GROUP = "mlp_xp.backends"

Step: TypeAlias = Callable[[PyTree, tuple[Array, ...], PyTree], tuple[PyTree, tuple[Array, ...]]]
MapStep: TypeAlias = Callable[[tuple[Array, ...], PyTree], tuple[PyTree, tuple[Array, ...]]]
Program = TypeVar("Program")


DEVICE_CALLS = ("asarray", "to_host", "synchronize", "scan", "map_reduce")
"""The methods that reach the device; `Backend.segment_sum` is a part of a step."""


def _told(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of a backend that raises what `Backend.failure` says an error means."""

    @wraps(method)
    def call(self: Backend, *arguments: Any, **options: Any) -> Any:
        try:
            return method(self, *arguments, **options)
        except Exception as error:
            self.tell(error)
            raise

    return call


class Backend(ABC):
    """An opened array library on one device.

    The methods of every subclass that reach the device (`DEVICE_CALLS`) tell memory that does not suffice as a
    `MemoryError` and a lost device as a `DeviceLost`, by its `failure`; `working` does so for operations of ``xp``.

    A subclass is named by an entry point. It has ``__init__(self, device)``, where ``device`` is one of `devices`
    or None for the library's default; that (or the import of its module) raises `BackendUnavailable` with reason
    and remedy if it cannot be opened, as `choose_device` does for a device that is not there.

    Attributes
    ----------
    name : str
        The name in the entry-point group.
    xp : module
        The library's array API namespace.
    device : object
        The device, as ``xp`` names it.
    rows_at_once : int
        How many rows are best pushed through a network at once where nothing is learnt: enough to keep the device
        busy; on a processor that goes through them operation by operation, no more than its cache holds.
    """

    name: str
    rows_at_once: ClassVar[int] = 4096
    xp: Namespace
    device: Any

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in DEVICE_CALLS:
            if not hasattr(method := getattr(cls, name), "__wrapped__"):
                setattr(cls, name, _told(method))

    @abstractmethod
    def __init__(self, device: str | None = None) -> None:
        """Open the library on a device."""

    @classmethod
    def devices(cls) -> list[str]:
        """Return the names of the devices that can be asked for, the default first."""
        return ["cpu"]

    @classmethod
    def device_of(cls, array: Array) -> str:
        """Return the name, as `devices` has it, of the device that an array of this library is on.

        Raises
        ------
        DataError
            If the array is not on one device.
        """
        return str(array.device)

    @abstractmethod
    def asarray(self, host: NDArray[np.generic], dtype: str | None = None) -> Array:
        """Bring a host array to the device; where that is the host, the two may share their memory.

        So as long as the one is in use, the other must not be written to.

        Parameters
        ----------
        host : ndarray
            With any strides; in a byte order that is not the machine's only if ``dtype`` is given.
        dtype : str, optional
            Name of the type it shall have there; by default its own.
        """

    @abstractmethod
    def to_host(self, array: Array) -> NDArray[Any]:
        """Bring a device array to the host, waiting for it if need be.

        The two may share their memory, and the result may be read-only: copy it before writing to it.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what may change the last bits of a result, as JSON can hold it.

        The library's version comes first, under whatever name; "device" is the device's name as `devices` has it.
        """

    @staticmethod
    def isolate(x: Array) -> Array:
        """Return x, kept apart from whatever uses it: exact arithmetic stands on this.

        A library that runs one operation at a time returns x itself. One that compiles must see to it that the
        operation that made x is neither merged with the next one (a product and a sum into a fused one, a chain of
        constants into a single one) nor moved across. Finite values and NaN stay as they are.
        """
        return x

    def segment_sum(self, x: Array, segments: Array, weights: Array, n_segments: int) -> tuple[Array, Array]:
        """Return the weighted sums of the rows of every segment, and the sums of their weights.

        A step may call it. It is a product with a table of weights and zeros, and a library that can add rows up
        sooner does. As by `isolate`, sums are kept apart from what uses them.

        Parameters
        ----------
        x : array of shape (n, d)
        segments : array of int32, shape (n,)
            Every row's segment, counted from 0.
        weights : array of shape (n,)
        n_segments : int

        Returns
        -------
        sums : array of shape (n_segments, d)
        totals : array of shape (n_segments,)
        """
        xp = self.xp
        numbers = xp.arange(n_segments, dtype=segments.dtype, device=self.device)
        members = xp.astype(xp.expand_dims(numbers, axis=-1) == segments, x.dtype) * weights
        return self.isolate(xp.matmul(members, x)), xp.sum(members, axis=-1)

    def synchronize(self) -> None:  # noqa: B027 - a library that computes at once has nothing to wait for
        """Wait until the device has done all that was asked of it."""

    def failure(self, error: Exception) -> Exception | None:  # noqa: ARG002 - by default no error is looked at
        """Return what an error of the library means.

        Returns
        -------
        MemoryError or DeviceLost or None
            A `MemoryError` says which size was asked for, if the library does; None is for any other error.
        """
        return None

    @contextmanager
    def working(self) -> Iterator[None]:
        """Turn errors of the library inside the ``with`` block into what `failure` says they mean."""
        try:
            yield
        except Exception as error:
            self.tell(error)
            raise

    def tell(self, error: Exception) -> None:
        """Raise what an error means, if `failure` knows it."""
        if not isinstance(error, MLPXPError) and (meaning := self.failure(error)) is not None:
            raise meaning from error

    def lost(self, error: Exception) -> DeviceLost:
        """Return the error to raise if the device does not work any more."""
        reason = str(error).strip().partition("\n")[0]
        return DeviceLost(
            f"backend {self.name!r}: the device {self.device} stopped working: {reason}; see to it (nvidia-smi shows "
            "what it does), or go on with another --backend or --device"
        )

    def scan(
        self, step: Step, carry: PyTree, xs: tuple[Array, ...], constants: PyTree = ()
    ) -> tuple[PyTree, tuple[Array, ...]]:
        """Run ``carry, y = step(carry, x, constants)`` for every x and stack the ys.

        Parameters
        ----------
        step : callable
            A pure function. A library that compiles keeps the compiled loop for every *equal* step, so a step
            should be a hashable value that equals another one with the same settings.
        carry : pytree
            What passes from step to step; its structure, shapes and dtypes stay the same.
        xs : tuple of arrays
            Arrays with a common first axis; each step gets the tuple of their rows.
        constants : pytree
            Arrays that every step may read.

        Returns
        -------
        carry : pytree
        ys : tuple of arrays
            What the steps returned, each stacked along a new first axis.
        """
        ys: list[tuple[Array, ...]] = []
        for i in range(xs[0].shape[0]):
            carry, y = step(carry, tuple(x[i, ...] for x in xs), constants)
            ys.append(y)
        return carry, tuple(self.xp.stack(rows) for rows in zip(*ys, strict=True))

    def map_reduce(
        self, step: MapStep, zero: PyTree, xs: tuple[Array, ...], constants: PyTree = ()
    ) -> tuple[PyTree, tuple[Array, ...]]:
        """Run ``summands, y = step(x, constants)`` for every x, add up the summands in order, and stack the ys.

        No step waits for another one, as in `scan`: a library may run several at once. The sums are the same.

        Parameters
        ----------
        step : callable
            As of `scan`.
        zero : pytree
            What the summands are added to, of their structure, shapes and dtypes.
        xs, constants
            As of `scan`.
        """
        return self.scan(Adding(step), zero, xs, constants)


@dataclass(frozen=True)
class Adding:
    """A step for `Backend.scan` that adds up the summands of one for `Backend.map_reduce`."""

    step: MapStep

    def __call__(self, carry: PyTree, x: tuple[Array, ...], constants: PyTree) -> tuple[PyTree, tuple[Array, ...]]:
        """Carry the sums."""
        summands, y = self.step(x, constants)
        return rebuild(carry, map(operator.add, leaves(carry), leaves(summands))), y


class Programs(dict[Hashable, Program]):
    """What a library that compiles keeps for equal steps: programs, each of which one thread at a time may run.

    Parameters
    ----------
    fewest_steps : int
        Of a loop that is worth a program at first sight.
    most : int
        Programs to be kept, each with its memory.
    """

    def __init__(self, fewest_steps: int, most: int) -> None:
        super().__init__()
        self._fewest_steps, self._most = fewest_steps, most
        self._seen: deque[int] = deque(maxlen=2 * most)
        self._lock = threading.Lock()

    def take(self, key: Hashable) -> Program | None:
        """Return a kept program, which is taken out while it runs: another thread must not write to its memory."""
        with self._lock:
            return self.pop(key, None)

    def keep(self, key: Hashable, program: Program) -> None:
        """Put a program back, or a new one in, and let go of those that were not used for longest."""
        with self._lock:
            self[key] = program
            while len(self) > self._most:
                self.pop(next(iter(self)))

    def are_worth(self, key: Hashable, n_steps: int) -> bool:
        """Whether a loop is to have a program: a long one, or a short one that is run again."""
        is_known = hash(key) in self._seen
        self._seen.append(hash(key))
        return is_known or n_steps >= self._fewest_steps


def list_backends() -> list[str]:
    """Return the names of all backends that are registered here; nothing is imported."""
    return sorted({entry.name for entry in metadata.entry_points(group=GROUP)})


def load_backend(name: str) -> type[Backend]:
    """Import a backend's module and return its class.

    Raises
    ------
    UnknownBackend
        If no backend of that name is registered.
    BackendUnavailable
        If its library is not installed or fails to import.
    """
    entries = {entry.name: entry for entry in metadata.entry_points(group=GROUP)}
    if name not in entries:
        close = difflib.get_close_matches(name.lower(), entries, n=len(entries), cutoff=0.0)
        raise UnknownBackend(
            f"unknown backend {name!r}; known, closest first: {', '.join(close)}. "
            f"A package adds one by an entry point in the group {GROUP!r}."
        )
    with translating(name):
        return entries[name].load()  # type: ignore[no-any-return]


def open_backend(name: str, device: str | None = None) -> Backend:
    """Open an array library on a device.

    Parameters
    ----------
    name : str
        One of `list_backends`.
    device : str, optional
        "cpu", "cuda", "cuda:1", …; by default what the library would choose itself.

    Raises
    ------
    UnknownBackend
        If no backend of that name is registered.
    BackendUnavailable
        If the library or the device is missing or does not work; the text says what to do.
    """
    backend_class = load_backend(name)
    with translating(name):
        return backend_class(device)


@contextmanager
def translating(name: str) -> Iterator[None]:
    """Turn whatever a library raises while it is being opened into a `BackendUnavailable`."""
    try:
        yield
    except MLPXPError:
        raise
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            f"backend {name!r}: the module {error.name!r} is not installed; install it into {sys.prefix}"
        ) from error
    except Exception as error:  # a library that is installed badly may raise anything
        raise BackendUnavailable(
            f"backend {name!r} cannot be opened: {type(error).__name__}: {error}; "
            "see whether its library works here by itself"
        ) from error


def choose_device(name: str, device: str | None, available: list[str]) -> str:
    """Return the device asked for, or the first available one; "cuda" means "cuda:0".

    Raises
    ------
    BackendUnavailable
        If that device is not among those available.
    """
    if device is None:
        return available[0]
    for candidate in (device, f"{device}:0"):
        if candidate in available:
            return candidate
    raise BackendUnavailable(f"backend {name!r} has no device {device!r} here; it has {', '.join(available)}")
