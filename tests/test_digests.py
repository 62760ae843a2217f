"""Digests: equal bits have equal digests on every machine, one other bit has another, and the chain covers it all."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlp_xp.digests import chain, digest_arrays, first_link, link
from mlp_xp.settings import Settings
from recorded_runs import OTHER_SETTINGS, SETTINGS

ARRAY = np.arange(6.0).reshape(2, 3) - 2.0
NUMBERS = {"epoch": 3, "loss": 0.5, "test_loss": 0.25, "accuracy": 0.75}
TENSORS = {"layers.0.weight": ARRAY, "layers.0.bias": np.ones(3), "optimizer.learning_rate": np.asarray(0.1)}


def digest(array: Any, name: str = "x") -> str:
    return digest_arrays({name: np.asarray(array)})


def test_a_digest_is_what_the_format_says() -> None:
    """Written out, so that it can be computed without this project."""
    array = np.asarray([1.0, -2.5])
    expected = hashlib.sha256(b'["x","<f8",[2]]' + bytes.fromhex("000000000000f03f00000000000004c0"))
    assert digest(array) == expected.hexdigest()


def test_a_zero_has_no_sign() -> None:
    assert digest([0.0, 1.0]) == digest([-0.0, 1.0])
    assert digest(np.float32(-0.0)) == digest(np.float32(0.0))


def test_the_byte_order_of_a_machine_does_not_matter() -> None:
    for dtype in ("float32", "float64", "int32"):
        array = ARRAY.astype(dtype)
        assert digest(array.astype(array.dtype.newbyteorder(">"))) == digest(array)


def test_the_order_in_memory_does_not_matter() -> None:
    wide = np.repeat(ARRAY, 2, axis=1)
    for strided in (np.asfortranarray(ARRAY), wide[:, ::2], ARRAY[::-1][::-1]):
        assert digest(strided) == digest(ARRAY)
    assert digest(np.broadcast_to(2.0, (2, 3))) == digest(np.full((2, 3), 2.0))
    assert digest(ARRAY.T) != digest(ARRAY)


def test_the_order_of_names_does_not_matter() -> None:
    assert digest_arrays(dict(reversed(TENSORS.items()))) == digest_arrays(TENSORS)


@pytest.mark.parametrize(
    "other",
    [ARRAY.astype("float32"), ARRAY.astype("int64"), ARRAY.reshape(3, 2), ARRAY.reshape(1, 2, 3), ARRAY.ravel()],
    ids=["float32", "int64", "another shape", "an axis more", "an axis less"],
)
def test_type_and_shape_matter(other: Any) -> None:
    assert digest(other) != digest(ARRAY)


def test_zeros_of_another_type_are_others() -> None:
    """Though their bytes are the same."""
    assert digest(np.zeros(3, np.int64)) != digest(np.zeros(3))
    assert digest(np.zeros((2, 3))) != digest(np.zeros((3, 2)))


def test_a_number_is_no_list_of_one() -> None:
    assert digest(np.asarray(0.1)) != digest(np.asarray([0.1]))


def test_names_matter() -> None:
    assert digest(ARRAY, "y") != digest(ARRAY, "x")
    assert digest_arrays({"x": ARRAY, "y": ARRAY + 1}) != digest_arrays({"y": ARRAY, "x": ARRAY + 1})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_bit_matters(dtype: str) -> None:
    array = np.asarray([1.5, 3.0], dtype)
    bits = array.view(f"uint{8 * array.itemsize}")
    digests = {digest(array)}
    for bit in range(8 * array.itemsize):
        changed = bits.copy()
        changed[1] ^= changed.dtype.type(1 << bit)
        digests.add(digest(changed.view(dtype)))
    assert len(digests) == 1 + 8 * array.itemsize


def test_numbers_that_are_none_have_a_digest_too() -> None:
    """Without a warning, also for the kind of NaN that operations report: a stranger's file may hold it."""
    signalling = np.asarray([0x7FF0000000000001], np.uint64).view(np.float64)
    assert len({digest([np.nan]), digest([np.inf]), digest([-np.inf]), digest([0.0])}) == 4
    assert digest(signalling) != digest([0.0])


def test_the_digests_of_an_epoch_are_those_of_its_parts() -> None:
    digests = link("before", NUMBERS, np.asarray([0.5, 0.25]), TENSORS)
    assert digests.losses == digest([0.5, 0.25], "losses")
    assert digests.layers == digest_arrays({name: TENSORS[name] for name in ("layers.0.weight", "layers.0.bias")})
    assert digests.optimizer == digest_arrays({"optimizer.learning_rate": TENSORS["optimizer.learning_rate"]})
    assert digests.chain == chain("before", NUMBERS, digests[:3])


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("previous", "another"),
        *(("numbers", {**NUMBERS, name: value}) for name, value in (("epoch", 4), ("loss", 0.5 + 2**-53))),
        *(("numbers", {**NUMBERS, name: value}) for name, value in (("test_loss", 0.2), ("accuracy", None))),
        ("step_losses", np.asarray([0.25, 0.5])),
        ("tensors", {**TENSORS, "layers.0.bias": np.asarray([1.0, 1.0, 1.0 + 2**-52])}),
        ("tensors", {**TENSORS, "optimizer.learning_rate": np.asarray(0.2)}),
    ],
    ids=["link before", "epoch", "loss", "test_loss", "accuracy", "order of losses", "a bias", "learning rate"],
)
def test_the_chain_covers_everything(part: str, changed: Any) -> None:
    parts = {"previous": "before", "numbers": NUMBERS, "step_losses": np.asarray([0.5, 0.25]), "tensors": TENSORS}
    assert link(**{**parts, part: changed}).chain != link(**parts).chain  # type: ignore[arg-type]


def test_a_later_link_covers_the_first() -> None:
    def last(first: str) -> str:
        for _ in range(3):
            first = link(first, NUMBERS, np.ones(2), TENSORS).chain
        return first

    assert last("a") != last("b")


def test_the_chain_takes_no_sign_from_a_zero() -> None:
    assert chain("", {"loss": -0.0}, ()) == chain("", {"loss": 0.0}, ())


@pytest.mark.parametrize("name", OTHER_SETTINGS)
def test_the_first_link_covers_every_setting_but_how_many_epochs(name: str) -> None:
    changed = replace(SETTINGS, **OTHER_SETTINGS[name])
    same = first_link(changed, "train", "test") == first_link(SETTINGS, "train", "test")
    assert same == (name == "epochs")


def test_runs_from_before_a_setting_existed_begin_as_they_did() -> None:
    known = "4b5ebcdc48569b326d99586909a01e73969f6d1e4db3ea1aa0df79c61dc1d84d"
    assert first_link(SETTINGS, "train", "test") == known
    old = {name: value for name, value in SETTINGS.to_dict().items() if name not in ("dropout", "max_gradient_norm")}
    assert first_link(Settings.from_dict(old), "train", "test") == known


def test_the_first_link_covers_the_data() -> None:
    assert len({first_link(SETTINGS, train, test) for train in "ab" for test in "ab"}) == 4
