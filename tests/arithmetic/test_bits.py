"""The budget of bits holds for every shape; the certificate lists every sum of a training step and its limits."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import Any

import array_api_compat.numpy as xp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from checks import as_integers, exact, random_parameters
from mlp_xp.arithmetic import bits
from mlp_xp.arithmetic.certificate import (
    LEAST,
    MOST_ROWS,
    MOST_UNITS,
    MOST_WEIGHTS,
    certificate,
    certify,
)
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend
from mlp_xp.batches import DeviceData
from mlp_xp.errors import SettingsError
from mlp_xp.losses import LOSSES
from mlp_xp.network import Network
from mlp_xp.objective import Objective
from mlp_xp.optimizers import Adam
from mlp_xp.randomness import dropout_keys
from mlp_xp.step import TrainingStep


def counts(most: int) -> st.SearchStrategy[int]:
    """Draw a number of terms of any magnitude, often right at a power of two, where a bit more is taken."""
    powers = st.integers(0, most.bit_length() - 1).map(lambda exponent: 2**exponent)
    near = st.builds(lambda power, offset: min(max(power + offset, 1), most), powers, st.integers(-1, 1))
    return near | st.integers(1, most)


UNITS, ROWS = counts(2**40), counts(2**28)


@given(UNITS, UNITS, ROWS)
def test_no_product_of_a_layer_takes_more_than_53_bits(n_in: int, n_out: int, n: int) -> None:
    activation, weight, gradient = (
        bits.activation_bits(n_in),
        bits.weight_bits(n_in, n_out),
        bits.gradient_bits(n, n_out),
    )
    for left, right, terms in ((activation, weight, n_in), (gradient, weight, n_out), (activation, gradient, n)):
        assert min(left, right) >= 1
        # What the bits are for, without a logarithm: the largest sum is at most 2**53.
        assert terms * 2**left * 2**right <= 2**53


@given(UNITS)
def test_no_sum_of_rounded_terms_takes_more_than_53_bits(count: int) -> None:
    assert count * 2 ** bits.term_bits(count) <= 2**53
    assert bits.term_bits(count) <= bits.MOST_TERM


@given(counts(2**60))
def test_ceil_log2_is_the_least_sufficient_number_of_bits(count: int) -> None:
    assert 2 ** bits.ceil_log2(count) >= count
    assert count == 1 or 2 ** (bits.ceil_log2(count) - 1) < count


@given(counts(MOST_UNITS), counts(MOST_UNITS), counts(MOST_ROWS))
def test_within_the_limits_every_operand_has_bits_to_learn_with(n_in: int, n_out: int, n: int) -> None:
    operands = bits.activation_bits(n_in), bits.weight_bits(n_in, n_out), bits.gradient_bits(n, n_out)
    assert min(operands) >= LEAST
    assert max(operands) <= bits.MOST


@given(st.lists(counts(4 * MOST_UNITS), min_size=2, max_size=4), counts(4 * MOST_ROWS))
@example([MOST_UNITS, MOST_WEIGHTS // MOST_UNITS, MOST_UNITS], MOST_ROWS)
@example([4, MOST_UNITS + 1], 50)
@example([MOST_UNITS + 1, 4], MOST_UNITS + 1)
@example([MOST_UNITS, MOST_UNITS], 50)
def test_a_certificate_is_refused_where_a_limit_is_passed_and_the_remedy_helps(sizes: list[int], n: int) -> None:
    passed = {
        f"batch_size ≤ {MOST_ROWS}": n > MOST_ROWS,
        f"at most {MOST_UNITS} units in a layer": max(sizes) > MOST_UNITS,
        f"at most {MOST_WEIGHTS} weights in a layer": any(a * b > MOST_WEIGHTS for a, b in pairwise(sizes)),
    }
    if not any(passed.values()):
        certify(tuple(sizes), n, 1.0)
        return
    with pytest.raises(SettingsError) as error:
        certify(tuple(sizes), n, 1.0)
    for remedy, is_needed in passed.items():
        assert (remedy in str(error.value)) == is_needed
    units = [min(size, MOST_UNITS) for size in sizes]
    for i in range(1, len(units)):
        units[i] = min(units[i], MOST_WEIGHTS // units[i - 1])
    certify(tuple(units), min(n, MOST_ROWS), 1.0)


@pytest.mark.parametrize(
    ("sizes", "n", "message"),
    [
        (
            (4, 3, 2),
            8193,
            "layer 0: .* the sum of 8193 xᵀ delta is left 15 of 53 bits; .* batch_size ≤ 8192$",
        ),
        (
            (2**21 + 1, 2),
            9,
            "layer 0: .* the sum of 2097153 x W is left 15 of 53 bits; .* at most 2097152 units in a",
        ),
        ((3, 2**21 + 1, 2), 9, "layer 0: .* is left 15 of 53 bits; .* at most 2097152 units in a layer$"),
        (
            (9, 2**20, 2**18, 2),
            9,
            r"layer 1: .* W² \(penalty\) is left 15 .* at most 137438953472 weights in a layer$",
        ),
    ],
)
def test_a_refusal_names_the_layer_the_bits_and_the_remedy(sizes: tuple[int, ...], n: int, message: str) -> None:
    with pytest.raises(SettingsError, match=f"^exact arithmetic: {message}"):
        certify(sizes, n, 1.0)


@given(st.integers(-64, 64))
def test_a_scale_that_is_a_power_of_two_is_taken(exponent: int) -> None:
    certify((3, 2), 4, 2.0**exponent)


@given(st.floats(0.0, exclude_min=True, allow_infinity=False, allow_nan=False))
@example(1.45)
@example(1.7e308)
@example(5e-324)
def test_any_other_scale_is_refused_and_the_nearest_is_named(scale: float) -> None:
    powers = [2.0**exponent for exponent in range(-64, 65)]
    if scale in powers:
        return
    with pytest.raises(SettingsError, match=r"a scale that is a power of two, from 2\*\*-64 to 2\*\*64") as error:
        certify((3, 2), 4, scale)
    named = re.search(r"the nearest is (\S+)", str(error.value))
    assert named is not None
    nearest = float(named[1])
    assert nearest in powers
    assert abs(nearest - scale) == min(abs(power - scale) for power in powers)
    certify((3, 2), 4, nearest)


@pytest.mark.parametrize(("scale", "nearest"), [(1 / 255, "0.00390625 (1/256)"), (3e-8, "e-08 (1/33554432)")])
def test_a_small_scale_is_also_named_as_a_fraction(scale: float, nearest: str) -> None:
    with pytest.raises(SettingsError) as error:
        certify((3, 2), 4, scale)
    assert str(error.value).endswith(nearest)


class Observed:
    """NumPy's namespace, which writes down the operands of every sum that is asked of it."""

    MORE_SUMS = ("mean", "prod", "std", "var", "cumulative_sum", "cumulative_prod", "tensordot", "vecdot")

    def __init__(self) -> None:
        self.sums: defaultdict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)

    def __getattr__(self, name: str) -> Any:
        assert name not in self.MORE_SUMS, f"no certificate knows of xp.{name}"
        return getattr(xp, name)

    def matmul(self, left: Array, right: Array) -> Array:
        self.sums["matmul", left.shape[-1]].append((as_integers(left), as_integers(right)))
        return xp.matmul(left, right)

    def sum(self, x: Array, *, axis: int | tuple[int, ...], keepdims: bool = False) -> Array:
        axes = (axis,) if isinstance(axis, int) else axis
        addends = np.moveaxis(x, axes, range(len(axes))).reshape(math.prod(x.shape[i] for i in axes), -1)
        self.sums["sum", len(addends)].append((max(as_integers(column) for column in addends.T), 1))
        return xp.sum(x, axis=axis, keepdims=keepdims)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_certificate_lists_every_sum_of_a_step(numpy_backend: Backend, loss: str) -> None:
    """Sums are told apart by their numbers of terms, and by the bits, of which random numbers use nearly all."""
    sizes, n, rng = (5, 7, 3), 11, np.random.default_rng(0)
    observed, exact_arithmetic = Observed(), exact(numpy_backend)
    arithmetic: Any = replace(exact_arithmetic, xp=observed)  # type: ignore[type-var]
    parameters, optimizer = random_parameters(rng, sizes), Adam(0.1)
    rows = DeviceData(exact_arithmetic.round_activation(rng.normal(size=(n, 5))), rng.dirichlet(np.ones(3), n))
    # A factor of 1 / 0.7 has all 53 bits: what it makes of a unit's output must be rounded after it.
    step = TrainingStep(Objective(Network(sizes, "tanh"), loss, 0.01), optimizer, 0.5, arithmetic, 0.3, 1e-3)
    step((parameters, optimizer.init(parameters, arithmetic)), (np.arange(n), dropout_keys(1, 1, 0, 0)[0]), rows)

    certified: defaultdict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for entry in certificate(sizes, n):
        certified["matmul" if entry.right else "sum", entry.terms].append((2**entry.left, 2**entry.right))
        assert entry.bits <= bits.EXACT
    assert set(observed.sums) == set(certified)
    for key, sums in observed.sums.items():
        for operands in sums:
            assert any(
                all(most // 16 <= operand <= most for operand, most in zip(operands, entry, strict=True))
                for entry in certified[key]
            ), f"{key}: operands of {[operand.bit_length() for operand in operands]} bits"
