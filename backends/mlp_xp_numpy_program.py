"""What compiling means for NumPy: a step's tape is planned once, then replayed as calls into memory that stays.

The plan is a compiler's: results that nobody uses are dropped; those that stay the same from step to step are computed
before the first; what is done alike to many small arrays is done by one call to all of them (`merge`); each of the
other results gets a place in one block of memory, taken over, where that is possible, from a value that is used no
more. So equations that never write to an argument run in place, and nothing is allocated between steps. The operations
are NumPy's own, in their order: the results are those of the plain loop, to the last bit (of float32 and float64, and
but for the signs of NaN and of a zero that is the largest of several; the carry and the rows are copied into C order,
in which NumPy may add up in another order than in Fortran's).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from mlp_xp.array_types import Array, PyTree, leaves, rebuild
from mlp_xp.backend import Step
from mlp_xp_numpy_merge import merge
from mlp_xp_numpy_tape import FILLINGS, Operation, Tape, Traced, UntraceableError, Value, cast

Call: TypeAlias = Callable[[], Any]

ALIGNMENT = 64
"""Bytes: a cache line, and a register of AVX-512."""
SHORT, LARGE = 64, 512
"""Numbers of a row, and of all rows, below and above which the largest of every row is found faster by columns."""
FLOATS = np.dtype(np.float32), np.dtype(np.float64)
_ONE_FLOAT = [{dtype} for dtype in FLOATS]
COMPARISONS = {np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal}


class Program:
    """A step, traced for the shapes, types and layouts of a carry, of a row of ``xs``, and of the constants.

    Between two runs it keeps its own memory, and none of the arrays that it was given.

    Raises
    ------
    UntraceableError
        If the step does what cannot be traced.
    """

    def __init__(self, step: Step, carry: PyTree, xs: tuple[Array, ...], constants: PyTree) -> None:
        tape = Tape()
        before = [tape.given(leaf, order="C") for leaf in leaves(carry)]
        x = [tape.given(rows[0], order="C") for rows in xs]
        fixed = [tape.given(leaf) for leaf in leaves(constants)]
        carry_after, ys = step(rebuild(carry, iter(before)), tuple(x), rebuild(constants, iter(fixed)))
        after = leaves(carry_after)
        if not all(isinstance(value, (Traced, np.ndarray)) for value in (*after, *ys)):
            raise UntraceableError("a result is no array")
        if [(v.shape, v.dtype) for v in after] != [(v.shape, v.dtype) for v in before]:
            raise UntraceableError("the carry changes its shape or its type")
        fixed_roots = {stand_in.value for stand_in in fixed}
        carry_roots = {stand_in.value for stand_in in before}

        def copied(new: Any, roots: set[Value]) -> Any:
            """Return a copy of a result that lies in memory which is not this program's, or which is written over."""
            is_foreign = isinstance(new, Traced) and new.value.root in roots
            return tape.note(np.copy, (new,), {}) if is_foreign else new

        after = [
            new if new is old else copied(new, fixed_roots | carry_roots)
            for old, new in zip(before, after, strict=True)
        ]
        ys = tuple(copied(y, fixed_roots) for y in ys)
        given, made, x_values, y_values, fixed_values = (
            [tape.value_of(stand_in) for stand_in in stand_ins] for stand_ins in (before, after, x, ys, fixed)
        )
        self._plan = plan = _Plan(tape, given, made, x_values, y_values, fixed_values)
        self._carry, self._x, self._ys = ([plan.array(v) for v in values] for values in (given, x_values, y_values))
        self._prepare, self._calls = plan.calls(invariant=True), plan.calls(invariant=False)
        self._hand_on = [
            partial(np.copyto, plan.array(old), plan.array(new))
            for old, new in zip(given, made, strict=True)
            if not plan.share_place(old, new)
        ]

    def run(self, carry: PyTree, xs: tuple[Array, ...], constants: PyTree) -> tuple[PyTree, tuple[Array, ...]]:
        """Do what `mlp_xp.backend.Backend.scan` does.

        Raises
        ------
        UntraceableError
            If a number in ``xs`` counts no element of what is taken from: the plain loop knows what that means.
        """
        self._plan.check(xs)
        for mine, rows in zip(self._carry, leaves(carry), strict=True):
            mine[...] = rows
        n_steps = xs[0].shape[0]
        ys = tuple(np.empty((n_steps, *y.shape), y.dtype) for y in self._ys)
        inputs, outputs = list(zip(self._x, xs, strict=True)), list(zip(ys, self._ys, strict=True))
        with self._plan.reading(leaves(constants)):
            for call in self._prepare:
                call()
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


class _Plan:
    """Which operations of a tape are needed, and where every value is kept.

    What is read of the constants is bound to them for a run alone.
    """

    def __init__(
        self, tape: Tape, before: list[Value], after: list[Any], x: list[Value], ys: list[Any], fixed: list[Value]
    ) -> None:
        outputs = [value for value in (*after, *ys) if isinstance(value, Value)]
        self._operations = _needed(tape.operations, outputs)
        self._x, self._fixed = x, fixed
        self._invariant = {*fixed, *(old for old, new in zip(before, after, strict=True) if old is new)}
        for operation in self._operations:
            if operation.function in FILLINGS or all(operand in self._invariant for operand in operation.operands):
                self._invariant.add(operation.result)
        self._operations, self._blocks = merge(self._operations, after, {*x, *self._invariant})
        self._offsets: dict[Value, int] = {}
        self._size = 0
        for value in (*before, *x):
            if value not in self._offsets:
                block = self._blocks.block_of(value)
                self._put(block, self._new(block))
        homes = {
            new: old
            for old, new in zip(before, after, strict=True)
            if isinstance(new, Value) and new.strides == old.strides
        }
        homes |= self._blocks.pairs(homes)
        self._keep(homes, {*before, *x, *self._invariant}, outputs)
        memory = np.empty(self._size + ALIGNMENT, np.uint8)  # of one large block, NumPy asks for huge pages
        self._memory = memory[-memory.ctypes.data % ALIGNMENT :]
        self._arrays: dict[Value, np.ndarray[Any, Any]] = {}
        self._limits: dict[Value, int] = {}
        self._rebound: list[tuple[list[Any], int, Operation]] = []
        self._look(value for value in self._operations if value.is_view and value.result.root not in fixed)

    def _look(self, views: Iterable[Operation]) -> None:
        for operation in views:
            view = operation.function(*map(self.array, operation.arguments), **operation.options)
            self._arrays[operation.result] = view

    def _new(self, value: Value) -> int:
        offset = self._size
        self._size += -(-value.nbytes // ALIGNMENT) * ALIGNMENT
        return offset

    def _put(self, value: Value, offset: int) -> None:
        """Put a value there and, if it is a block, its members."""
        self._offsets[value] = offset
        for member in self._blocks.members.get(value, ()):
            self._offsets[member] = offset + self._blocks.places[member][1]

    def _keep(self, homes: dict[Value, Value], lasting: set[Value], outputs: list[Value]) -> None:
        """Give every result a place.

        A new carry's is that of the old one if that is read no more; any other's that of an operand that this very
        operation reads last, or else one that has become free.
        """
        block_of = self._blocks.block_of
        reads = [{block_of(operand.root) for operand in operation.operands} for operation in self._operations]
        ends = {root: i for i, roots in enumerate(reads) for root in roots}
        ends |= dict.fromkeys((block_of(output.root) for output in outputs), len(self._operations))
        lasting = set(map(block_of, lasting))
        free: dict[int, list[int]] = {}
        for i, operation in enumerate(self._operations):
            value = operation.result
            if operation.is_view:
                continue
            block = block_of(value)
            dying = {root for root in reads[i] if ends[root] == i and root not in lasting}
            home, heir = homes.get(value), next((root for root in dying if _in_place(operation, root)), None)
            end = -1 if home is None else ends.get(block_of(home), -1)  # of its old contents
            if value in self._invariant:
                self._put(value, self._new(value))
            elif block is value and home and (end < i or (end == i and _in_place(operation, home))):
                self._put(value, self._offsets[home])
            elif block is value and heir:
                self._put(value, self._offsets[heir])
                dying.remove(heir)
            elif block not in self._offsets:
                places = free.get(block.nbytes)
                self._put(block, places.pop() if places else self._new(block))
            for root in dying:
                free.setdefault(root.nbytes, []).append(self._offsets[root])

    def array(self, value: Any) -> Any:
        """Return where a value is kept; what is none is a constant and stays as it is."""
        if not isinstance(value, Value):
            return value
        if value not in self._arrays:
            start = self._offsets[value]
            self._arrays[value] = np.ndarray(value.shape, value.dtype, self._memory, start, value.strides)
        return self._arrays[value]

    def share_place(self, old: Value, new: Any) -> bool:
        """Whether a carry is already where the next step looks for it."""
        return isinstance(new, Value) and self._offsets[old] == self._offsets.get(new)

    def calls(self, *, invariant: bool) -> list[Any]:
        """Return what is done before the first step, or in every step; in the place of what reads constants, None."""
        calls: list[Any] = []
        for operation in self._operations:
            if operation.is_view or (operation.result in self._invariant) is not invariant:
                continue
            self._is_plain_take(operation)  # whatever has to be checked before a run, is known from now on
            if any(operand.root in self._fixed for operand in operation.operands):
                self._rebound.append((calls, len(calls), operation))
                calls.append(None)
            else:
                calls.append(self._make_call(operation))
        return calls

    @contextmanager
    def reading(self, constants: list[np.ndarray[Any, Any]]) -> Iterator[None]:
        """Put in what reads constants, for the time of a run."""
        before = dict(self._arrays)
        try:
            self._arrays |= dict(zip(self._fixed, constants, strict=True))
            self._look(view for view in self._operations if view.is_view and view.result.root in self._fixed)
            for calls, i, operation in self._rebound:
                calls[i] = self._make_call(operation)
            yield
        finally:
            self._arrays = before
            for calls, i, _ in self._rebound:
                calls[i] = None

    def check(self, xs: tuple[np.ndarray[Any, Any], ...]) -> None:
        """See that numbers in xs count elements of what is taken from, where nobody looks any more.

        Raises
        ------
        UntraceableError
            If one does not.
        """
        for value, rows in zip(self._x, xs, strict=True):
            if value in self._limits and rows.size and not 0 <= rows.min() <= rows.max() < self._limits[value]:
                raise UntraceableError("numbers that count no element")

    def _make_call(self, operation: Operation) -> Call:
        if not self._is_plain_take(operation):
            return _make_call(operation, self.array)
        table, index = map(self.array, operation.arguments)
        # Without a look at the indices, which would take a buffer for the result.
        return partial(table.take, index, operation.options.get("axis"), self.array(operation.result), "clip")

    def _is_plain_take(self, operation: Operation) -> bool:
        """Whether indices are known to be those of elements: limited to them, or among the numbers that are checked."""
        if operation.function is not np.take or not isinstance(operation.arguments[1], Value):
            return False
        (table, index), axis = operation.arguments, operation.options.get("axis")
        count = math.prod(table.shape) if axis is None else table.shape[axis]
        if index.root in self._x:
            self._limits[index.root] = min(count, self._limits.get(index.root, count))
            return True
        return index.least is not None and index.most is not None and index.least >= 0 and index.most < count


def _needed(operations: list[Operation], outputs: Iterable[Value]) -> list[Operation]:
    needed = {part for value in outputs for part in (value, value.root)}
    kept = []
    for operation in reversed(operations):
        if operation.result in needed:
            kept.append(operation)
            needed |= {part for value in operation.operands for part in (value, value.root)}
    return kept[::-1]


def _in_place(operation: Operation, value: Value) -> bool:
    """Whether the result can be written over an operand, element by element and without a copy."""
    new, old = operation.result, value
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
    if _is_elementwise(function) and not options:
        types = {x.dtype for x in arguments if isinstance(x, np.ndarray)}
        for i, x in enumerate(operation.arguments):
            if isinstance(x, Value) or np.ndim(x) > 0:
                continue
            if function in (np.maximum, np.minimum):  # three times as fast for two arrays as for an array and a number
                arguments[i] = np.full(result.shape, x, result.dtype)
            elif type(x) is float and types in _ONE_FLOAT and (result.dtype in types or function in COMPARISONS):
                arguments[i] = np.asarray(x, *types)  # what NumPy would make of it every time
    # By position where that can be done: NumPy takes a third less time to look at its arguments.
    if isinstance(function, np.ufunc):
        if function is np.matmul and not options and _is_plain_product(*arguments, result):
            return partial(arguments[0].dot, arguments[1], result)  # the same call of BLAS, sooner
        if options or function in (np.maximum, np.minimum):  # which do not take it so any longer
            return partial(function, *arguments, out=result, **options)
        return partial(function, *arguments, result)
    if isinstance(ufunc := getattr(function, "__self__", None), np.ufunc):
        axis, keepdims = options.get("axis", 0), options.get("keepdims", False)
        if options.keys() - {"axis", "keepdims"} or len(arguments) != 1:
            return partial(function, *arguments, out=result, **options)
        x = arguments[0]
        if ufunc in (np.maximum, np.minimum) and x.ndim > 1 and x.shape[-1] == 2 and axis in (-1, x.ndim - 1):
            # The larger of two columns needs no reduction. (A sum of two does not begin with zero, and may be -0.0.)
            return partial(ufunc, x[..., 0], x[..., 1], out=np.reshape(result, x.shape[:-1]))
        if _is_faster_by_columns(ufunc, x, axis):
            moved = np.moveaxis(x, axis, 0)
            columns = np.empty(moved.shape, moved.dtype)
            return partial(_reduce_columns, ufunc, moved, columns, np.reshape(result, moved.shape[1:]))
        return partial(function, x, axis, None, result, keepdims)
    if function is cast:
        return partial(result.__setitem__, ..., arguments[0])
    return partial(_assign, result, function, arguments, options)


def _is_plain_product(*arrays: np.ndarray[Any, Any]) -> bool:
    """Whether x, y and their product are matrices, and no row or column, as BLAS takes them: nothing is copied."""
    result = arrays[-1]
    return (
        result.dtype.kind == "f"
        and result.flags.c_contiguous
        and all(x.dtype == result.dtype and x.ndim == 2 and min(x.shape) > 1 for x in arrays)
        and all(x.flags.c_contiguous or x.flags.f_contiguous for x in arrays)
    )


def _is_faster_by_columns(ufunc: np.ufunc, x: np.ndarray[Any, Any], axis: Any) -> bool:
    """Whether it pays to reduce all rows at once, column by column, where NumPy goes along many short rows.

    A sum must not change by it: NumPy adds up fewer than eight neighbours one after another, more in another order, and
    a single column as if it were a row.
    """
    if not isinstance(axis, int) or x.ndim < 2 or x.size < LARGE or x.dtype not in FLOATS or not x.flags.c_contiguous:
        return False
    along_rows = axis in (-1, x.ndim - 1)
    shortest = SHORT if along_rows and ufunc in (np.maximum, np.minimum) else 8
    return 1 < x.shape[-1] < shortest and (along_rows or (x.ndim > 2 and axis in (-2, x.ndim - 2)))


def _reduce_columns(
    ufunc: np.ufunc, x: np.ndarray[Any, Any], columns: np.ndarray[Any, Any], result: np.ndarray[Any, Any]
) -> None:
    np.copyto(columns, x)
    ufunc.reduce(columns, axis=0, out=result)


def _assign(result: np.ndarray[Any, Any], function: Callable[..., Any], arguments: Any, options: Any) -> None:
    result[...] = function(*arguments, **options)
