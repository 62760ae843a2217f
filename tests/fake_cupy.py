"""A stand-in for CuPy without a GPU: the few calls that capturing takes, as CuPy has them, computed by NumPy.

It is honest where a mistake would show on a GPU alone. While a stream is captured nothing is computed, and whatever
looks at values, or calls cuBLAS, raises. A graph knows nothing but addresses, and memory that is freed is handed out
again, spoilt.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import array_api_compat.numpy
import numpy as np

from mlp_xp.array_types import Array, PyTree
from mlp_xp.backend import Backend, Step
from mlp_xp_cupy_graph import CAPTURING, Replays, product

SPOILT = 0xFF  # makes a float not a number, an index far out of bounds


class Here(threading.local):
    """What CuPy keeps for every thread."""

    def __init__(self) -> None:
        self.streams = [Stream()]
        self.allocators: list[Callable[[int], MemoryPointer]] = [default_pool.malloc]


class Memory:
    """A block, which belongs to the next one who asks for its size when it is freed."""

    device_id = 0
    freed: ClassVar[dict[int, list[Any]]] = {}

    def __init__(self, size: int) -> None:
        try:
            self._bytes = self.freed[size].pop()
        except (KeyError, IndexError):
            self._bytes = np.empty(size, np.uint8)
        self._bytes[...] = SPOILT
        self.ptr = self._bytes.ctypes.data

    def __del__(self) -> None:
        self.freed.setdefault(self._bytes.size, []).append(self._bytes)


class UnownedMemory:
    """An address."""

    def __init__(self, ptr: int, _size: int, _owner: object, device_id: int) -> None:
        self.ptr, self.device_id = ptr, device_id


class MemoryPointer:
    """A place in a block."""

    def __init__(self, mem: Any, offset: int) -> None:
        self.mem, self.ptr, self.device_id = mem, mem.ptr + offset, mem.device_id


class PooledMemory:
    """Memory that goes back to its pool."""

    def __init__(self, block: Any, size: int, pool: MemoryPool) -> None:
        self.ptr, self.device_id, self._block, self._size = block.ptr, block.device_id, block, size
        self._pool = weakref.ref(pool)

    def __del__(self) -> None:
        if (pool := self._pool()) is not None:
            pool.free.setdefault(self._size, []).append(self._block)


class MemoryPool:
    """A pool that asks an allocator for what it has not."""

    def __init__(self, allocator: Callable[[int], MemoryPointer] = lambda size: MemoryPointer(Memory(size), 0)) -> None:
        self._allocator = allocator
        self._blocks: list[Any] = []  # all of them, so that what ends in a cycle of references is freed once
        self.free: dict[int, list[Any]] = {}

    def malloc(self, size: int) -> MemoryPointer:
        size = -(-size // 512) * 512
        try:
            block = self.free[size].pop()
        except (KeyError, IndexError):  # of several threads, one may be quicker
            self._blocks.append(block := self._allocator(size).mem)
        return MemoryPointer(PooledMemory(block, size, self), 0)


class Event:
    """Remembers the streams that it was recorded on and waited for."""

    def __init__(self, *, disable_timing: bool) -> None:
        assert disable_timing
        self.log: list[tuple[str, Stream]] = []

    def record(self, stream: Stream) -> None:
        self.log.append(("recorded", stream))


class Stream:
    """A stream that computes at once, or captures."""

    def __init__(self, *, non_blocking: bool = False) -> None:
        self._non_blocking = non_blocking
        self.captured: list[Callable[[], Any]] | None = None
        self.is_invalid = False

    def __enter__(self) -> Stream:
        here.streams.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        here.streams.pop()

    def begin_capture(self) -> None:
        assert self._non_blocking, "the default stream is captured, or the others' work on it refused meanwhile"
        assert self.captured is None
        self.captured = []
        capturing.add(self)

    def end_capture(self) -> Graph:
        capturing.discard(self)
        kernels, self.captured = self.captured, None
        is_invalid, self.is_invalid = self.is_invalid, False
        if kernels is None or is_invalid:
            raise RuntimeError("cudaErrorIllegalState" if kernels is None else "cudaErrorStreamCaptureInvalidated")
        return Graph(kernels)

    def synchronize(self) -> None:
        assert self.captured is None

    def wait_event(self, event: Event) -> None:
        event.log.append(("waited for", self))


class Graph:
    """What was captured."""

    def __init__(self, kernels: list[Callable[[], Any]]) -> None:
        self.kernels = kernels

    def launch(self) -> None:
        assert here.streams[-1].captured is None
        for kernel in self.kernels:
            kernel()


default_pool = MemoryPool()
here = Here()
capturing: set[Stream] = set()


def refuse_while_capturing(error: type[Exception], what: str) -> None:
    if here.streams[-1].captured is not None:
        raise error(f"{what} while the current stream is capturing")


def at(ptr: int, shape: tuple[int, ...], dtype: Any, strides: Any = None) -> np.ndarray[Any, Any]:
    """Return the array at an address; it keeps no memory."""
    extent = np.dtype(dtype).itemsize + sum(
        (n - 1) * abs(s) for n, s in zip(shape, strides or (), strict=bool(strides))
    )
    size = max(extent, int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return np.ndarray(shape, dtype, (ctypes.c_char * size).from_address(ptr), 0, strides)


class ndarray(np.ndarray[Any, Any]):  # noqa: N801 - as CuPy names it
    """An array on the device: NumPy's layout, and values that only kernels touch."""

    memory: Any

    def __new__(cls, shape: tuple[int, ...], dtype: Any, memptr: MemoryPointer, strides: Any = None) -> ndarray:
        array: ndarray = at(memptr.ptr, shape, dtype, strides).view(cls)
        array.memory = memptr.mem
        return array

    @property
    def data(self) -> Any:
        return MemoryPointer(self.memory, self.ctypes.data - self.memory.ptr)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        (target,) = options.pop("out", (None,))
        return compute(getattr(ufunc, method), *inputs, target=target, **options)

    def __array_function__(self, function: Any, _types: Any, arguments: Any, options: Any) -> Any:
        return compute(function, *arguments, **options)

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        return compute(lambda x: x[key if Ellipsis in parts else (*parts, ...)], self)

    def astype(self, dtype: Any, *, copy: bool = True) -> Any:  # type: ignore[override]
        return self if self.dtype == dtype and not copy else compute(np.ndarray.astype, self, dtype)

    def copy(self) -> Any:  # type: ignore[override]
        return compute(np.copy, self)

    def view(self, dtype: Any) -> Any:  # type: ignore[override]
        return compute(lambda x: x.view(dtype), self)

    def get(self) -> np.ndarray[Any, Any]:
        refuse_while_capturing(RuntimeError, "a copy to the host")
        return np.array(plain(self))

    def __bool__(self) -> bool:
        return bool(self.get())

    def __float__(self) -> float:
        return float(self.get())


def plain(x: Any) -> Any:
    """Return what a kernel has of an argument: the address."""
    if isinstance(x, (tuple, list)):
        return type(x)(map(plain, x))
    return at(x.ctypes.data, x.shape, x.dtype, x.strides) if isinstance(x, ndarray) else x


def arrays_in(x: Any) -> Iterator[ndarray]:
    for part in x if isinstance(x, (tuple, list)) else ():
        yield from arrays_in(part)
    if isinstance(x, ndarray):
        yield x


def empty(shape: tuple[int, ...], dtype: Any) -> ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return ndarray(shape, dtype, here.allocators[-1](size))


def compute(function: Callable[..., Any], *arguments: Any, target: Any = None, **options: Any) -> Any:
    """Ask the current stream for a result; what only looks at an argument otherwise is nothing that is computed."""
    given = [plain(x) for x in arguments]
    assert not any(isinstance(x, np.ndarray) and x.ndim and plain(x) is x for x in arguments), "an array of the host"
    with np.errstate(all="ignore"):
        example = np.asarray(function(*given, **options))
    for owner in arrays_in(arguments):
        if target is None and example.size and np.may_share_memory(example, plain(owner)):
            pointer = MemoryPointer(owner.memory, example.ctypes.data - owner.memory.ptr)
            return ndarray(example.shape, example.dtype, pointer, example.strides)
    result = empty(example.shape, example.dtype) if target is None else target
    there = plain(result)

    def kernel() -> None:
        with np.errstate(all="ignore"):
            there[...] = function(*given, **options)

    captured = here.streams[-1].captured
    captured.append(kernel) if captured is not None else kernel()
    return result


def matmul(left: ndarray, right: ndarray, out: ndarray | None = None) -> Any:
    refuse_while_capturing(NotImplementedError, "cuBLAS")
    return compute(np.matmul, left, right, target=out)


def asarray(host: Any, dtype: Any = None) -> Any:
    refuse_while_capturing(RuntimeError, "a copy to the device")
    values = np.asarray(host, dtype)
    array = empty(values.shape, values.dtype)
    plain(array)[...] = values
    return array


@contextmanager
def using_allocator(allocator: Callable[[int], MemoryPointer]) -> Iterator[None]:
    here.allocators.append(allocator)
    try:
        yield
    finally:
        here.allocators.pop()


def copyto(target: ndarray, source: ndarray) -> None:
    compute(lambda x: x, source, target=target)


cupy = SimpleNamespace(
    ndarray=ndarray,
    empty=empty,
    copyto=copyto,
    matmul=matmul,
    ravel=np.ravel,
    array_equal=np.array_equal,
    may_share_memory=lambda x, y: np.may_share_memory(plain(x), plain(y)),
    cuda=SimpleNamespace(
        Event=Event,
        Memory=Memory,
        MemoryPointer=MemoryPointer,
        MemoryPool=MemoryPool,
        Stream=Stream,
        UnownedMemory=UnownedMemory,
        get_current_stream=lambda: here.streams[-1],
        using_allocator=using_allocator,
    ),
)


class Namespace:
    """The array API standard on the stand-in, with the product that the backend has."""

    matmul = staticmethod(partial(product, matmul))

    def __getattr__(self, name: str) -> Any:
        return getattr(array_api_compat.numpy, name)

    def arange(self, *arguments: Any, dtype: Any, device: Any = None) -> Any:
        del device
        return compute(np.arange, *arguments, dtype=dtype)

    def asarray(self, host: Any, dtype: Any, device: Any = None) -> Any:
        del device
        return asarray(host, dtype)


class FakeCuPyBackend(Backend):
    """CuPy's backend, on the stand-in."""

    name = "fake-cupy"

    def __init__(self, device: str | None = None) -> None:
        assert device is None
        self.xp, self.device = Namespace(), "cpu"
        self._replays = Replays(cupy)

    def asarray(self, host: Any, dtype: str | None = None) -> Array:
        return asarray(host, dtype)

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        host: np.ndarray[Any, Any] = array.get()
        return host

    def describe(self) -> dict[str, Any]:
        return {"numpy": np.__version__, "device": self.device}

    def synchronize(self) -> None:
        with CAPTURING:
            for stream in capturing:
                stream.is_invalid = True
                raise RuntimeError("cudaErrorStreamCaptureUnsupported")

    def scan(
        self, step: Step, carry: PyTree, xs: tuple[Array, ...], constants: PyTree = ()
    ) -> tuple[PyTree, tuple[Array, ...]]:
        return self._replays.scan(super().scan, step, carry, xs, constants)
