"""What compiling means for CuPy: the kernels of a step are captured once, as CUDA graphs, and launched all at once.

CuPy refuses to call cuBLAS while a stream is captured (``cublas.setStream`` raises NotImplementedError). So a step is
cut at its matrix products: graphs of whatever lies between two of them, and between two graphs CuPy's own product, into
memory that stays. That is the loop's call through the loop's handle, hence the loop's bits. A product captured through
a handle of our own would spare a few launches more, but might choose another of cuBLAS's kernels.

Nothing is trusted before it has been seen: the first steps are run by the loop and by the graphs, and what is not the
same to the last bit, or cannot be captured, is left to the loop. (Rows are copied to where memory is well aligned. A
step that multiplies a row as it lies among others, which none of ours does, may get another kernel than in the loop.)

This module is given CuPy and does not import it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from mlp_xp.array_types import Array, PyTree, leaves, rebuild, signature
from mlp_xp.backend import Programs, Step

Loop: TypeAlias = Callable[[Step, PyTree, tuple[Array, ...], PyTree], tuple[PyTree, tuple[Array, ...]]]

SWITCH = "MLP_XP_CUPY_GRAPH"
"""Environment variable; "0" for the loop alone."""
FEWEST_STEPS = 64
"""Of a loop that is worth capturing at first sight: that and the check should take as long as some ten steps."""
MOST_PROGRAMS = 8
"""That are kept for later, each with its memory; the one that was used last stays longest."""
CHECKED_STEPS = 2
"""The second one's inputs are not those of the first: a number that the graphs hold for good would show."""

CAPTURING = threading.RLock()
"""Held while a stream is captured: CUDA then lets no thread synchronise the device (but streams of its own)."""

_log = logging.getLogger(__name__)
_here = threading.local()


class WrongReplayError(Exception):
    """Graphs give other bits than the loop."""


def product(matmul: Callable[[Array, Array], Array], left: Array, right: Array, /) -> Array:
    """Return ``matmul(left, right)``; while this thread captures a step, where the program will have it."""
    program: Program | None = getattr(_here, "program", None)
    return matmul(left, right) if program is None else program.product(left, right)


class Program:
    """A step, captured for the shapes and types of a carry and of a row of ``xs``, and for the constants' addresses.

    It keeps memory of its own, the step (with whatever arrays that has), and none of the arrays that it was given.

    Parameters
    ----------
    cupy : module
    step, carry, xs, constants
        As `mlp_xp.backend.Backend.scan` takes them.

    Raises
    ------
    Exception
        Whatever CuPy raises at what cannot be captured.
    """

    def __init__(self, cupy: Any, step: Step, carry: PyTree, xs: tuple[Array, ...], constants: PyTree) -> None:
        self._cupy, self._step = cupy, step
        self._blocks: list[Any] = []
        self._calls: list[Callable[[], Any]] = []
        self._done = cupy.cuda.Event(disable_timing=True)
        self._stream = cupy.cuda.Stream(non_blocking=True)  # the default stream goes on with what others ask of it
        pool = cupy.cuda.MemoryPool(self._reserve)  # what the step frees is used again, in the order of the step
        with cupy.cuda.using_allocator(pool.malloc):
            self._carry = [cupy.empty(leaf.shape, leaf.dtype) for leaf in leaves(carry)]
            self._x = tuple(cupy.empty(rows.shape[1:], rows.dtype) for rows in xs)
            borrowed = rebuild(constants, map(self._borrow, leaves(constants)))
            with self._captured():
                after, ys = step(rebuild(carry, iter(self._carry)), self._x, borrowed)
                pairs = zip(self._carry, leaves(after), strict=True)
                moved = [(old, self._apart(new)) for old, new in pairs if new is not old]
                self._ys = [self._apart(y) for y in ys]
                for old, new in moved:
                    cupy.copyto(old, new)

    def run(self, carry: PyTree, xs: tuple[Array, ...]) -> tuple[PyTree, tuple[Array, ...]]:
        """Do what `mlp_xp.backend.Backend.scan` does, with constants where those were that it was captured with."""
        cupy = self._cupy
        stream = cupy.cuda.get_current_stream()
        stream.wait_event(self._done)  # the last run may have been on another thread's stream
        try:
            for mine, leaf in zip(self._carry, leaves(carry), strict=True):
                cupy.copyto(mine, leaf)
            n_steps = xs[0].shape[0]
            ys = tuple(cupy.empty((n_steps, *y.shape), y.dtype) for y in self._ys)
            for i in range(n_steps):
                for mine, rows in zip(self._x, xs, strict=True):
                    cupy.copyto(mine, rows[i, ...])
                for call in self._calls:
                    call()
                for stack, y in zip(ys, self._ys, strict=True):
                    cupy.copyto(stack[i, ...], y)
            return rebuild(carry, (mine.copy() for mine in self._carry)), ys
        finally:
            self._done.record(stream)

    def product(self, left: Array, right: Array) -> Array:
        """Return where a matrix product will be: between two graphs."""
        batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        shape = *batch, left.shape[-2], right.shape[-1]
        result = self._cupy.empty(shape, np.promote_types(left.dtype, right.dtype))
        self._calls.append(self._stream.end_capture().launch)
        self._calls.append(partial(self._cupy.matmul, left, right, out=result))
        self._stream.begin_capture()
        return result

    @contextmanager
    def _captured(self) -> Iterator[None]:
        """Turn what is asked of this thread's device into calls; nothing is computed."""
        with CAPTURING, self._stream:
            _here.program = self
            try:
                # In CuPy's default mode: memory may be asked for meanwhile, and other threads are not hindered.
                self._stream.begin_capture()
                yield
                self._calls.append(self._stream.end_capture().launch)
            except BaseException:
                with suppress(Exception):  # it tells once more what went wrong, but the stream is free again
                    self._stream.end_capture()
                raise
            finally:
                _here.program = None

    def _reserve(self, size: int) -> Any:
        """Return memory that is the program's for as long as it lives, whatever the pool does with what is freed."""
        cuda = self._cupy.cuda
        self._blocks.append(block := cuda.Memory(size))
        return cuda.MemoryPointer(cuda.UnownedMemory(block.ptr, size, None, block.device_id), 0)

    def _borrow(self, array: Array) -> Array:
        """Return the same array without a hold on its memory, which is whoever's it is."""
        cuda = self._cupy.cuda
        memory = cuda.UnownedMemory(array.data.ptr, array.nbytes, None, array.data.device_id)
        return self._cupy.ndarray(array.shape, array.dtype, cuda.MemoryPointer(memory, 0), array.strides)

    def _apart(self, new: Array) -> Array:
        """Return a result; a copy, if it lies where the carry is written to before the result is read."""
        return new.copy() if any(self._cupy.may_share_memory(new, old) for old in self._carry) else new


class Replays:
    """Loops over steps, by graphs that are kept for equal ones; else, and always in the end, by the plain loop."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._programs: Programs[Program] = Programs(FEWEST_STEPS, MOST_PROGRAMS)
        self._refused: set[int] = set()

    def scan(
        self, loop: Loop, step: Step, carry: PyTree, xs: tuple[Array, ...], constants: PyTree
    ) -> tuple[PyTree, tuple[Array, ...]]:
        """Do what `mlp_xp.backend.Backend.scan` does, to the bits that ``loop`` gives."""
        if os.environ.get(SWITCH) == "0":
            return loop(step, carry, xs, constants)
        shapes = None
        try:
            rows = tuple(x[0, ...] for x in xs)
            shapes = hash(kind := (step, signature(carry), signature(rows), signature(constants, "strides")))
            if shapes not in self._refused:
                # Graphs read constants where those were. Whoever gives some has them there, so if an address is the
                # same, what lies there is what is to be read, even if it is another array than before.
                key = *kind, tuple(leaf.data.ptr for leaf in leaves(constants))
                program = self._programs.take(key)
                if program is None and self._programs.are_worth(key, xs[0].shape[0]):
                    program = self._capture(loop, step, carry, xs, constants)
                if program is not None:
                    results = program.run(carry, xs)
                    self._programs.keep(key, program)
                    return results
        except Exception as error:
            if shapes is not None:
                self._refused.add(shapes)
            _log.debug("%r is run by the loop: %s", step, error)
        return loop(step, carry, xs, constants)

    def _capture(self, loop: Loop, step: Step, carry: PyTree, xs: tuple[Array, ...], constants: PyTree) -> Program:
        """Return a new program that was seen to be right."""
        first = tuple(x[:CHECKED_STEPS, ...] for x in xs)
        expected = loop(step, carry, first, constants)  # before: CuPy compiles every kernel when it is first used
        program = Program(self._cupy, step, carry, xs, constants)
        if not self._are_same(program.run(carry, first), expected):
            raise WrongReplayError("replayed, it gives other bits")
        _log.debug("%r is replayed as %d graphs and products", step, len(program._calls))
        return program

    def _are_same(self, one: PyTree, other: PyTree) -> bool:
        """Return whether trees have the same structure and their arrays the same types, shapes and bits."""

        def bits(array: Array) -> Array:
            return self._cupy.ravel(array).view(np.uint8)

        return signature(one) == signature(other) and all(
            bool(self._cupy.array_equal(bits(mine), bits(theirs)))
            for mine, theirs in zip(leaves(one), leaves(other), strict=True)
        )
