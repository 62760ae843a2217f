"""Random numbers: fixed for all time, held exactly by a float32, and keyed by what they are for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlp_xp.randomness import Stream, batch_order, batch_orders, stable_argsort, uniform


def test_the_numbers_are_fixed_for_all_time() -> None:
    """Recorded runs depend on them; NumPy guarantees PCG64's raw words."""
    numbers = uniform((3,), 1.0, 2020, Stream.WEIGHT, 0) * 2.0**23
    assert numbers.tolist() == [-531711.0, 240622.0, 6106710.0]
    assert batch_order(10, 3, 2020, 1).tolist() == [[7, 5, 6], [1, 9, 3], [8, 2, 0]]


@given(st.floats(1e-3, 100.0), st.integers(0, 2**40), st.sampled_from(Stream), st.integers(0, 1000))
def test_uniform_numbers_are_bounded_and_exact_in_float32(bound: float, seed: int, stream: Stream, index: int) -> None:
    numbers = uniform((64,), bound, seed, stream, index)
    assert numbers.dtype == np.float64
    assert np.all(np.abs(numbers) <= bound)
    np.testing.assert_array_equal(numbers.astype(np.float32).astype(np.float64), numbers)


def test_uniform_numbers_fill_their_interval_evenly() -> None:
    numbers = uniform((100_000,), 0.25, 0, Stream.WEIGHT, 0)
    counts, _ = np.histogram(numbers, bins=10, range=(-0.25, 0.25))
    assert np.all(np.abs(counts - 10_000) < 5 * np.sqrt(10_000))


def test_a_bound_of_zero_gives_zeros() -> None:
    np.testing.assert_array_equal(uniform((2, 3), 0.0, 0, Stream.BIAS, 0), np.zeros((2, 3)))


@pytest.mark.parametrize("other", [(1, Stream.WEIGHT, 0), (0, Stream.BIAS, 0), (0, Stream.WEIGHT, 1)])
def test_every_key_has_numbers_of_its_own(other: tuple[int, Stream, int]) -> None:
    assert not np.any(uniform((8,), 1.0, 0, Stream.WEIGHT, 0) == uniform((8,), 1.0, *other))


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**40), st.integers(0, 50))
def test_a_batch_order_is_a_permutation_without_the_partial_batch(n: int, size: int, seed: int, epoch: int) -> None:
    order = batch_order(n, size, seed, epoch)
    assert order.dtype == np.int32
    assert order.shape == (n // size, size)
    assert len(set(order.ravel().tolist())) == order.size
    assert set(order.ravel().tolist()) <= set(range(n))


def test_the_orders_of_several_seeds_are_those_of_each() -> None:
    together = batch_orders(100, 30, range(5, 9), 2)
    assert together.dtype == np.int32
    np.testing.assert_array_equal(together, np.stack([batch_order(100, 30, s, 2) for s in range(5, 9)], axis=1))


def test_every_epoch_is_shuffled_anew_and_can_be_had_alone() -> None:
    first, second = batch_order(1000, 10, 0, 0), batch_order(1000, 10, 0, 1)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(second, batch_order(1000, 10, 0, 1))


@pytest.mark.parametrize("size", [0, 1, 40_000, 70_000])
def test_random_words_are_sorted_as_a_stable_sort_does(size: int) -> None:
    words = np.asarray(np.random.PCG64(0).random_raw(size), dtype=np.uint64)
    np.testing.assert_array_equal(stable_argsort(words), np.argsort(words, kind="stable"))


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50), st.integers(0, 63))
def test_any_words_are_sorted_as_a_stable_sort_does(words: list[int], shift: int) -> None:
    """Also those that differ in their last bits alone, or not at all."""
    array = np.asarray(words, dtype=np.uint64) >> np.uint64(shift)
    np.testing.assert_array_equal(stable_argsort(array), np.argsort(array, kind="stable"))
