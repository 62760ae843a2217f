"""The door for array libraries: what is listed, what opening one gives, and what is said if it cannot be opened."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from mlp_xp.backend import Backend, choose_device, list_backends, load_backend, open_backend
from mlp_xp.errors import BackendUnavailable, UnknownBackend

LIBRARIES = {"cupy": "CuPy", "jax": "JAX", "torch": "PyTorch"}


def test_the_built_in_ones_and_those_of_other_packages_are_listed() -> None:
    assert {"cupy", "jax", "numpy", "torch"} < set(list_backends())
    assert {"readonly", "strict"} < set(list_backends())  # come from tests/backends, as anyone's would


def test_listing_imports_no_library() -> None:
    code = (
        "import sys, mlp_xp; mlp_xp.list_backends();"
        "print({'numpy', 'cupy', 'jax', 'torch', 'mlp_xp_numpy'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


@pytest.mark.parametrize(("name", "first"), [("numppy", "numpy"), ("JAX", "jax"), ("pytorch", "torch"), ("", "")])
def test_an_unknown_one_is_told_the_known_ones_closest_first(name: str, first: str) -> None:
    with pytest.raises(UnknownBackend, match=f"unknown backend '{name}'; known, closest first: {first}") as caught:
        open_backend(name)
    assert all(known in str(caught.value) for known in list_backends())


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_that_is_not_installed_is_named_with_the_remedy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # makes an import of it fail as if it were not there
    monkeypatch.delitem(sys.modules, f"mlp_xp_{name}", raising=False)
    with pytest.raises(BackendUnavailable, match=rf"{LIBRARIES[name]} is not installed; pip install 'mlp-xp\[{name}"):
        open_backend(name)


def test_cupy_without_a_gpu_says_so() -> None:
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed")
    cupy_class = load_backend("cupy")
    if cupy_class.devices():
        pytest.skip("there is a GPU")
    with pytest.raises(BackendUnavailable, match=r"finds no CUDA device; it needs an NVIDIA GPU .* --backend numpy"):
        open_backend("cupy")


@pytest.mark.usefixtures("wrong_backends")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "backend 'absent': the module 'no_such_library' is not installed"),
        ("crashing", "backend 'crashing' cannot be opened: RuntimeError: the driver is too old"),
        ("misspelt", "backend 'misspelt' cannot be opened: AttributeError: .*NoSuchBackend"),
    ],
)
def test_whatever_goes_wrong_in_opening_is_an_error_of_ours(name: str, message: str) -> None:
    with pytest.raises(BackendUnavailable, match=message):
        open_backend(name)


def test_devices_are_chosen_by_name() -> None:
    available = ["cuda:0", "cuda:1", "cpu"]
    for asked, chosen in ((None, "cuda:0"), ("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")):
        assert choose_device("x", asked, available) == chosen
    with pytest.raises(BackendUnavailable, match="backend 'x' has no device 'cuda:2' here; it has cuda:0, cuda:1, cpu"):
        choose_device("x", "cuda:2", available)


def test_a_device_that_is_not_there_is_refused(backend: Backend) -> None:
    with pytest.raises(BackendUnavailable, match=f"'{backend.name}' has no device 'abacus' here; it has "):
        open_backend(backend.name, "abacus")


def test_it_describes_itself(backend: Backend) -> None:
    description = backend.describe()
    assert json.loads(json.dumps(description)) == description
    assert next(iter(description.values()))[0].isdigit()  # the library's version comes first
    assert description["device"] in backend.devices()


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float64"])
def test_arrays_go_there_and_back(backend: Backend, dtype: str) -> None:
    host = np.arange(12, dtype=dtype).reshape(3, 4)
    there = backend.asarray(host)
    assert there.dtype == getattr(backend.xp, dtype)
    backend.synchronize()
    back = backend.to_host(there)
    assert isinstance(back, np.ndarray)
    assert back.dtype == host.dtype
    np.testing.assert_array_equal(back, host)
    assert backend.to_host(backend.asarray(host, "float64")).dtype == np.float64


@pytest.mark.parametrize("dtype", [None, "float64"])
def test_arrays_of_any_strides_go_there(backend: Backend, dtype: str | None) -> None:
    host = np.arange(12, dtype=np.float32).reshape(3, 4)
    for view in (host[::-1, ::-2], host.T, np.broadcast_to(host[0], (2, 4)), host[0, 0, ...]):
        np.testing.assert_array_equal(backend.to_host(backend.asarray(view, dtype)), view)


def test_arrays_in_any_byte_order_go_there(backend: Backend) -> None:
    for order in "<>":
        there = backend.asarray(np.arange(3, dtype=f"{order}f8"), "float32")
        assert there.dtype == backend.xp.float32
        np.testing.assert_array_equal(backend.to_host(there), [0, 1, 2])


def test_scan_is_a_loop_over_a_pure_step(backend: Backend) -> None:
    def step(carry: Any, x: Any, constants: Any) -> Any:
        total, count = carry
        value, factor = x
        total = total + value * factor * constants[0]
        return (total, count + 1.0), (total, value)

    values, factors = np.arange(12.0).reshape(4, 3), np.asarray([1.0, -1.0, 2.0, 0.5])
    carry = (backend.asarray(np.zeros(3)), backend.asarray(np.zeros(())))
    xs = (backend.asarray(values), backend.asarray(factors))
    (total, count), (totals, seen) = backend.scan(step, carry, xs, (backend.asarray(np.full(3, 2.0)),))
    expected = np.cumsum(2.0 * values * factors[:, None], axis=0)
    np.testing.assert_array_equal(backend.to_host(totals), expected)
    np.testing.assert_array_equal(backend.to_host(total), expected[-1])
    np.testing.assert_array_equal(backend.to_host(seen), values)
    assert float(backend.to_host(count)) == 4.0
    np.testing.assert_array_equal(backend.to_host(carry[0]), np.zeros(3))  # what went in is left as it was


def test_map_reduce_adds_summands_up_in_order(backend: Backend) -> None:
    def step(x: Any, constants: Any) -> Any:
        value, factor = x
        return (value * constants[0], factor), (value + factor,)

    # In any other order the sums of the first column would be others.
    values, factors = np.asarray([[1.0, 1.0], [2.0**53, 2.0], [-(2.0**53), 3.0], [0.5, 4.0]]), np.arange(4.0)
    zero = backend.asarray(np.zeros(2)), backend.asarray(np.ones(()))
    xs = backend.asarray(values), backend.asarray(factors)
    (sums, total), (ys,) = backend.map_reduce(step, zero, xs, (backend.asarray(np.asarray([1.0, 2.0])),))
    assert backend.to_host(sums).tolist() == [0.5, 20.0]
    assert float(backend.to_host(total)) == 7.0
    assert type(ys) is type(xs[0])
    np.testing.assert_array_equal(backend.to_host(ys), values + factors[:, None])
    np.testing.assert_array_equal(backend.to_host(zero[0]), [0.0, 0.0])  # what went in is left as it was
    nothing, (same,) = backend.map_reduce(lambda x, _: ((), x), (), xs[:1])
    assert nothing == ()
    np.testing.assert_array_equal(backend.to_host(same), values)


def test_numpys_map_reduce_shares_steps_out_among_as_many_threads_as_blas_has(numpy_backend: Backend) -> None:
    met = threading.Barrier(2, timeout=60)

    def blas_threads() -> set[int]:
        return {info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"}

    def step(x: Any, _: Any) -> Any:
        met.wait()  # for the other thread
        return (), (np.asarray(sorted(blas_threads())), x[0] * 1e308 * 1e308)

    with threadpool_limits(2):
        _, (threads, products) = numpy_backend.map_reduce(step, (), (np.asarray([0.0, 1.0] * 2),))
        assert blas_threads() == {2}
    assert threads.tolist() == [[1]] * 4
    assert products.tolist() == [0.0, np.inf, 0.0, np.inf]  # and nothing is said of it
    with threadpool_limits(1):
        met = threading.Barrier(1)
        _, (threads, _) = numpy_backend.map_reduce(step, (), (np.asarray([1.0] * 4),))
    assert threads.tolist() == [[1]] * 4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_segments", [1, 5, 40])
def test_segment_sums_are_weighted_and_of_every_segment(backend: Backend, n_segments: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.integers(-9, 10, (60, 3)).astype(dtype), rng.integers(0, 4, 60).astype(dtype)
    segments = rng.integers(0, max(1, n_segments - 1), 60).astype(np.int32)  # the last of several has no row
    there = [backend.asarray(array) for array in (x, segments, weights)]

    def step(x: Any, _: Any) -> Any:
        return (), backend.segment_sum(x[0], x[1], x[2], n_segments)

    _, (sums, totals) = backend.map_reduce(step, (), tuple(backend.asarray(a[None]) for a in (x, segments, weights)))
    for found in (backend.segment_sum(there[0], there[1], there[2], n_segments), (sums[0, ...], totals[0, ...])):
        for array, shape in zip(found, ((n_segments, 3), (n_segments,)), strict=True):
            assert type(array) is type(there[0])
            assert array.dtype == there[0].dtype
            assert array.shape == shape
        for j in range(n_segments):
            mine = segments == j
            np.testing.assert_array_equal(backend.to_host(found[0])[j], weights[mine] @ x[mine])
            assert backend.to_host(found[1])[j] == weights[mine].sum()
