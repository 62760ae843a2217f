"""Checkpoints: nothing is lost between device and host, and a training that goes on from one is the same training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import array_api_compat
import numpy as np
import pytest

from checks import DTYPES, native
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend
from mlp_xp.checkpoint import Checkpoint, device_tensors, host_tensors, map_named, select
from mlp_xp.datasets import Split
from mlp_xp.errors import RunError
from mlp_xp.initializers import initial_parameters
from mlp_xp.network import Layer, map_parameters
from mlp_xp.optimizers import SGD, Adam, AdamState, SGDState
from mlp_xp.settings import Settings
from mlp_xp.training import Epoch, train

SETTINGS = Settings(hidden_layer_sizes=(8,), batch_size=200, epochs=4)
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "adam": {"optimizer": "adam", "learning_rate": 0.01},
}


def names(tree: Any, root: str) -> list[str]:
    found: list[str] = []

    def note(name: str, array: Array) -> Array:
        found.append(name)
        return array

    assert map_named(note, tree, root) == tree
    return found


def test_names_are_the_fields_and_positions() -> None:
    layers = (Layer(1, 2), Layer(3, 4))
    of_layers = ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert names(layers, "layers") == [f"layers.{name}" for name in of_layers]
    assert names(SGDState(5, None), "optimizer") == ["optimizer.learning_rate"]
    assert names(SGDState(5, layers), "optimizer")[1:] == [f"optimizer.velocity.{name}" for name in of_layers]
    assert names(AdamState(5, (), (Layer(1, 2),), 6, 7), "optimizer") == [
        "optimizer.learning_rate",
        "optimizer.square.0.weight",
        "optimizer.square.0.bias",
        "optimizer.mean_weight",
        "optimizer.square_weight",
    ]


def test_the_structure_stays() -> None:
    mapped = map_named(lambda name, array: array + 1, SGDState(5, (Layer(1, 2),)), "x")
    assert mapped == SGDState(6, (Layer(2, 3),))
    assert (type(mapped), type(mapped.velocity), type(mapped.velocity[0])) == (SGDState, tuple, Layer)
    assert map_named(lambda name, array: array, None, "x") is None


def test_a_part_is_selected_by_its_name() -> None:
    tensors = {name: np.zeros(1) for name in ("layers.0.weight", "layers_2", "optimizer.learning_rate")}
    assert list(select(tensors, "layers")) == ["layers.0.weight"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", [SGD(0.1), SGD(0.1, 0.9), Adam(0.1)], ids=["sgd", "momentum", "adam"])
def test_to_the_host_and_back(backend: Backend, optimizer: SGD | Adam, dtype: str) -> None:
    arithmetic = native(backend, dtype)
    host = map_parameters(lambda array: array.astype(dtype), initial_parameters((3, 4, 2), "pytorch", 0))
    parameters = map_parameters(backend.asarray, host)
    state = optimizer.init(parameters, arithmetic)
    top = parameters[-1]
    tensors = host_tensors(parameters, state, backend, top)
    np.testing.assert_array_equal(tensors["layers.1.weight"], host[1].weight)
    assert tensors["optimizer.learning_rate"] == np.dtype(dtype).type(0.1)
    for array in tensors.values():
        assert type(array) is np.ndarray
        assert array.dtype == dtype
        assert array.flags.writeable
        assert array.flags.owndata
        array += 1  # a copy: nothing on the device changes

    assert host_tensors(parameters, state, backend)["optimizer.learning_rate"] == np.dtype(dtype).type(0.1)
    restored = device_tensors(tensors, parameters, state, backend, dtype, top)
    like = parameters[0].weight

    def check(name: str, array: Array) -> Array:
        assert type(array) is type(like), name
        assert array.dtype == like.dtype
        assert array_api_compat.device(array) == array_api_compat.device(like)
        np.testing.assert_array_equal(backend.to_host(array), tensors[name], strict=True)
        return array

    for tree, original, name in zip(restored, (parameters, state, top), ("layers", "optimizer", "top"), strict=True):
        assert names_of_types(tree) == names_of_types(original)
        map_named(check, tree, name)


def names_of_types(tree: Any) -> Any:
    return (type(tree), [names_of_types(branch) for branch in tree]) if isinstance(tree, tuple) else None


def digests(epochs: list[Epoch]) -> list[tuple[int, str, str]]:
    return [(epoch.epoch, epoch.digests.chain, epoch.digests.optimizer) for epoch in epochs]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_native_training_goes_on_to_the_same_bits(backend: Backend, digits: Split, optimizer: str) -> None:
    settings = replace(SETTINGS, **OPTIMIZERS[optimizer])
    whole = list(train(settings, digits, backend))
    assert digests(list(train(settings, digits, backend, start=whole[1].checkpoint()))) == digests(whole[2:])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_exact_training_goes_on_to_the_same_bits_on_another_backend(
    backend: Backend, numpy_backend: Backend, digits: Split, optimizer: str
) -> None:
    settings = replace(SETTINGS, arithmetic="exact", dtype="float64", **OPTIMIZERS[optimizer])
    whole = list(train(settings, digits, numpy_backend))
    there = list(train(settings, digits, backend, start=whole[1].checkpoint()))
    assert digests(there) == digests(whole[2:])
    back = list(train(settings, digits, numpy_backend, start=there[0].checkpoint()))
    assert digests(back) == digests(whole[3:])


def test_more_epochs_can_be_asked_for(digits: Split, numpy_backend: Backend) -> None:
    *_, last = train(replace(SETTINGS, epochs=2), digits, numpy_backend)
    more = train(SETTINGS, digits, numpy_backend, start=last.checkpoint())
    assert digests(list(more)) == digests(list(train(SETTINGS, digits, numpy_backend)))[2:]
    assert list(train(replace(SETTINGS, epochs=2), digits, numpy_backend, start=last.checkpoint())) == []


def test_a_checkpoint_may_be_written_to_afterwards(backend: Backend, digits: Split) -> None:
    first, *rest = train(SETTINGS, digits, backend)
    checkpoint = first.checkpoint()
    epochs = train(SETTINGS, digits, backend, start=checkpoint)
    for tensor in checkpoint.tensors.values():
        tensor.fill(7.0)
    assert digests(list(epochs)) == digests(rest)


def test_training_on_leaves_the_checkpoint_as_it_was(backend: Backend, digits: Split) -> None:
    settings = replace(SETTINGS, momentum=0.9)
    first, *_ = train(settings, digits, backend)
    checkpoint = first.checkpoint()
    before = {name: tensor.copy() for name, tensor in checkpoint.tensors.items()}
    list(train(settings, digits, backend, start=checkpoint))
    for name, tensor in checkpoint.tensors.items():
        np.testing.assert_array_equal(tensor, before[name])


REMEDY = "; give the settings and the data that it was made with"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers.0.bias": None}, "the checkpoint holds no tensor 'layers.0.bias'"),
        ({"optimizer.learning_rate": None}, "the checkpoint holds no tensor 'optimizer.learning_rate'"),
        (
            {"layers.0.bias": np.zeros((8, 1), np.float32)},
            r"the checkpoint's tensor 'layers.0.bias' is float32 of shape \(8, 1\), not float32 of shape \(8,\)",
        ),
        (
            {"optimizer.learning_rate": np.full(1, 0.1, np.float32)},
            r"tensor 'optimizer.learning_rate' is float32 of shape \(1,\), not float32 of shape \(\)",
        ),
        (
            {"layers.1.weight": np.zeros((8, 10))},
            r"tensor 'layers.1.weight' is float64 of shape \(8, 10\), not float32 of shape \(8, 10\)",
        ),
        (
            {"optimizer.velocity.0.weight": np.zeros((64, 8), np.float32)},
            "the checkpoint holds 'optimizer.velocity.0.weight', which has no place in this training",
        ),
        ({"other": np.zeros(1)}, "the checkpoint holds 'other', which has no place in this training"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_at_once(
    changes: dict[str, Any], message: str, digits: Split, numpy_backend: Backend
) -> None:
    checkpoint = next(train(SETTINGS, digits, numpy_backend)).checkpoint()
    changed = {**checkpoint.tensors, **changes}
    tensors = {name: tensor for name, tensor in changed.items() if tensor is not None}
    with pytest.raises(RunError, match=message + REMEDY):
        train(SETTINGS, digits, numpy_backend, start=Checkpoint(0, checkpoint.chain, tensors))
