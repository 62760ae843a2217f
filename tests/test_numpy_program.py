"""NumPy's programs: whatever a step does, replaying it gives what the plain loop gives, to the last bit."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import mlp_xp_numpy_namespace
import mlp_xp_numpy_program
from mlp_xp.activations import ACTIVATIONS
from mlp_xp.arithmetic import ARITHMETICS
from mlp_xp.array_types import PyTree, leaves, signature
from mlp_xp.datasets import Dataset
from mlp_xp.losses import LOSSES
from mlp_xp.settings import Settings
from mlp_xp.trainer import Trainer
from mlp_xp_numpy import FEWEST_STEPS, MOST_PROGRAMS, NumPyBackend
from mlp_xp_numpy_program import Program
from mlp_xp_plain import PlainBackend

xp: Any = mlp_xp_numpy_namespace
OPTIMIZERS: tuple[dict[str, Any], ...] = (
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True, "l2": 0.01},
    {"optimizer": "adam", "dropout": 0.3, "max_gradient_norm": 0.1},
)


def assert_same(actual: PyTree, expected: PyTree) -> None:
    """Assert that trees have the same structure and their arrays the same types, shapes and bits."""
    assert signature(actual) == signature(expected)
    for mine, other in zip(leaves(actual), leaves(expected), strict=True):
        assert (mine + 0.0).tobytes() == (other + 0.0).tobytes()  # a sum's zero may have either sign


def scan_both(step: Any, carry: PyTree, xs: Any, constants: PyTree = ()) -> Any:
    """Return what a program gives, having seen that the plain loop gives the same and no argument was written to."""
    given_bytes = [array.tobytes() for array in leaves((carry, xs, constants))]
    expected = PlainBackend().scan(step, carry, xs, constants)
    program = Program(step, carry, xs, constants)
    for _ in range(2):  # the second time in memory that the first has used
        assert_same(program.run(carry, xs, constants), expected)
    assert [array.tobytes() for array in leaves((carry, xs, constants))] == given_bytes
    return expected


def problem(loss: str) -> Dataset:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 5))
    if loss == "squared_error":
        return Dataset("numbers", features, rng.normal(size=(60, 2)), None)
    if loss == "poisson":
        return Dataset("counts", features, rng.poisson(1.0, (60, 2)).astype(float), None)
    n_classes = 2 if loss == "binary_cross_entropy" else 3
    return Dataset("classes", features, rng.integers(0, n_classes, 60).astype(np.int32), n_classes)


@pytest.mark.parametrize(("arithmetic", "activation"), list(product(ARITHMETICS, ACTIVATIONS)))
@pytest.mark.parametrize("loss", LOSSES)
def test_every_training_is_replayed_to_the_bit(arithmetic: str, activation: str, loss: str) -> None:
    for changes in OPTIMIZERS:
        settings = Settings(
            hidden_layer_sizes=(7, 6), activation=activation, loss=loss, arithmetic=arithmetic, batch_size=12, **changes
        )
        for replicas in (None, 3):
            trainers = [
                Trainer(settings, problem(loss), backend, replicas=replicas)
                for backend in (NumPyBackend(), PlainBackend())
            ]
            for epoch in range(2):
                losses = [trainer.run_epoch(epoch) for trainer in trainers]
                assert_same(losses[0], losses[1])
            assert_same(*((trainer.loop.parameters, trainer.loop.optimizer_state) for trainer in trainers))
            assert len(trainers[0].backend._programs) == 1, "it was not traced"  # type: ignore[attr-defined]


@pytest.mark.parametrize("replicas", [None, 3])
@pytest.mark.parametrize("loss", ["squared_error", "binary_cross_entropy"])
def test_a_single_output_of_a_large_batch_has_the_same_bits(loss: str, replicas: int | None) -> None:
    rng = np.random.default_rng(0)
    targets: Any = rng.normal(size=(600, 1)) if loss == "squared_error" else rng.integers(0, 2, 600)
    data = Dataset("one output", rng.normal(size=(600, 5)), targets, None if loss == "squared_error" else 2)
    settings = Settings(hidden_layer_sizes=(7,), loss=loss, batch_size=200, dtype="float64")
    trainers = [Trainer(settings, data, backend, replicas=replicas) for backend in (NumPyBackend(), PlainBackend())]
    for epoch in range(2):
        assert_same(*(trainer.run_epoch(epoch) for trainer in trainers))
    assert_same(*((trainer.loop.parameters, trainer.loop.optimizer_state) for trainer in trainers))
    assert len(trainers[0].backend._programs) == 1, "it was not traced"  # type: ignore[attr-defined]


class Pair(NamedTuple):
    """A carry of two arrays."""

    left: Any
    right: Any


SHAPE = (3, 4)
UNARY: dict[str, Callable[[Any], Any]] = {
    "negative": lambda x: -x,
    "abs": xp.abs,
    "transposed twice": lambda x: xp.matrix_transpose(xp.matrix_transpose(x)),
    "less its largest": lambda x: x - xp.max(x, axis=-1, keepdims=True),
    "its rows by the largest": lambda x: (
        xp.max(x, axis=-1, keepdims=True) - xp.expand_dims(xp.min(x, axis=1), axis=-1) + x
    ),
    "plus its sum": lambda x: x + xp.sum(x, axis=(-2, -1)),
    "where positive": lambda x: xp.where(x > 0.0, x, xp.zeros_like(x)),
    "through another type": lambda x: xp.astype(xp.astype(x, xp.float32), xp.float64),
    "rows in another order": lambda x: xp.take(x, xp.asarray([2, 0, 1]), axis=0),
    "reshaped": lambda x: xp.reshape(xp.reshape(x, (-1,)) * 2.0, SHAPE),
    "its gram matrix times itself": lambda x: xp.matmul(xp.matmul(x, xp.matrix_transpose(x)), x),
    "at most its sum": lambda x: xp.minimum(x, xp.sum(x)),
    "at least 2": lambda x: xp.maximum(2, x),
    "whole": lambda x: xp.astype(xp.maximum(xp.astype(x, xp.int32), 3), xp.float64),
    "a part": lambda x: x - xp.expand_dims(x[0, ...], axis=0),
}


def twice_in_place(x: Any, y: Any) -> Any:
    """Return x + 2y, written as the equations write over what is theirs."""
    total = x + y
    total += y
    return total


BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda x, y: x + y,
    "difference": lambda x, y: x - y,
    "product": lambda x, y: x * y,
    "maximum": xp.maximum,
    "in place": twice_in_place,
    "first": lambda x, _: x,
    "by the transpose": lambda x, y: xp.matrix_transpose(xp.matrix_transpose(x) + xp.matrix_transpose(y)),
}

GROWING = {
    "less its largest",
    "its rows by the largest",
    "plus its sum",
    "reshaped",
    "its gram matrix times itself",
    "a part",
} | {
    "sum",
    "difference",
    "product",
    "in place",
    "by the transpose",
}
"""Their results are made small whole numbers, whose sums are the same in whatever order they lie in memory."""


@given(data=st.data())
def test_any_step_is_replayed_to_the_bit(data: st.DataObject) -> None:
    """Random straight-line programs: values are used late, twice, as views, never, handed on and swapped."""
    choices = data.draw(
        st.lists(st.tuples(st.sampled_from([*UNARY, *BINARY]), st.integers(0, 99), st.integers(0, 99)), max_size=12),
        label="step",
    )
    ends = data.draw(st.tuples(*[st.integers(0, 99)] * 4), label="carry, carry, y, y")

    def step(carry: Pair, x: tuple[Any, ...], constants: tuple[Any, ...]) -> Any:
        values = [carry.left, carry.right, x[0], constants[0], xp.matrix_transpose(xp.matrix_transpose(constants[1]))]
        for name, i, j in choices:
            one, other = values[i % len(values)], values[j % len(values)]
            value = UNARY[name](one) if name in UNARY else BINARY[name](one, other)
            values.append(xp.remainder(value, 17.0) if name in GROWING else value)
        left, right, y, z = (values[end % len(values)] for end in ends)
        return Pair(left, right), (y, xp.sum(z, axis=0))

    rng = np.random.default_rng(1)
    left, right, one, other = (rng.integers(-8, 8, SHAPE).astype(float) for _ in range(4))
    xs = (rng.integers(-8, 8, (4, *SHAPE)).astype(float),)
    with np.errstate(all="ignore"):
        scan_both(step, Pair(left, np.asfortranarray(right)), xs, (one, np.asfortranarray(other)))


def test_what_stays_the_same_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(carry: Any, x: Any, _: Any) -> Any:
        rate, weight = carry
        return (rate, weight + -rate * x[0]), (weight,)

    calls: list[Any] = []
    monkeypatch.setattr(mlp_xp_numpy_program, "_make_call", lambda operation, _: calls.append(operation.function))
    Program(step, (np.asarray(0.5), np.zeros(3)), (np.ones((4, 3)),), ())
    assert calls == [np.negative, np.multiply, np.add]


def test_what_nobody_uses_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(carry: Any, x: Any, _: Any) -> Any:
        _unused = xp.exp(carry)
        return carry + x[0], ()

    calls: list[Any] = []
    monkeypatch.setattr(mlp_xp_numpy_program, "_make_call", lambda operation, _: calls.append(operation.function))
    Program(step, np.zeros(3), (np.ones((4, 3)),), ())
    assert calls == [np.add]


def test_the_carry_is_updated_where_it_is() -> None:
    def step(carry: Any, x: Any, _: Any) -> Any:
        moved = -0.5 * x[0]
        moved += carry
        return moved, ()

    program = Program(step, np.zeros(3), (np.ones((4, 3)),), ())
    assert not program._hand_on
    *_, target = program._calls[-1].args
    assert target.ctypes.data == program._carry[0].ctypes.data
    assert_same(program.run(np.zeros(3), (np.ones((4, 3)),), ()), (np.full(3, -2.0), ()))


def accumulate(total: Any, x: Any) -> None:
    total += x


def in_zeros(x: Any) -> Any:
    total = xp.zeros_like(x)
    accumulate(total, x)
    return total


def in_a_loop(x: Any) -> Any:
    for part in (one := x * 1.0, other := x * 2.0):
        part += 1.0
    return one + other


def under_another_name(x: Any) -> Any:
    doubled = x * 2.0
    same = doubled
    same += 1.0
    return doubled


def through_a_view(x: Any) -> Any:
    doubled = x * 2.0
    view = xp.reshape(doubled, (3, 1))
    view += 1.0
    return doubled


def into_an_array_of_its_own(x: Any) -> Any:
    out = np.empty(3)
    np.add(x, 1.0, out=out)
    return out


ARRAY = np.arange(3.0)


@pytest.mark.parametrize(
    "look",
    [
        lambda x: x if x[0] > 0.0 else -x,
        lambda x: x * float(x[0]),
        lambda x: np.concatenate([x[:1], x[1:]]),
        lambda x: np.asarray(x) + 1.0,
        lambda x: np.clip(x, -1.0, 1.0, out=np.empty(3)),
        lambda x: np.add.accumulate(x),
        lambda x: x.copy(),
        in_zeros,
        in_a_loop,
        under_another_name,
        through_a_view,
        into_an_array_of_its_own,
        lambda x: x + np.sum(x[x > 0.0]),
        lambda x: x + np.unique(x)[0],
        lambda x: x + np.frexp(x)[1],
        lambda x: x / np.size(x),
        lambda x: x + np.take(x, [-1, 5, 0], mode="wrap"),
        lambda x: x + np.reshape(ARRAY, (3,))[::-1][np.asarray([0, 1, 2])] * x**0.5,
        lambda x: x + np.ma.masked_less(ARRAY, 1.0),
    ],
)
def test_a_step_that_cannot_be_traced_is_run_as_it_is(look: Callable[[Any], Any]) -> None:
    def step(_carry: Any, x: Any, _: Any) -> Any:
        return look(np.abs(x[0])), (look(x[0] + 0.0),)

    backend, rng = NumPyBackend(), np.random.default_rng(0)
    carry, xs = rng.normal(size=3), (np.abs(rng.normal(size=(FEWEST_STEPS, 3))),)
    expected = PlainBackend().scan(step, carry, xs)
    assert_same(backend.scan(step, carry, xs), expected)
    assert not backend._programs


@pytest.mark.parametrize("numbers", [[0, 3, 1], [-1, 2, 0], [0, 4, 1]])
def test_numbers_that_count_no_row_are_left_to_the_plain_loop(numbers: list[int]) -> None:
    """Such as negative ones, which count from the end, and too large ones, which are an error."""

    def step(carry: Any, x: Any, constants: Any) -> Any:
        return carry, (xp.take(constants[0], x[0], axis=0),)

    xs, table = (np.asarray([[0, 1, 2]] * FEWEST_STEPS + [numbers], np.int32),), np.arange(4.0)
    backends = NumPyBackend(), PlainBackend()
    if max(numbers) > 3:
        for backend in backends:
            with pytest.raises(IndexError):
                backend.scan(step, np.zeros(1), xs, (table,))
    else:
        assert_same(*(backend.scan(step, np.zeros(1), xs, (table,)) for backend in backends))


def test_numbers_within_a_step_are_limited_or_looked_at() -> None:
    def step(carry: Any, x: Any, constants: Any) -> Any:
        whole = xp.astype(x[0], xp.int32)
        limited = xp.minimum(xp.maximum(whole, 0), 3)
        return carry, (xp.take(constants[0], limited, axis=0), xp.take(constants[0], whole - 2, axis=0))

    xs = (np.asarray([[0.0, 3.0, 4.9, 1.0]] * 3),)
    scan_both(step, np.zeros(1), xs, (np.arange(4.0),))
    with pytest.raises(IndexError):
        NumPyBackend().scan(step, np.zeros(1), (np.full((FEWEST_STEPS, 4), 9.0),), (np.arange(4.0),))


def test_a_number_is_taken_as_numpy_takes_it() -> None:
    def step(carry: Any, x: Any, _: Any) -> Any:
        y = np.add(x[0], 0.1, dtype=np.float64)
        return carry, (y, np.float_power(x[0], 0.3), x[0] > 0.1, x[0] * 0.1, np.float32(1) + x[0], 1 + x[0])

    scan_both(step, np.zeros(1), (np.full((3, 4), 0.1, np.float32),))


def test_two_tables_that_print_alike_are_told_apart() -> None:
    one, other = np.arange(3000.0), np.arange(3000.0)
    other[1500] = -1.0

    def step(carry: Any, x: Any, _: Any) -> Any:
        return carry, (xp.sum(x[0] * one) - xp.sum(x[0] * other),)

    _, (y,) = scan_both(step, np.zeros(1), (np.ones((3, 3000)),))
    assert y.tolist() == [1501.0] * 3


def test_a_mistake_in_a_step_is_told_as_it_is() -> None:
    def step(carry: Any, x: Any, _: Any) -> Any:
        return xp.matmul(carry, x[0]), ()

    with pytest.raises(ValueError, match="mismatch in its core dimension"):
        NumPyBackend().scan(step, np.ones((2, 3)), (np.ones((FEWEST_STEPS, 4, 2)),))


def test_other_constants_are_read_by_the_same_program() -> None:
    def step(carry: Any, x: Any, constants: Any) -> Any:
        return carry + x[0] * (constants[0] * 2.0), (constants[0], constants[0][0, ...])

    backend = NumPyBackend()
    factor = np.full(3, 1.0)
    for value in (1.0, 2.0, 3.0):
        factor = np.full(3, value) if value < 3 else factor
        factor[...] = value  # the third time, only what is in the array is another
        carry, (y, z) = backend.scan(step, np.zeros(3), (np.ones((FEWEST_STEPS, 3)),), (factor,))
        np.testing.assert_array_equal(carry, FEWEST_STEPS * 2 * value)
        assert y.tolist() == [[value] * 3] * FEWEST_STEPS
        assert z.tolist() == [value] * FEWEST_STEPS
    assert len(backend._programs) == 1


def test_no_array_is_kept_alive() -> None:
    def step(carry: Any, x: Any, constants: Any) -> Any:
        return carry + x[0] * xp.reshape(constants[0], (3,)), ()

    backend, constant, carry, rows = NumPyBackend(), np.ones((1, 3)), np.zeros(3), np.ones((FEWEST_STEPS, 3))
    alive = [weakref.ref(array) for array in (constant, carry, rows)]
    backend.scan(step, carry, (rows,), (constant,))
    assert len(backend._programs) == 1
    del constant, carry, rows
    gc.collect()
    assert [reference() for reference in alive] == [None] * 3


def test_a_short_loop_is_traced_when_it_comes_again() -> None:
    def step(carry: Any, x: Any, _: Any) -> Any:
        return carry + x[0], ()

    backend = NumPyBackend()
    for programs in (0, 1, 1):
        carry, _ = backend.scan(step, np.zeros(3), (np.ones((2, 3)),))
        np.testing.assert_array_equal(carry, 2.0)
        assert len(backend._programs) == programs


def test_few_programs_are_kept() -> None:
    def step(carry: Any, x: Any, _: Any) -> Any:
        return carry + x[0], ()

    backend = NumPyBackend()
    for n in range(1, 2 * MOST_PROGRAMS):
        backend.scan(step, np.zeros(n), (np.ones((FEWEST_STEPS, n)),))
    assert [program._carry[0].size for program in backend._programs.values()] == list(
        range(MOST_PROGRAMS, 2 * MOST_PROGRAMS)
    )


def test_results_are_the_callers_own() -> None:
    def step(carry: Any, x: Any, _: Any) -> Any:
        return carry + x[0], (carry,)

    backend, xs = NumPyBackend(), (np.ones((FEWEST_STEPS, 3)),)
    first = backend.scan(step, np.zeros(3), xs)
    copies = [array.copy() for array in leaves(first)]
    backend.scan(step, np.full(3, 7.0), xs)
    for array, copy in zip(leaves(first), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_program_runs_once_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads in one loop at once: the second has a program of its own."""

    def step(carry: Any, x: Any, _: Any) -> Any:
        return carry + x[0], ()

    backend, arguments = NumPyBackend(), (step, np.zeros(3), (np.ones((FEWEST_STEPS, 3)),))
    backend.scan(*arguments)
    together, running, run = threading.Barrier(2), [], Program.run

    def both(program: Program, *rest: Any) -> Any:
        running.append(program)
        together.wait(timeout=60)
        return run(program, *rest)

    monkeypatch.setattr(Program, "run", both)
    threads = [threading.Thread(target=backend.scan, args=arguments) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, running))) == 2


def test_threads_do_not_write_to_one_memory() -> None:
    def step(carry: Any, x: Any, _: Any) -> Any:
        return carry * 0.5 + x[0], ()

    backend = NumPyBackend()
    inputs = [(np.full(1000, float(i)), (np.full((300, 1000), float(i)),)) for i in range(4)]
    expected = [PlainBackend().scan(step, *arguments)[0] for arguments in inputs]
    results: dict[int, list[Any]] = {i: [] for i in range(4)}

    def work(i: int) -> None:
        results[i] += [backend.scan(step, *inputs[i])[0] for _ in range(20)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        assert len(results[i]) == 20
        for result in results[i]:
            assert_same(result, expected[i])


@given(
    st.sampled_from([xp.sum, xp.max, xp.min]),
    st.sampled_from([-1, -2, 0, 1]),
    st.lists(st.integers(1, 40), min_size=2, max_size=3),
    st.booleans(),
    st.sampled_from([np.float32, np.float64]),
)
@example(xp.sum, -2, [13, 40, 1], False, np.float32)
@example(xp.sum, -2, [200, 5], True, np.float64)
def test_whatever_is_reduced_has_the_same_bits(
    reduce: Any, axis: int, shape: list[int], keep: bool, dtype: Any
) -> None:
    def step(carry: Any, x: Any, _: Any) -> Any:
        turned = xp.matrix_transpose(x[0]) if x[0].ndim > 1 else x[0]
        return carry, (reduce(x[0], axis=axis, keepdims=keep), reduce(turned, axis=axis, keepdims=keep))

    values = np.random.default_rng(0).normal(size=(3, *shape)).astype(dtype)
    values[0] = -0.0
    xs, carry = (values,), np.zeros(1)
    replayed, plain = (
        leaves(Program(step, carry, xs, ()).run(carry, xs, ())),
        leaves(PlainBackend().scan(step, carry, xs)),
    )
    assert [array.tobytes() for array in replayed] == [array.tobytes() for array in plain]


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda x: x,
    "transposed": lambda x: xp.matrix_transpose(xp.reshape(x, x.shape[::-1])),
    "every second column": lambda x: x[:, ::2],
}


@given(
    st.lists(st.integers(1, 30), min_size=3, max_size=3),
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from([np.float32, np.float64, np.int64]),
)
def test_whatever_is_multiplied_has_the_same_bits(sizes: list[int], left: str, right: str, dtype: Any) -> None:
    def step(carry: Any, x: Any, _: Any) -> Any:
        return carry, (xp.matmul(LAYOUTS[left](x[0]), LAYOUTS[right](x[1])),)

    m, k, n = sizes
    rng = np.random.default_rng(0)
    widths = {name: 2 if name == "every second column" else 1 for name in LAYOUTS}
    xs = tuple(
        (rng.normal(size=(3, *shape)) * 9).astype(dtype) for shape in ((m, k * widths[left]), (k, n * widths[right]))
    )
    carry = np.zeros(1)
    assert leaves(Program(step, carry, xs, ()).run(carry, xs, ()))[1].tobytes() == (
        leaves(PlainBackend().scan(step, carry, xs))[1].tobytes()
    )
