"""What CUDA's errors mean, as each library words them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from mlp_xp.backend import Backend, open_backend
from mlp_xp.cluster import KMeans
from mlp_xp.decomposition import PCA
from mlp_xp.errors import DeviceLost
from mlp_xp.neural_network import MLPClassifier
from mlp_xp_cuda_errors import LOST, meaning
from mlp_xp_numpy import NumPyBackend

MEMORY = (
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",  # PyTorch
    "cudaErrorMemoryAllocation: out of memory",  # CuPy
    "CUDA_ERROR_OUT_OF_MEMORY: out of memory",
    "INTERNAL: Failed to allocate 8 bytes: CUDA_ERROR_OUT_OF_MEMORY: out of memory",  # JAX
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
)
GONE = (
    "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported",
    "cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy or unavailable",
    "CUDA_ERROR_ECC_UNCORRECTABLE: uncorrectable ECC error encountered",
    "INTERNAL: CUDA error: Could not synchronize CUDA stream: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was "
    "encountered",
)
MISTAKES = (
    "CUDA error: invalid configuration argument",
    "CUDA error: device-side assert triggered",
    "cudaErrorInvalidValue: invalid argument",
    "INTERNAL: ptxas exited with non-zero error code 255, output: unknown error",
    "ran out of memory for the day",
)


@pytest.mark.parametrize("text", MEMORY)
def test_memory_that_does_not_suffice_is_no_lost_device(text: str) -> None:
    found = meaning(NumPyBackend(), RuntimeError(text))
    assert type(found) is MemoryError
    assert str(found) == text.partition("\n")[0]


@pytest.mark.parametrize("text", [*GONE, *(f"CUDA error: {words}" for words in LOST)])
def test_a_lost_device_is_one(text: str) -> None:
    found = meaning(NumPyBackend(), RuntimeError(text))
    assert isinstance(found, DeviceLost)
    assert f"stopped working: {text.partition(chr(10))[0]}; see to it" in str(found)


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_of_a_program_stay_what_they_are(text: str) -> None:
    assert meaning(NumPyBackend(), RuntimeError(text)) is None


@pytest.fixture
def jax_on_gpu() -> Backend:
    pytest.importorskip("jax", reason="needs JAX")
    backend = open_backend("jax")
    vars(backend)["_first"] = SimpleNamespace(platform="gpu")
    return backend


@pytest.mark.parametrize(
    ("text", "expected"),
    [(MEMORY[3], MemoryError), (GONE[3], DeviceLost), ("UNAVAILABLE: gone", DeviceLost), (MISTAKES[3], type(None))],
)
def test_jax_tells_its_compiler_from_its_device(jax_on_gpu: Backend, text: str, expected: type) -> None:
    import jax

    assert type(jax_on_gpu.failure(jax.errors.JaxRuntimeError(text))) is expected


@pytest.mark.parametrize(
    ("text", "expected"), [(MEMORY[0], MemoryError), (GONE[0], DeviceLost), (MISTAKES[0], type(None))]
)
def test_pytorch_tells_memory_and_mistakes_from_its_device(text: str, expected: type) -> None:
    pytest.importorskip("torch", reason="needs PyTorch")
    assert type(open_backend("torch", "cpu").failure(RuntimeError(text))) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError(MEMORY[1]), MemoryError),
        (RuntimeError(GONE[1]), DeviceLost),
        (RuntimeError(MISTAKES[2]), type(None)),
        (MemoryError("Out of memory allocating 8,000 bytes (allocated so far: 0 bytes)."), type(None)),
        (ValueError(GONE[1]), type(None)),
    ],
)
def test_cupy_tells_memory_and_mistakes_from_its_device(
    monkeypatch: pytest.MonkeyPatch, error: Exception, expected: type
) -> None:
    """Of a stand-in: CuPy's own errors of CUDA are subclasses of RuntimeError."""
    for name in ("cupy", "mlp_xp_cupy_namespace", "mlp_xp_cupy"):  # none stays: another test may want the real ones
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    del sys.modules["mlp_xp_cupy"]
    module = importlib.import_module("mlp_xp_cupy")
    backend = object.__new__(module.CuPyBackend)
    backend.device = "cuda:0"
    assert type(backend.failure(error)) is expected


@pytest.mark.parametrize(
    "estimator", [MLPClassifier(max_iter=2), KMeans(2), PCA(1)], ids=lambda each: type(each).__name__
)
@pytest.mark.parametrize("expected", [MemoryError, DeviceLost])
def test_estimators_tell_it_too(monkeypatch: pytest.MonkeyPatch, estimator: PCA, expected: type[Exception]) -> None:
    text = MEMORY[0] if expected is MemoryError else GONE[0]

    def fail(*_: object) -> None:
        raise RuntimeError(text)

    def failure(self: Backend, error: Exception) -> Exception | None:
        return meaning(self, error) if isinstance(error, RuntimeError) else None

    monkeypatch.setattr(NumPyBackend, "failure", failure)
    for name in ("scan", "map_reduce"):
        monkeypatch.setattr(NumPyBackend, name, fail)
    monkeypatch.setattr("mlp_xp.decomposition.PCA._choose_solver", fail)
    X = np.random.default_rng(0).random((20, 3))
    with pytest.raises(expected):
        estimator.fit(X, (X[:, 0] > 0.5).astype(int))


X = np.random.default_rng(0).random((20, 3))
KMEANS, COMPONENTS = KMeans(2, random_state=0).fit(X), PCA(2).fit(X)
CLASSIFIER = MLPClassifier((4,), solver="lbfgs", random_state=0).fit(X, X[:, 0] > 0.5)


@pytest.mark.parametrize(
    "method",
    [
        KMEANS.predict,
        KMEANS.transform,
        KMEANS.score,
        KMEANS.deviations,
        COMPONENTS.transform,
        COMPONENTS.fit_transform,
        COMPONENTS.score_samples,
        COMPONENTS.score,
        lambda rows: COMPONENTS.inverse_transform(rows[:, :2]),
        CLASSIFIER.predict,
        CLASSIFIER.predict_proba,
    ],
    ids=lambda method: getattr(method, "__qualname__", ""),
)
def test_what_was_fitted_tells_it_too(monkeypatch: pytest.MonkeyPatch, method: Callable[..., object]) -> None:
    """Also of operations that are no calls of a backend's."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(GONE[0])

    monkeypatch.setattr(NumPyBackend, "failure", meaning)
    for name in ("scan", "map_reduce"):
        monkeypatch.setattr(NumPyBackend, name, fail)
    monkeypatch.setattr("mlp_xp_numpy_namespace.matmul", fail, raising=False)
    with pytest.raises(DeviceLost):
        method(X)
