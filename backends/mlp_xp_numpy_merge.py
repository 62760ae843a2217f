"""One call for the same operation on many small arrays: those of all layers lie side by side, as one vector.

An optimiser does the same with every weight and bias. Of small ones, a call of NumPy costs more than its numbers; so
operations that differ in their arrays alone are merged, from the new carry backwards: superword-level parallelism
(Larsen and Amarasinghe, PLDI 2000), whose words are whole arrays. No number is computed in another way by it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np

from mlp_xp_numpy_tape import Operation, Value

Lanes: TypeAlias = tuple[Value, ...]

SMALL = 262144
"""Bytes of an array: larger ones are better kept apart, each in the cache from one of its operations to the next."""
ROUNDED_ONCE = {np.add, np.subtract, np.multiply, np.divide, np.sqrt, np.negative}
"""Operations whose results do not depend on where in an array a number stands (IEEE 754-2019, section 5.4.1)."""


@dataclass
class Blocks:
    """Values that must lie side by side in memory.

    Attributes
    ----------
    members : dict
        Of a block, the values that it consists of, in order.
    places : dict
        Of a member, its block and where in it the member begins, in bytes.
    """

    members: dict[Value, Lanes] = field(default_factory=dict)
    places: dict[Value, tuple[Value, int]] = field(default_factory=dict)

    def block_of(self, value: Value) -> Value:
        """Return the block of a value; one that is in none is for itself."""
        return self.places[value][0] if value in self.places else value

    def take(self, lanes: Lanes) -> bool:
        """Put values into one block; return whether that can be, or was done before."""
        if self.members.get(self.block_of(lanes[0])) == lanes:
            return True
        is_free = len({*lanes}) == len(lanes) and self.places.keys().isdisjoint(lanes)
        can_be = is_free and all(map(_is_in_order, lanes))
        if can_be:
            starts = list(accumulate((lane.nbytes for lane in lanes), initial=0))
            block = Value.like(np.empty(starts[-1] // lanes[0].dtype.itemsize, lanes[0].dtype))
            self.members[block] = lanes
            self.places |= {lane: (block, start) for lane, start in zip(lanes, starts, strict=False)}
        return can_be

    def pairs(self, homes: dict[Value, Value]) -> dict[Value, Value]:
        """Return which blocks have the places of which, where that is known of all their members."""
        blocks = {members: block for block, members in self.members.items()}
        found = {block: blocks.get(tuple(homes.get(x, x) for x in members)) for members, block in blocks.items()}
        return {new: old for new, old in found.items() if old is not None and old is not new}


def merge(operations: list[Operation], outputs: Iterable[Any], fixed: set[Value]) -> tuple[list[Operation], Blocks]:
    """Return a step's operations with those merged that make its new carry, and what must lie side by side for that.

    Parameters
    ----------
    operations : list of Operation
        In order.
    outputs : iterable
        The new carry.
    fixed : set of Value
        What has its place elsewhere, or has it all the time.
    """
    numbers = {operation.result: i for i, operation in enumerate(operations)}
    readers: defaultdict[Value, list[int]] = defaultdict(list)
    for i, operation in enumerate(operations):
        for operand in operation.operands:
            readers[operand.root].append(i)
    made = {op.result: op for op in operations if _is_mergeable(op) and op.result not in fixed}

    groups: defaultdict[Any, list[Value]] = defaultdict(list)
    for value in dict.fromkeys(output for output in outputs if output in made):
        groups[_kind(made[value], made, depth=1)].append(value)
    waiting = [tuple(sorted(group, key=lambda value: -value.nbytes)) for group in groups.values() if len(group) > 1]

    def last(lanes: Lanes) -> int:
        return max(numbers[lane] for lane in lanes)

    blocks, merged, operands, gone = Blocks(), set[Lanes](), set[Lanes](), set[int]()
    while waiting:
        lanes = waiting.pop()
        if lanes in merged:
            continue
        is_one = all(lane in made for lane in lanes) and len({_kind(made[lane], made, 0) for lane in lanes}) == 1
        # Who reads them before the last is made must have been merged; the last of those puts them here once more.
        if is_one and all(i > last(lanes) or i in gone for lane in lanes for i in readers[lane]):
            merged.add(lanes)
            gone |= {numbers[lane] for lane in lanes}
            new = {column for column in _columns(lanes, made) if isinstance(column, tuple)}
            operands |= new
            waiting += new
        elif lanes not in operands:
            continue
        if not blocks.take(lanes) or any(lane in fixed or lane.root is not lane for lane in lanes):
            return operations, Blocks()

    kept = {i: operation for i, operation in enumerate(operations) if i not in gone}
    for lanes in merged:
        arguments = [blocks.block_of(x[0]) if isinstance(x, tuple) else x for x in _columns(lanes, made)]
        kept[last(lanes)] = Operation(made[lanes[0]].function, tuple(arguments), {}, blocks.block_of(lanes[0]))
    return [kept[i] for i in sorted(kept)], blocks


def _is_mergeable(operation: Operation) -> bool:
    result = operation.result
    return (
        operation.function in ROUNDED_ONCE
        and not operation.options
        and len(result.shape) > 0
        and result.nbytes <= SMALL
        and all(x.dtype == result.dtype and x.shape in (result.shape, ()) for x in operation.operands)
        and not any(isinstance(x, np.ndarray) for x in operation.arguments)
    )


def _is_in_order(value: Value) -> bool:
    steps = accumulate(value.shape[:0:-1], lambda a, b: a * b, initial=value.dtype.itemsize)
    return value.strides == tuple(steps)[::-1]


def _kind(operation: Operation, made: dict[Value, Operation], depth: int) -> Any:
    """Return what operations have in common that may become one: all but the arrays, to some depth."""

    def of(x: Any) -> Any:
        if not isinstance(x, Value):
            return type(x), repr(x)
        if x.shape == ():
            return x
        return _kind(made[x], made, depth - 1) if depth and x in made else "array"

    return operation.function, operation.result.dtype, *map(of, operation.arguments)


def _columns(lanes: Lanes, made: dict[Value, Operation]) -> list[Any]:
    """Return the arguments of operations of one kind: of arrays a tuple, one of each; anything else as it is."""
    columns = zip(*(made[lane].arguments for lane in lanes), strict=True)
    return [xs if isinstance(xs[0], Value) and xs[0].shape else xs[0] for xs in columns]
