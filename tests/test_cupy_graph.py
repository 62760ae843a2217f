"""CuPy's graphs: a replay gives what the plain loop gives, to the last bit, or the loop is run.

Every test runs on a stand-in for CuPy, which needs no GPU, and where there is one on CuPy itself.
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

import fake_cupy
from fake_cupy import FakeCuPyBackend
from mlp_xp.array_types import PyTree, leaves, signature
from mlp_xp.backend import Backend, open_backend
from mlp_xp.datasets import Dataset
from mlp_xp.errors import BackendUnavailable
from mlp_xp.estimators.stochastic import lay_out
from mlp_xp.loop import Loop
from mlp_xp.settings import Settings
from mlp_xp.trainer import Trainer
from mlp_xp_cupy_graph import FEWEST_STEPS, MOST_PROGRAMS, SWITCH, Program, Replays

TRAININGS: tuple[dict[str, Any], ...] = (
    {"dtype": "float32"},
    {"dtype": "float64", "activation": "gelu", "momentum": 0.9, "nesterov": True, "l2": 0.01},
    {"arithmetic": "exact", "activation": "tanh"},
    {"optimizer": "adam", "dropout": 0.3, "max_gradient_norm": 0.1},
    {"arithmetic": "exact", "optimizer": "adam", "dropout": 0.3, "loss": "binary_cross_entropy"},
)


@pytest.fixture(params=["stand-in", pytest.param("cupy", marks=pytest.mark.gpu)])
def graphed(request: pytest.FixtureRequest) -> Backend:
    """A backend of which nothing has been captured yet."""
    if request.param == "stand-in":
        return FakeCuPyBackend()
    try:
        return open_backend("cupy")
    except BackendUnavailable as error:
        pytest.skip(str(error))


def replays_of(backend: Any) -> Replays:
    replays: Replays = backend._replays
    return replays


def assert_replayed(backend: Backend, n_programs: int = 1) -> None:
    replays = replays_of(backend)
    assert (len(replays._programs), replays._refused) == (n_programs, set())


def assert_refused(backend: Backend) -> None:
    replays = replays_of(backend)
    assert (len(replays._programs), len(replays._refused)) == (0, 1)


def same_bits(actual: PyTree, expected: PyTree, backend: Backend) -> None:
    """Assert that trees have the same structure and their arrays the same types, shapes and bits."""
    assert signature(actual) == signature(expected)
    for mine, other in zip(leaves(actual), leaves(expected), strict=True):
        assert backend.to_host(mine).tobytes() == backend.to_host(other).tobytes()


def by_the_loop(backend: Backend, step: Any, carry: PyTree, xs: tuple[Any, ...], constants: PyTree = ()) -> Any:
    return Backend.scan(backend, step, carry, xs, constants)


def normal(backend: Backend, *shape: int, seed: int = 0) -> Any:
    return backend.asarray(np.random.default_rng(seed).normal(size=shape))


class Pair(NamedTuple):
    """A carry of two arrays."""

    left: Any
    right: Any


@dataclass(frozen=True)
class Descent:
    """A step with two products, of which the second takes what is computed in between.

    They do not take a row where it lies among others: a library may choose a product's kernel by how that is aligned.
    """

    backend: Any

    def __call__(self, carry: Any, x: tuple[Any, ...], constants: Any) -> Any:
        xp = self.backend.xp
        rows = x[0] * 1.0
        error = xp.matmul(rows, carry) - constants[0]
        return carry - 0.1 * xp.matmul(xp.matrix_transpose(rows), error), (xp.sum(error * error),)


def descent(backend: Backend, n_steps: int = FEWEST_STEPS, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """Return a step and what it is to be run on."""
    start, rows, aim = ((3, 2), (n_steps, 4, 3), (4, 2))
    arrays = [normal(backend, *shape, seed=seed + i) for i, shape in enumerate((start, rows, aim))]
    return Descent(backend), arrays[0], (arrays[1],), (arrays[2],)


# --- the same bits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "replicas"), list(product(TRAININGS, (None, 3))))
def test_every_training_is_replayed_to_the_bit(
    graphed: Backend, changes: dict[str, Any], replicas: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    n_classes = 2 if "loss" in changes else 3
    data = Dataset("classes", rng.normal(size=(60, 5)), rng.integers(0, n_classes, 60).astype(np.int32), n_classes)
    settings = Settings(hidden_layer_sizes=(7, 6), batch_size=12, **changes)
    looped, replayed = (Trainer(settings, data, graphed, replicas=replicas) for _ in range(2))
    for epoch in range(3):
        monkeypatch.setenv(SWITCH, "0")
        expected = looped.run_epoch(epoch)
        monkeypatch.delenv(SWITCH)
        assert replayed.run_epoch(epoch).tobytes() == expected.tobytes()
    same_bits(replayed.loop.parameters, looped.loop.parameters, graphed)
    same_bits(replayed.loop.optimizer_state, looped.loop.optimizer_state, graphed)
    assert_replayed(graphed)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_uneven_last_batch_has_the_same_bits(graphed: Backend, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As estimators have it: rows whose share is nothing, and a penalty of each batch's own."""
    rng = np.random.default_rng(0)
    data = Dataset("classes", rng.normal(size=(50, 5)), rng.integers(0, 3, 50).astype(np.int32), 3)
    settings = Settings(hidden_layer_sizes=(7,), batch_size=12, l2=0.01, dtype=dtype)
    loops: list[Loop] = [Trainer(settings, data, graphed).loop for _ in range(2)]
    for _ in range(3):
        inputs = lay_out(rng.permutation(50).astype(np.int32), 12, None, 0.01, dtype)
        assert len(inputs) == 3
        monkeypatch.setenv(SWITCH, "0")
        expected = loops[0].losses(loops[0].run(*inputs))
        monkeypatch.delenv(SWITCH)
        assert loops[1].losses(loops[1].run(*inputs)).tobytes() == expected.tobytes()
    same_bits(loops[1].parameters, loops[0].parameters, graphed)
    assert_replayed(graphed)


def test_a_network_that_is_asked_many_times_answers_the_same(graphed: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    data = Dataset("classes", rng.normal(size=(60, 5)), rng.integers(0, 3, 60).astype(np.int32), 3)
    trainer = Trainer(Settings(hidden_layer_sizes=(7,), batch_size=12), data, graphed)
    monkeypatch.setenv(SWITCH, "0")
    expected = trainer.model.evaluate_each(trainer.loop.rows)
    monkeypatch.delenv(SWITCH)
    for _ in range(3):
        assert trainer.model.evaluate_each(trainer.loop.rows) == expected
    assert_replayed(graphed)


def swapped(_: Any, carry: Pair, x: Any, c: Any) -> Any:
    return Pair(carry.right, carry.left + x), (c, carry.left)


def unchanged(xp: Any, carry: Pair, x: Any, c: Any) -> Any:
    return Pair(carry.left, xp.matmul(carry.right, c)), (carry.left, x)


def turned(xp: Any, carry: Pair, x: Any, c: Any) -> Any:
    turn = xp.matrix_transpose
    return Pair(turn(carry.left), turn(carry.right) * 0.5), (turn(xp.matmul(x * 1.0, turn(carry.left))), c * 1.0)


def forgotten(xp: Any, carry: Pair, x: Any, c: Any) -> Any:
    """Values that are freed while a product still needs its operands' memory."""
    first = xp.matmul(carry.left * 0.5, x + c)
    second = xp.matmul(first + 1.0, carry.right + x) * 0.1
    return Pair(second, carry.right * 0.9 + x * 2.0), (first, xp.sum(second, axis=0))


def twice_in_place(xp: Any, carry: Pair, x: Any, c: Any) -> Any:
    moved = xp.matmul(x * 1.0, c)
    moved += carry.left
    moved *= 0.5
    return Pair(moved, carry.right), (moved, moved - c)


def side_by_side(xp: Any, carry: Pair, x: Any, c: Any) -> Any:
    many = xp.expand_dims(x, axis=0) * xp.expand_dims(c, axis=1)
    left = xp.matmul(many, xp.matrix_transpose(many)) + xp.matmul(many, carry.left)
    return Pair(xp.sum(left, axis=0) * 0.01, x), (left, xp.max(many, axis=-1))


@pytest.mark.parametrize("function", [swapped, unchanged, turned, forgotten, twice_in_place, side_by_side])
def test_whatever_a_step_hands_on_is_replayed_to_the_bit(graphed: Backend, function: Callable[..., Any]) -> None:
    def step(carry: Pair, x: tuple[Any, ...], constants: tuple[Any, ...]) -> Any:
        return function(graphed.xp, carry, x[0], constants[0])

    carry = Pair(normal(graphed, 3, 3), normal(graphed, 3, 3, seed=1))
    xs, c = (normal(graphed, FEWEST_STEPS, 3, 3, seed=2),), (normal(graphed, 3, 3, seed=3),)
    expected = by_the_loop(graphed, step, carry, xs, c)
    given = [graphed.to_host(array).copy() for array in leaves((carry, xs, c))]
    for _ in range(2):
        same_bits(graphed.scan(step, carry, xs, c), expected, graphed)
    assert_replayed(graphed)
    for array, before in zip(leaves((carry, xs, c)), given, strict=True):
        np.testing.assert_array_equal(graphed.to_host(array), before)


# --- when it is captured, and for how long it is kept ---------------------------------------------------------------


def test_a_step_is_captured_once(graphed: Backend) -> None:
    called: list[int] = []

    @dataclass(frozen=True)
    class Counted(Descent):
        def __call__(self, *arguments: Any) -> Any:
            called.append(1)
            return super().__call__(*arguments)

    _, *arguments = descent(graphed)
    for _ in range(3):  # equal steps, not the same ones
        graphed.scan(Counted(graphed), *arguments)
        assert len(called) == 3  # two by the loop, for the check, and one to be captured
    assert_replayed(graphed)


def test_a_short_loop_is_captured_when_it_comes_again(graphed: Backend) -> None:
    step, carry, xs, constants = descent(graphed, n_steps=1)
    for n_programs in (0, 1, 1):
        same_bits(
            graphed.scan(step, carry, xs, constants),
            by_the_loop(graphed, step, carry, xs, constants),
            graphed,
        )
        assert_replayed(graphed, n_programs)


def test_loops_of_any_length_share_a_program(graphed: Backend) -> None:
    step, carry, (rows,), constants = descent(graphed, 2 * FEWEST_STEPS)
    for n_steps in (FEWEST_STEPS, 2 * FEWEST_STEPS, 2):
        xs = (rows[:n_steps, ...],)
        expected = by_the_loop(graphed, step, carry, xs, constants)
        same_bits(graphed.scan(step, carry, xs, constants), expected, graphed)
    assert_replayed(graphed)


def test_constants_are_read_where_they_are(graphed: Backend) -> None:
    step, carry, xs, constants = descent(graphed)
    others = (normal(graphed, 4, 2, seed=7),)
    for given, n_programs in ((constants, 1), (others, 2), (constants, 2), (others, 2)):
        expected = by_the_loop(graphed, step, carry, xs, given)
        same_bits(graphed.scan(step, carry, xs, given), expected, graphed)
        assert_replayed(graphed, n_programs)
    others[0].__iadd__(1.0)  # the same place with another content
    expected = by_the_loop(graphed, step, carry, xs, others)
    same_bits(graphed.scan(step, carry, xs, others), expected, graphed)
    assert_replayed(graphed, 2)


def test_another_type_shape_or_layout_has_a_program_of_its_own(graphed: Backend) -> None:
    def step(carry: Any, x: tuple[Any, ...], constants: tuple[Any, ...]) -> Any:
        xp = graphed.xp
        return carry * 0.5, (xp.sum(xp.matmul(constants[0] * 1.0, xp.reshape(x[0], (3, -1)) * 1.0), axis=0),)

    xp, one, square = graphed.xp, normal(graphed, 3), normal(graphed, 3, 3)
    rows = normal(graphed, FEWEST_STEPS, 3, 4, seed=1)
    cases = (
        (one, rows, square),
        (one, xp.astype(rows, xp.float32), square),
        (one, rows[:, :, :2], square),
        (one, rows, xp.matrix_transpose(square)),
        (xp.astype(one, xp.float32), rows, square),
    )
    for _, (i, (start, x, c)) in product(range(2), enumerate(cases)):
        expected = by_the_loop(graphed, step, start, (x,), (c,))
        same_bits(graphed.scan(step, start, (x,), (c,)), expected, graphed)
        assert i < len(replays_of(graphed)._programs)
    assert_replayed(graphed, len(cases))


def test_what_a_step_holds_is_kept_with_its_graphs(graphed: Backend) -> None:
    @dataclass(frozen=True)
    class Holding:
        table: Any = field(compare=False)

        def __call__(self, carry: Any, x: tuple[Any, ...], _: Any) -> Any:
            return carry + x[0] * self.table, ()

    def holding() -> Holding:
        return Holding(graphed.asarray(np.arange(3.0)))

    carry, xs = normal(graphed, 3), (normal(graphed, FEWEST_STEPS, 3, seed=1),)
    expected = by_the_loop(graphed, holding(), carry, xs)
    for _ in range(3):  # an equal step every time; the first one is nobody's any more
        same_bits(graphed.scan(holding(), carry, xs), expected, graphed)
        spoilt = [graphed.asarray(np.full(3, np.nan)) for _ in range(8)]
    assert len(spoilt) == 8
    assert_replayed(graphed)


def test_results_are_the_callers_own(graphed: Backend) -> None:
    step, carry, xs, constants = descent(graphed)
    first = graphed.scan(step, carry, xs, constants)
    assert_replayed(graphed)
    copies = [graphed.to_host(array).copy() for array in leaves(first)]
    graphed.scan(step, carry + 7.0, (xs[0] * 2.0,), constants)
    assert_replayed(graphed)
    for array, copy in zip(leaves(first), copies, strict=True):
        np.testing.assert_array_equal(graphed.to_host(array), copy)
    first[0].__iadd__(1.0)  # nor does a later run begin with what the caller has done to them
    expected = by_the_loop(graphed, step, carry, xs, constants)
    same_bits(graphed.scan(step, carry, xs, constants), expected, graphed)


def test_no_array_is_kept_alive(graphed: Backend) -> None:
    step, carry, xs, constants = descent(graphed)
    graphed.scan(step, carry, xs, constants)
    assert_replayed(graphed)
    blocks = [array.data.mem for array in (carry, *xs, *constants, normal(graphed, 3))]
    del carry, xs, constants
    gc.collect()
    given = [sys.getrefcount(block) for block in blocks]
    assert given == given[-1:] * 4, "a program holds their memory"  # the last one no program has seen


def test_few_programs_are_kept_and_their_memory_is_given_back(graphed: Backend) -> None:
    def step(carry: Any, x: tuple[Any, ...], _: Any) -> Any:
        return graphed.xp.matmul(carry, x[0]), ()

    programs = []
    for n in range(2, MOST_PROGRAMS + 4):
        graphed.scan(step, normal(graphed, n, n), (normal(graphed, FEWEST_STEPS, n, n),))
        *_, last = replays_of(graphed)._programs.values()
        programs.append(weakref.ref(last))
        del last
    alive = [program() is not None for program in programs]  # without a look for cycles: at once
    assert alive == [False] * 2 + [True] * MOST_PROGRAMS


# --- the loop to fall back on -----------------------------------------------------------------------------------


def looks(_: Backend, carry: Any, x: Any) -> Any:
    return carry + x * float(x[0])


def decides(backend: Backend, carry: Any, x: Any) -> Any:
    return carry + x if backend.xp.sum(x) > 0.0 else carry - x


def brings(backend: Backend, carry: Any, x: Any) -> Any:
    return carry * 0.5 + x * backend.asarray(np.full(3, 2.0))


def waits(backend: Backend, carry: Any, x: Any) -> Any:
    moved = carry * 0.5 + x
    backend.synchronize()
    return moved


@pytest.mark.parametrize("function", [looks, decides, brings, waits])
def test_a_step_that_cannot_be_captured_is_left_to_the_loop(
    graphed: Backend, function: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def step(carry: Any, x: tuple[Any, ...], _: Any) -> Any:
        return function(graphed, carry, x[0]), (graphed.xp.sum(carry),)

    caplog.set_level(logging.DEBUG, "mlp_xp_cupy_graph")
    carry, xs = normal(graphed, 3), (normal(graphed, FEWEST_STEPS, 3, seed=1),)
    for _ in range(2):
        expected = by_the_loop(graphed, step, carry, xs)
        same_bits(graphed.scan(step, carry, xs), expected, graphed)
        assert_refused(graphed)
    assert len(caplog.records) == 1, "it was tried again"
    assert "is run by the loop" in caplog.text
    caplog.clear()
    graphed.scan(*descent(graphed))  # nothing of the failure is left behind
    assert len(replays_of(graphed)._programs) == 1
    assert "is replayed as 5 graphs and products" in caplog.text


class Wrong:
    """CuPy, or its stand-in, whose graphs do nothing when they are launched."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self.cuda = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cupy if hasattr(self._cupy, name) else self._cupy.cuda, name)


def without_graphs(wrong: Any) -> None:
    def stream(**options: Any) -> Any:
        class Idle(wrong._cupy.cuda.Stream):  # type: ignore[misc]
            def end_capture(self) -> Any:
                super().end_capture()
                return SimpleNamespace(launch=lambda: None)

        return Idle(**options)

    wrong.Stream = stream


def without_products(wrong: Any) -> None:
    wrong.matmul = lambda left, right, out: None


def with_products_that_round_otherwise(wrong: Any) -> None:
    wrong.matmul = lambda left, right, out: wrong._cupy.copyto(out, wrong._cupy.matmul(left, right) * (1.0 + 2.0**-52))


def with_the_first_rows_for_good(wrong: Any) -> None:
    """As if a number had been read on the host while the step was captured."""
    loaded: dict[int, int] = {}

    def copyto(target: Any, source: Any) -> None:
        times = loaded[target.data.ptr] = loaded.get(target.data.ptr, 0) + 1
        if target.shape != (4, 3) or times == 1:
            wrong._cupy.copyto(target, source)

    wrong.copyto = copyto


@pytest.mark.parametrize(
    "break_it",
    [without_graphs, without_products, with_products_that_round_otherwise, with_the_first_rows_for_good],
)
def test_a_replay_that_is_wrong_is_seen(
    graphed: Any, break_it: Callable[[Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "mlp_xp_cupy_graph")
    wrong: Any = Wrong(replays_of(graphed)._cupy)
    break_it(wrong)
    graphed._replays = Replays(wrong)
    arguments = descent(graphed)
    expected = by_the_loop(graphed, *arguments)
    for _ in range(2):
        same_bits(graphed.scan(*arguments), expected, graphed)
        assert_refused(graphed)
    assert caplog.text.count("replayed, it gives other bits") == 1


def test_a_carry_that_changes_is_left_to_the_loop(graphed: Backend) -> None:
    def step(carry: Any, x: tuple[Any, ...], _: Any) -> Any:
        return carry + x[0], ()

    start, xs = graphed.asarray(np.zeros(3), "float32"), (normal(graphed, FEWEST_STEPS, 3),)
    same_bits(graphed.scan(step, start, xs), by_the_loop(graphed, step, start, xs), graphed)
    assert_refused(graphed)


def test_a_mistake_in_a_step_is_told_as_it_is(graphed: Backend) -> None:
    step, carry, _, constants = descent(graphed)
    with pytest.raises(ValueError):  # noqa: PT011 - CuPy's words, or NumPy's
        graphed.scan(step, carry, (normal(graphed, FEWEST_STEPS, 4, 5),), constants)


def test_a_step_that_cannot_be_hashed_is_left_to_the_loop(graphed: Backend) -> None:
    class Unhashable(Descent):
        __hash__ = None  # type: ignore[assignment]

    _, *arguments = descent(graphed)
    expected = by_the_loop(graphed, Descent(graphed), *arguments)
    same_bits(graphed.scan(Unhashable(graphed), *arguments), expected, graphed)
    assert_replayed(graphed, 0)


def test_an_interruption_is_not_swallowed_and_leaves_nothing_behind(graphed: Backend) -> None:
    calls: list[int] = []

    def step(carry: Any, x: tuple[Any, ...], _: Any) -> Any:
        calls.append(1)
        moved = graphed.xp.matmul(carry, x[0])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return moved, ()

    with pytest.raises(KeyboardInterrupt):
        graphed.scan(step, normal(graphed, 3, 3), (normal(graphed, FEWEST_STEPS, 3, 3),))
    graphed.scan(*descent(graphed))
    assert_replayed(graphed)


def test_it_can_be_switched_off(graphed: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "0")
    arguments = descent(graphed)
    for _ in range(2):
        expected = by_the_loop(graphed, *arguments)
        same_bits(graphed.scan(*arguments), expected, graphed)
    assert_replayed(graphed, 0)


# --- threads ------------------------------------------------------------------------------------------------------


def test_threads_do_not_write_to_one_memory(graphed: Backend) -> None:
    library = replays_of(graphed)._cupy
    step, carry, xs, constants = descent(graphed)
    starts = [carry * float(i) for i in range(1, 4)]
    expected = [by_the_loop(graphed, step, start, xs, constants) for start in starts]
    graphed.synchronize()
    results: dict[int, list[Any]] = {i: [] for i in range(3)}

    def work(i: int) -> None:
        with library.cuda.Stream(non_blocking=True) as stream:
            results[i] += [graphed.scan(step, starts[i], xs, constants) for _ in range(6)]
            stream.synchronize()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(3):
        assert len(results[i]) == 6
        for result in results[i]:
            same_bits(result, expected[i], graphed)
    assert_replayed(graphed)


def test_a_program_runs_once_at_a_time(graphed: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads in one loop at once: the second has a program of its own."""
    arguments = descent(graphed)
    graphed.scan(*arguments)
    graphed.synchronize()
    together, running, run = threading.Barrier(2), [], Program.run

    def both(program: Program, *rest: Any) -> Any:
        if rest[1][0].shape[0] == FEWEST_STEPS:  # not of the check
            running.append(program)
            together.wait(timeout=60)
        return run(program, *rest)

    monkeypatch.setattr(Program, "run", both)
    threads = [threading.Thread(target=graphed.scan, args=arguments) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, running))) == 2


def test_a_run_waits_for_the_last_one_on_another_stream() -> None:
    backend = FakeCuPyBackend()
    arguments = descent(backend)
    backend.scan(*arguments)
    (program,) = backend._replays._programs.values()
    first = fake_cupy.here.streams[-1]
    program._done.log.clear()
    with fake_cupy.Stream(non_blocking=True) as second:
        backend.scan(*arguments)
    backend.scan(*arguments)
    log = program._done.log
    assert log == [("waited for", second), ("recorded", second), ("waited for", first), ("recorded", first)]


def test_nobody_synchronises_the_device_while_a_stream_is_captured(graphed: Backend) -> None:
    waiting: list[threading.Thread] = []
    finished: list[bool] = []

    def step(carry: Any, x: tuple[Any, ...], _: Any) -> Any:
        waiting.append(threading.Thread(target=graphed.synchronize))
        waiting[-1].start()
        waiting[-1].join(timeout=0.05)
        finished.append(not waiting[-1].is_alive())
        return carry + x[0], ()

    graphed.scan(step, normal(graphed, 3), (normal(graphed, FEWEST_STEPS, 3, seed=1),))
    for thread in waiting:
        thread.join()
    assert finished == [True, True, False]  # the loop's two steps, and the captured one
    assert_replayed(graphed)
