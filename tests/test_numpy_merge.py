"""NumPy's programs do the same to many small arrays in one call, and nothing else changes by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mlp_xp_numpy_namespace
from mlp_xp_numpy_merge import SMALL
from mlp_xp_numpy_program import Program
from test_numpy_program import assert_same, scan_both

xp: Any = mlp_xp_numpy_namespace
SHAPES = [(5, 4), (4,), (4, 4), (4,), (2, 3)]
OPERATIONS: dict[str, Any] = {
    "sum": lambda x, y, _: x + y,
    "difference": lambda x, y, _: x - y,
    "half": lambda x, _y, _: 0.5 * x,
    "by a number of the step": lambda x, _y, number: number * x,
    "root": lambda x, _y, _: xp.sqrt(xp.abs(x)),
    "negative": lambda x, _y, _: -x,
    "magnitude": lambda x, _y, _: xp.abs(x),
    "sum in float32": lambda x, y, _: x + xp.astype(y, xp.float32),
    "sum with a view": lambda x, y, _: x + xp.reshape(xp.reshape(y, (-1,)), y.shape),
    "less its mean": lambda x, _y, _: x - xp.sum(x) / 7.0,
}


def calls(step: Any, carry: Any, xs: Any) -> list[Any]:
    """Return the functions of NumPy that are called in every step."""
    program = Program(step, carry, xs, ())
    made = [op for op in program._plan._operations if not op.is_view and op.result not in program._plan._invariant]
    assert len(made) == len(program._calls)
    return [op.function for op in made]


def descend(carry: Any, x: Any, _: Any) -> Any:
    """Take a step of momentum on several arrays, whose gradients are products."""
    weights, velocities = carry
    new = [0.9 * v + -0.1 * (xp.sum(x[0]) * xp.sum(w) - w) for w, v in zip(weights, velocities, strict=True)]
    return (tuple(w + v for w, v in zip(weights, new, strict=True)), tuple(new)), ()


def arrays(shapes: Sequence[tuple[int, ...]], dtype: Any = np.float64) -> tuple[Any, ...]:
    rng = np.random.default_rng(len(shapes))
    return tuple(rng.normal(size=shape).astype(dtype) for shape in shapes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_optimiser_makes_as_many_calls_for_ten_arrays_as_for_one(dtype: Any) -> None:
    xs = arrays([(6, 3)], dtype)
    counts = []
    for n in (1, 2, 10):
        shapes = [(n - i, 3) for i in range(n)]
        carry = arrays(shapes, dtype), arrays(shapes, dtype)
        functions = calls(descend, carry, xs)
        of_gradients = 2 * n
        counts.append(sum(f in (np.add, np.multiply, np.subtract) for f in functions) - of_gradients)
        scan_both(descend, carry, xs)
    assert counts == [4, 4, 4]


def test_the_new_carry_is_where_the_old_one_was() -> None:
    shapes = [(5, 3), (3,)]
    program = Program(descend, (arrays(shapes), arrays(shapes)), arrays([(6, 3)]), ())
    assert program._hand_on == []


def test_large_arrays_are_left_apart() -> None:
    shapes = [(SMALL // 8,), (SMALL // 8 + 1,), (SMALL // 8 - 1,)]
    xs = arrays([(6, 3)])
    functions = calls(descend, (arrays(shapes), arrays(shapes)), xs)
    assert sum(f is np.add for f in functions) == 4, "two calls for the small ones, two for the large one"


def in_order(a: Any, c: Any, b: Any, d: Any) -> tuple[Any, ...]:
    return a, b, c, d


STEPS: dict[str, tuple[Any, list[Any]]] = {
    "one needs the other's result": (
        lambda a, b, c, d: (a + c, b + xp.abs(xp.sum(a + c) * d), d, c),
        [np.add, np.multiply, np.absolute, np.add],
    ),
    "one array in two orders": (lambda a, b, c, d: (a + b, b + a, d, c), [np.add, np.add]),
    "one array for both": (lambda a, b, c, d: (a * c, b * c, d, c), [np.multiply, np.multiply]),
    "two of different kinds": (lambda a, b, c, d: (a + c, b - d, c, d), [np.add, np.subtract]),
    "two of different orders": (
        lambda a, b, c, d: (xp.matrix_transpose(a) + xp.matrix_transpose(c), b + d, d, c),
        [np.add, np.add],
    ),
    "an operand in another order": (
        lambda a, b, c, d: (
            a - xp.abs(xp.matrix_transpose(a) + xp.matrix_transpose(c)),
            b - xp.abs(b + d),
            d,
            c,
        ),
        [np.add, np.absolute, np.subtract, np.add, np.absolute, np.subtract],
    ),
    "an operand of another type": (
        lambda a, b, c, d: (a + xp.astype(c, xp.float32), b + d, d, c),
        [np.add, np.add],
    ),
    "the old carry is read late": (
        lambda a, b, c, d: (xp.abs(a), xp.abs(b), c + a, d + b),
        [np.absolute] * 2 + [np.add],
    ),
    "the new carry is read": (
        lambda a, b, c, d: ((e := xp.abs(a)), (f := xp.abs(b)), c + e, d + f),
        [np.absolute] * 2 + [np.add],
    ),
    "array by array": (
        lambda a, b, c, d: in_order(e := 0.5 * a - c, e + c, f := 0.5 * b - d, f + d),
        [np.multiply, np.subtract, np.add],
    ),
}
"""What becomes of four arrays, and which calls are made for it."""


@pytest.mark.parametrize("name", STEPS)
def test_only_what_can_be_one_call_is(name: str) -> None:
    change, expected = STEPS[name]

    def step(carry: Any, _x: Any, _: Any) -> Any:
        return change(*carry), ()

    carry, xs = arrays([(3, 3)] * 4), arrays([(4, 3)])
    assert [function for function in calls(step, carry, xs) if isinstance(function, np.ufunc)] == expected
    scan_both(step, carry, xs)


def test_constants_stay_where_they_are() -> None:
    def step(carry: Any, _x: Any, constants: Any) -> Any:
        return tuple(x + c for x, c in zip(carry, constants, strict=True)), ()

    xs = arrays([(4, 3)])
    scan_both(step, arrays([(3,), (2,)]), xs, arrays([(3,), (2,)]))


def test_constants_that_print_alike_are_told_apart() -> None:
    one, other = np.asarray(0.12345678901), np.asarray(0.12345678999)

    def step(carry: Any, _x: Any, _: Any) -> Any:
        return (carry[0] * one, carry[1] * other), ()

    scan_both(step, arrays([(2, 2), (2,)]), arrays([(4, 3)]))


def test_arrays_of_two_types_are_left_apart() -> None:
    def step(carry: Any, _x: Any, _: Any) -> Any:
        return tuple(0.5 * x for x in carry), ()

    carry = *arrays([(2, 3)], np.float32), *arrays([(3, 3), (3,)])
    assert calls(step, carry, arrays([(4, 3)])) == [np.multiply, np.multiply]
    scan_both(step, carry, arrays([(4, 3)]))


@given(data=st.data())
def test_any_step_on_many_arrays_is_replayed_to_the_bit(data: st.DataObject) -> None:
    """Every array goes through the same operations, but for one that may differ; what is made is used anywhere."""
    names = st.sampled_from(list(OPERATIONS))
    index = st.integers(0, 99)
    lanes = data.draw(st.lists(st.sampled_from(SHAPES), min_size=2, max_size=4), label="shapes")
    choices = data.draw(st.lists(st.tuples(names, index, index), min_size=1, max_size=8), label="step")
    odd = data.draw(st.one_of(st.none(), st.tuples(index, index, names)), label="lane, operation, what it is there")
    looks = data.draw(st.lists(st.tuples(index, index), max_size=2), label="lane, value: y and what the next reads")
    ends = data.draw(st.tuples(index, index), label="new carry")
    by_lane = data.draw(st.booleans(), label="lane by lane")

    def step(carry: Any, x: tuple[Any, ...], _: Any) -> Any:
        values = [[left, right] for left, right in zip(*carry, strict=True)]
        number = x[0]
        order = [(i, k) for i in range(len(lanes)) for k in range(len(choices))]
        for i, k in order if by_lane else sorted(order, key=lambda pair: pair[::-1]):
            name, a, b = choices[k]
            if odd is not None and (i, k) == (odd[0] % len(lanes), odd[1] % len(choices)):
                name = odd[2]
            mine = values[i]
            mine.append(OPERATIONS[name](mine[a % len(mine)], mine[b % len(mine)], number))
            if any(i == lane % len(lanes) and k == value % len(choices) for lane, value in looks):
                number = number + 0.125 * xp.sum(mine[-1])
        new = [tuple(mine[end % len(mine)] for mine in values) for end in ends]
        return tuple(new), (number, *new[0])

    carry = arrays(lanes), arrays([*lanes, ()])[:-1]
    with np.errstate(all="ignore"):
        scan_both(step, carry, (np.asarray([0.5, -0.25, 1.0]),))


def test_the_numbers_between_two_steps_are_the_callers_own() -> None:
    """Members of one block are handed out as arrays of their own."""
    carry, xs = (arrays([(5, 3), (3,)]), arrays([(5, 3), (3,)])), arrays([(6, 3)])
    program = Program(descend, carry, xs, ())
    first, _ = program.run(carry, xs, ())
    kept = [array.copy() for layer in first for array in layer]
    program.run(first, xs, ())
    assert_same(tuple(array for layer in first for array in layer), tuple(kept))
