"""What compiling means for NumPy: a step's tape is planned once, then replayed as calls into memory that stays.

The plan is a compiler's: results that nobody uses are dropped; those that stay the same from step to step are computed
before the first; each of the others gets a place in one block of memory, taken over, where that is possible, from a
value that is used no more. So equations that never write to an argument run in place, and nothing is allocated between
steps. The operations are NumPy's own, in their order: the results are those of the plain loop, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from mlp_xp.array_types import Array, PyTree
from mlp_xp.backend import Step
from mlp_xp_numpy_tape import Operation, Tape, Traced, UntraceableError, cast

Call: TypeAlias = Callable[[], Any]

ALIGNMENT = 64
"""Bytes: a cache line, and a register of AVX-512."""
SHORT, LARGE = 64, 512
"""Numbers of a row, and of all rows, below and above which the largest of every row is found faster by columns."""


class Program:
    """A step, traced for the shapes and types of a carry and of a row of ``xs``, and for the very constants.

    Raises
    ------
    UntraceableError
        If the step does what cannot be traced.
    """

    def __init__(self, step: Step, carry: PyTree, xs: tuple[Array, ...], constants: PyTree) -> None:
        self._constants = constants
        tape = Tape()
        before = [tape.given(leaf) for leaf in leaves(carry)]
        x = [tape.given(rows[0]) for rows in xs]
        carry_after, ys = step(rebuild(carry, iter(before)), tuple(x), constants)
        after = leaves(carry_after)
        if [(v.shape, v.dtype) for v in after] != [(v.shape, v.dtype) for v in before]:
            raise UntraceableError("the carry changes its shape or its type")
        for i, (old, new) in enumerate(zip(before, after, strict=True)):
            if new is not old and isinstance(new, Traced) and new.root in set(before):
                after[i] = tape.note(np.copy, (new,), {})  # before its own place is written over
        plan = _Plan(tape, before, x, after, list(ys))
        self._carry, self._x, self._ys = ([plan.array(value) for value in values] for values in (before, x, ys))
        self._prepare, self._calls = list(plan.calls(invariant=True)), list(plan.calls(invariant=False))
        self._hand_on = [
            partial(np.copyto, plan.array(old), plan.array(new))
            for old, new in zip(before, after, strict=True)
            if not plan.share_place(old, new)
        ]
        tape.clear()

    def reads(self, constants: PyTree) -> bool:
        """Tell whether these are the very constants that the program is for."""
        given, mine = leaves(constants), leaves(self._constants)
        return len(given) == len(mine) and all(one is other for one, other in zip(given, mine, strict=True))

    def run(self, carry: PyTree, xs: tuple[Array, ...]) -> tuple[PyTree, tuple[Array, ...]]:
        """Do what `mlp_xp.backend.Backend.scan` does."""
        for mine, given in zip(self._carry, leaves(carry), strict=True):
            mine[...] = given
        for call in self._prepare:
            call()
        n_steps = xs[0].shape[0]
        ys = tuple(np.empty((n_steps, *y.shape), y.dtype) for y in self._ys)
        inputs, outputs = list(zip(self._x, xs, strict=True)), list(zip(ys, self._ys, strict=True))
        for i in range(n_steps):
            for mine, rows in inputs:
                mine[...] = rows[i]
            for call in self._calls:
                call()
            for stack, y in outputs:
                stack[i] = y
            for call in self._hand_on:
                call()
        return rebuild(carry, (mine.copy() for mine in self._carry)), ys


def leaves(tree: PyTree) -> list[Any]:
    """Return the arrays of nested (named) tuples, in order; None has none."""
    if isinstance(tree, tuple):
        return [leaf for branch in tree for leaf in leaves(branch)]
    return [] if tree is None else [tree]


def signature(tree: PyTree) -> Any:
    """Return what trees have in common for which one program serves: structure, shapes and types."""
    if isinstance(tree, tuple):
        return (type(tree), *map(signature, tree))
    return None if tree is None else (tree.shape, tree.dtype)


def rebuild(tree: PyTree, arrays: Iterator[Any]) -> PyTree:
    """Return a tree of the same structure with other arrays."""
    if isinstance(tree, tuple):
        branches = [rebuild(branch, arrays) for branch in tree]
        return type(tree)(*branches) if hasattr(tree, "_fields") else tuple(branches)
    return None if tree is None else next(arrays)


class _Plan:
    """Which operations of a tape are needed, and where every value is kept."""

    def __init__(self, tape: Tape, before: list[Traced], x: list[Traced], after: list[Any], ys: list[Any]) -> None:
        outputs = [value for value in (*after, *ys) if isinstance(value, Traced)]
        self._operations = _needed(tape.operations, outputs)
        self._invariant = {old for old, new in zip(before, after, strict=True) if old is new}
        for operation in self._operations:
            if all(operand in self._invariant for operand in operation.operands):
                self._invariant.add(operation.result)
        self._offsets: dict[Traced, int] = {}
        self._size = 0
        for value in (*before, *x):
            self._offsets[value] = self._new(value)
        homes = {
            new: old
            for old, new in zip(before, after, strict=True)
            if isinstance(new, Traced) and new.sample.strides == old.sample.strides
        }
        self._keep(homes, {*before, *x, *self._invariant}, outputs)
        memory = np.empty(self._size + ALIGNMENT, np.uint8)  # of one large block, NumPy asks for huge pages
        self._memory = memory[-memory.ctypes.data % ALIGNMENT :]
        self._arrays: dict[Traced, np.ndarray[Any, Any]] = {}
        for operation in self._operations:
            if operation.is_view:
                view = operation.function(*map(self.array, operation.arguments), **operation.options)
                self._arrays[operation.result] = view

    def _new(self, value: Traced) -> int:
        offset = self._size
        self._size += -(-value.sample.nbytes // ALIGNMENT) * ALIGNMENT
        return offset

    def _keep(self, homes: dict[Traced, Traced], lasting: set[Traced], outputs: list[Traced]) -> None:
        """Give every result a place.

        A new carry's is that of the old one if that is read no more; any other's that of an operand that this very
        operation reads last, or else one that has become free.
        """
        ends = {operand.root: i for i, operation in enumerate(self._operations) for operand in operation.operands}
        ends |= dict.fromkeys((output.root for output in outputs), len(self._operations))
        free: dict[int, list[int]] = {}
        for i, operation in enumerate(self._operations):
            value = operation.result
            if operation.is_view:
                continue
            dying = {root for root in (x.root for x in operation.operands) if ends[root] == i and root not in lasting}
            home = homes.get(value)
            if value in self._invariant:
                self._offsets[value] = self._new(value)
            elif home is not None and (ends.get(home, -1) < i or (ends[home] == i and _in_place(operation, home))):
                self._offsets[value] = self._offsets[home]
            elif (heir := next((root for root in dying if _in_place(operation, root)), None)) is not None:
                self._offsets[value] = self._offsets[heir]
                dying.remove(heir)
            else:
                places = free.get(value.sample.nbytes)
                self._offsets[value] = places.pop() if places else self._new(value)
            for root in dying:
                free.setdefault(root.sample.nbytes, []).append(self._offsets[root])

    def array(self, value: Any) -> Any:
        """Return where a value is kept; what is no stand-in is a constant and stays as it is."""
        if not isinstance(value, Traced):
            return value
        if value not in self._arrays:
            sample, start = value.sample, self._offsets[value]
            self._arrays[value] = np.ndarray(sample.shape, sample.dtype, self._memory, start, sample.strides)
        return self._arrays[value]

    def share_place(self, old: Traced, new: Any) -> bool:
        """Whether a carry is already where the next step looks for it."""
        return isinstance(new, Traced) and self._offsets[old] == self._offsets.get(new)

    def calls(self, *, invariant: bool) -> Iterator[Call]:
        """Return what is done before the first step, or in every step."""
        for operation in self._operations:
            if not operation.is_view and (operation.result in self._invariant) is invariant:
                yield _make_call(operation, self.array)


def _needed(operations: list[Operation], outputs: Iterable[Traced]) -> list[Operation]:
    needed = {part for value in outputs for part in (value, value.root)}
    kept = []
    for operation in reversed(operations):
        if operation.result in needed:
            kept.append(operation)
            needed |= {part for value in operation.operands for part in (value, value.root)}
    return kept[::-1]


def _in_place(operation: Operation, value: Traced) -> bool:
    """Whether the result can be written over an operand, element by element."""
    new, old = operation.result.sample, value.sample
    return (
        _is_elementwise(operation.function)
        and all(operand is value for operand in operation.operands if operand.root is value)
        and (new.shape, new.dtype, new.strides) == (old.shape, old.dtype, old.strides)
    )


def _is_elementwise(function: Callable[..., Any]) -> bool:
    return isinstance(function, np.ufunc) and function.signature is None


def _make_call(operation: Operation, array: Callable[[Any], Any]) -> Call:
    """Return the call that leaves an operation's result in its place."""
    function, options, result = operation.function, operation.options, array(operation.result)
    arguments = [array(argument) for argument in operation.arguments]
    if _is_elementwise(function):
        types = {x.dtype for x in arguments if isinstance(x, np.ndarray)}
        for i, x in enumerate(operation.arguments):
            if isinstance(x, Traced) or np.ndim(x) > 0:
                continue
            if function in (np.maximum, np.minimum):  # three times as fast for two arrays as for an array and a number
                arguments[i] = np.full(result.shape, x, result.dtype)
            elif type(x) is float and types in ({np.dtype("f")}, {np.dtype("d")}):
                arguments[i] = np.asarray(x, *types)  # what NumPy would make of it every time
    # By position where that can be done: NumPy takes a third less time to look at its arguments.
    if isinstance(function, np.ufunc):
        if options or function in (np.maximum, np.minimum):  # which do not take it so any longer
            return partial(function, *arguments, out=result, **options)
        return partial(function, *arguments, result)
    if isinstance(ufunc := getattr(function, "__self__", None), np.ufunc):
        axis, keepdims = options.get("axis", 0), options.get("keepdims", False)
        if options.keys() - {"axis", "keepdims"} or len(arguments) != 1:
            return partial(function, *arguments, out=result, **options)
        if _is_faster_by_columns(ufunc, arguments[0], axis):
            moved = np.moveaxis(arguments[0], axis, 0)
            columns = np.empty(moved.shape, moved.dtype)
            return partial(_reduce_columns, ufunc, moved, columns, np.reshape(result, moved.shape[1:]))
        return partial(function, arguments[0], axis, None, result, keepdims)
    if function is cast:
        return partial(result.__setitem__, ..., arguments[0])
    if function is np.take and isinstance(arguments[0], np.ndarray):
        # Without a look at the indices, as in a library that compiles: whoever gives them has looked.
        return partial(arguments[0].take, arguments[1], options.get("axis"), result, "clip")
    return partial(_assign, result, function, arguments, options)


def _is_faster_by_columns(ufunc: np.ufunc, x: np.ndarray[Any, Any], axis: Any) -> bool:
    """Whether it pays to reduce all rows at once, column by column, where NumPy goes along many short rows.

    A sum must not change by it: NumPy adds up fewer than eight neighbours one after another, more in another order.
    """
    if not isinstance(axis, int) or x.ndim < 2 or x.size < LARGE:
        return False
    along_rows = axis in (-1, x.ndim - 1)
    shortest = SHORT if along_rows and ufunc in (np.maximum, np.minimum) else 8
    return x.shape[-1] < shortest and (along_rows or axis in (-2, x.ndim - 2))


def _reduce_columns(
    ufunc: np.ufunc, x: np.ndarray[Any, Any], columns: np.ndarray[Any, Any], result: np.ndarray[Any, Any]
) -> None:
    np.copyto(columns, x)
    ufunc.reduce(columns, axis=0, out=result)


def _assign(result: np.ndarray[Any, Any], function: Callable[..., Any], arguments: Any, options: Any) -> None:
    result[...] = function(*arguments, **options)
