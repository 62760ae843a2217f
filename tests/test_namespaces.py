"""The door for arrays: which backend an array gets, on which device, and what is said of what is no array."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import array_api_compat
import array_api_strict
import numpy as np
import pytest

from checks import assert_array, jax_says
from mlp_xp import namespaces
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend, list_backends, load_backend, open_backend
from mlp_xp.errors import BackendUnavailable, DataError
from mlp_xp.namespaces import NamespaceBackend, backend_of
from mlp_xp.selftest import self_test

DEVICE1 = array_api_strict.Device("device1")


def descend(carry: Any, x: Any, rate: Any) -> Any:
    """One step of gradient descent for a line through points."""
    (weights,), (points, heights) = carry, x
    difference = points @ weights - heights
    return (weights - rate * (points.mT @ difference),), (difference,)


@pytest.mark.parametrize("dtype", ["int32", "float32", "float64"])
def test_what_it_makes_is_like_the_array(backend: Backend, dtype: str) -> None:
    array = backend.asarray(np.ones((2, 3)), dtype)
    found = backend_of(array)
    assert found.device == backend.device
    assert array.dtype == getattr(found.xp, dtype)
    made = (found.asarray(np.ones((2, 3)), dtype), found.xp.ones_like(array), found.asarray(found.to_host(array)))
    for like in made:
        assert type(like) is type(array)
        assert like.dtype == array.dtype
        assert array_api_compat.device(like) == array_api_compat.device(array)
        np.testing.assert_array_equal(backend.to_host(like), np.ones((2, 3)))


def test_its_device_has_the_name_that_it_is_opened_by(backend: Backend) -> None:
    name = backend.device_of(backend.asarray(np.ones(2)))
    assert name == backend.describe()["device"]
    assert name in backend.devices()
    assert open_backend(backend.name, name).device == backend.device


def test_it_learns(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    points, truth = rng.normal(size=(30, 8, 2)), np.asarray([1.0, -2.0])
    array = backend.asarray(points, "float32")
    found = backend_of(array)
    heights = found.asarray(points @ truth, "float32")
    start = (found.asarray(np.zeros(2), "float32"),)
    rate = found.asarray(np.asarray(0.05), "float32")
    (weights,), (differences,) = found.scan(descend, start, (array, heights), rate)
    assert_array(weights, truth, backend, like=array, ulps=100.0)
    assert differences.shape == (30, 8)


def test_there_is_one_for_each_library_and_device(backend: Backend) -> None:
    found = backend_of(backend.asarray(np.ones(2), "float32"))
    assert backend_of(backend.asarray(np.zeros((3, 4)), "int32")) is found
    elsewhere = backend_of(array_api_strict.ones(2, device=array_api_strict.Device("device2")))
    assert elsewhere is not found
    assert elsewhere.device != found.device


def test_the_name_is_the_librarys() -> None:
    assert type(backend_of(np.ones(2))) is load_backend("numpy")
    assert type(backend_of(open_backend("readonly").asarray(np.ones(2)))) is load_backend("numpy")
    assert "array_api_strict" not in list_backends()
    assert backend_of(array_api_strict.ones(2)).name == "array_api_strict"


@pytest.mark.parametrize("library", ["numpy", "array_api_strict"])
def test_no_other_library_is_imported(library: str) -> None:
    code = (
        f"import sys, {library} as xp\n"
        "from mlp_xp.namespaces import backend_of\n"
        "backend = backend_of(xp.ones(2))\n"
        "backend.to_host(backend.asarray(backend.to_host(xp.ones(3))))\n"
        "libraries = {'cupy', 'jax', 'torch', 'array_api_strict', 'mlp_xp_cupy', 'mlp_xp_jax', 'mlp_xp_torch'}\n"
        "print(sorted(libraries & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == f"{sorted({'array_api_strict'} & {library})}\n"


def test_any_conforming_library_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    array = array_api_strict.asarray(np.arange(6.0).reshape(2, 3), device=DEVICE1)
    with pytest.raises(RuntimeError, match=r"Can't convert array on the .*device1"):
        np.asarray(array)  # what the rest would fail with
    monkeypatch.setattr(np, "from_dlpack", None)  # with which NumPy would get at it all the same
    found = backend_of(array)
    assert type(found) is NamespaceBackend
    assert found.device_of(array) == found.describe()["device"] == str(DEVICE1)
    assert found.describe()["array_api_strict"] == array_api_strict.__version__
    assert self_test(found).passed
    large = found.asarray(np.full((2, 3), 1e308))
    (overflowed,), _ = found.scan(lambda carry, x, _: ((carry[0] * x[0],), ()), (large[0, ...],), (large,))
    assert np.all(np.isinf(found.to_host(overflowed)))  # and no warning, which is an error here
    back = found.to_host(found.xp.add(array, found.asarray(np.ones((2, 3)))))
    np.testing.assert_array_equal(back, np.arange(1.0, 7.0).reshape(2, 3))
    for view in (back[::-1, ::-2], back.T, np.broadcast_to(back[0], (2, 3)), back[0, 0, ...], back > 3.0):
        there = found.asarray(view)
        assert there.device == DEVICE1
        np.testing.assert_array_equal(found.to_host(there), view)


def test_a_library_is_given_what_any_can_take() -> None:
    """Some take no negative strides, no memory that is read-only, or choose their own type if none is named."""

    def asarray(host: Any, *, dtype: str = "chosen", device: str = "anywhere") -> tuple[str, str]:
        assert host.flags.c_contiguous
        assert host.flags.writeable
        return dtype, device

    members = {"float32": "single", "float64": "double", "asarray": asarray, "__array_namespace_info__": None}
    library = NamespaceBackend(types.SimpleNamespace(__name__="picky", **members), "there")
    host = np.ones((3, 4))
    for view in (host[::-1, ::-2], host.T, np.broadcast_to(host[0], (2, 4)), np.broadcast_to(host[0], (1, 4))):
        assert library.asarray(view) == ("double", "there")
        assert library.asarray(view, "float32") == ("single", "there")


@pytest.mark.parametrize("answer", ["refuses", "wraps"])
def test_the_standards_own_way_to_the_host_is_enough(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The standard has DLPack, and neither ``__array__`` nor the buffer protocol."""

    def asarray(_: Array) -> Any:
        if answer == "refuses":
            raise TypeError("Implicit conversion to a NumPy array is not allowed")
        return np.empty((), object)

    array = array_api_strict.asarray(np.arange(3.0), device=DEVICE1)
    monkeypatch.setattr(namespaces, "np", types.SimpleNamespace(asarray=asarray, from_dlpack=np.from_dlpack))
    back = backend_of(array).to_host(array)
    assert back.dtype == np.float64
    np.testing.assert_array_equal(back, [0.0, 1.0, 2.0])


def test_devices_need_not_be_hashable() -> None:
    class Device:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Device)

    class Array:
        device = property(lambda self: Device())

        def __array_namespace__(self, api_version: str | None = None) -> Any:
            return namespace

    namespace: Any = types.ModuleType("library.of_arrays")
    with pytest.raises(BackendUnavailable, match=r"'library' does not follow the array API standard of 2023\.12"):
        backend_of(Array())
    namespace.__array_namespace_info__ = None
    assert backend_of(Array()) is backend_of(Array())
    assert backend_of(Array()).name == "library"
    first, namespace = backend_of(Array()), types.ModuleType("another_library")
    namespace.__array_namespace_info__ = None
    assert backend_of(Array()) is not first


def test_all_kinds_of_numpy_arrays_are_numpys(tmp_path: Path) -> None:
    class Subclass(np.ndarray[Any, Any]):
        pass

    np.save(tmp_path / "x.npy", np.ones(3))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert type(mapped) is np.memmap
    kinds = (np.ones(3).view(Subclass), mapped, np.asarray(1.0), np.float64(1.0), np.zeros(0), np.ones(3) > 0)
    assert {backend_of(array) for array in kinds} == {backend_of(np.ones(1))}


def test_of_no_dimension_is_an_array_too(backend: Backend) -> None:
    array = backend.asarray(np.asarray(2.0))
    found = backend_of(array)
    assert float(found.to_host(array)) == 2.0
    assert found.asarray(np.asarray(2.0)).shape == ()


@pytest.mark.parametrize("thing", [None, [1.0, 2.0], (1, 2), 1.0, "array", {"a": 1}, range(3)], ids=repr)
def test_what_is_no_array_is_refused(thing: Any) -> None:
    name = type(thing).__name__
    with pytest.raises(TypeError, match=rf"type {name} is no array .* convert it first, for example by numpy\.asarray"):
        backend_of(thing)


def test_what_could_become_an_array_is_refused() -> None:
    class DataFrame:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise AssertionError("the caller is to convert it")

    with pytest.raises(TypeError, match="type DataFrame is no array"):
        backend_of(DataFrame())


def test_an_array_that_jax_traces_is_refused() -> None:
    jax = pytest.importorskip("jax")
    for transformed in (jax.jit, jax.grad, jax.vmap):
        with pytest.raises(DataError, match=r"is only being traced .* outside of the function that JAX traces"):
            transformed(lambda x: (backend_of(x), x)[1])(jax.numpy.ones(() if transformed is jax.grad else 2))


def test_a_jax_array_stays_on_its_device() -> None:
    pytest.importorskip("jax")
    said = jax_says(
        "for device in jax.devices():\n"
        "    backend = backend_of(jax.device_put(np.ones(3), device))\n"
        "    print(backend.describe()['device'], backend.asarray(np.ones(2)).devices() == {device})\n"
    )
    assert said == "cpu True\ncpu:1 True\n"


def test_an_array_on_several_devices_is_refused() -> None:
    pytest.importorskip("jax")
    said = jax_says(
        "from jax.sharding import Mesh, NamedSharding, PartitionSpec\n"
        "mesh = Mesh(np.array(jax.devices()), ('rows',))\n"
        "for spec in (PartitionSpec('rows'), PartitionSpec()):\n"
        "    array = jax.device_put(np.ones((4, 3)), NamedSharding(mesh, spec))\n"
        "    try: backend_of(array)\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
        "    print(backend_of(jax.device_put(array, jax.devices()[0])).describe()['device'])\n"  # the remedy works
    )
    refusal = (
        "DataError this JAX array is spread over 2 devices (cpu, cpu:1); "
        "bring it to one first, for example by jax.device_put(array, jax.devices()[0])\ncpu\n"
    )
    assert said == 2 * refusal


def test_a_tensor_that_requires_its_gradient_is_taken() -> None:
    torch = pytest.importorskip("torch")
    for tensor in (torch.ones(3, requires_grad=True), torch.nn.Parameter(torch.ones(3))):
        found = backend_of(tensor)
        assert found is backend_of(torch.zeros(2))
        np.testing.assert_array_equal(found.to_host(tensor), np.ones(3))
        (after,), _ = found.scan(lambda carry, x, c: ((carry[0] * x[0],), ()), (tensor,), (found.asarray(np.ones(2)),))
        assert not after.requires_grad


def test_a_device_that_its_backend_does_not_have_is_named() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(BackendUnavailable, match=r"backend 'torch' has no device 'meta' here; it has .*cpu"):
        backend_of(torch.ones(3, device="meta"))
