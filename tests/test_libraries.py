"""What single libraries promise beyond the common contract: compiled once, full precision, no autograd."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from mlp_xp.backend import Backend, load_backend, open_backend
from mlp_xp.datasets import load
from mlp_xp.errors import BackendUnavailable
from mlp_xp.settings import Settings
from mlp_xp.training import train


def open_or_skip(name: str) -> Backend:
    try:
        return open_backend(name)
    except BackendUnavailable as error:
        pytest.skip(str(error))


@dataclass(frozen=True)
class CountingStep:
    """Counts how often it is called; equal to any other one with the same factor."""

    factor: float
    calls: ClassVar[list[float]] = []
    unused: str = field(default="", compare=False)

    def __call__(self, carry: Any, x: tuple[Any, ...], constants: Any) -> tuple[Any, tuple[Any, ...]]:
        self.calls.append(self.factor)
        return carry + self.factor * x[0] + constants, (carry,)


def test_jax_compiles_once_for_all_equal_steps() -> None:
    backend = open_or_skip("jax")
    CountingStep.calls.clear()
    one, xs = backend.asarray(np.ones(2), "float32"), (backend.asarray(np.ones((5, 2)), "float32"),)
    for unused in ("a run", "another run with equal settings"):
        carry, (ys,) = backend.scan(CountingStep(2.0, unused=unused), one, xs, one)
        np.testing.assert_array_equal(backend.to_host(carry), [16.0, 16.0])
        np.testing.assert_array_equal(backend.to_host(ys)[:, 0], [1.0, 4.0, 7.0, 10.0, 13.0])
    traced = len(CountingStep.calls)
    assert traced < 5, "the step was called for every row: the loop is not compiled"
    backend.scan(CountingStep(2.0), one, xs, one)
    assert len(CountingStep.calls) == traced
    backend.scan(CountingStep(3.0), one, xs, one)
    assert len(CountingStep.calls) > traced


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_jax_compiles_no_training_twice(numpy_backend: Backend, optimizer: str) -> None:
    """Neither for equal settings nor for another learning rate, which is an argument of the compiled loop."""
    backend = open_or_skip("jax")
    import mlp_xp_jax

    settings = Settings(hidden_layer_sizes=(4,), batch_size=300, epochs=2, optimizer=optimizer)
    digits = load("digits").split()
    list(train(settings, digits, backend))
    compiled = mlp_xp_jax._scan._cache_size()
    list(train(settings, digits, backend))
    faster = replace(settings, learning_rate=0.2)
    *_, last = train(faster, digits, backend)
    assert mlp_xp_jax._scan._cache_size() == compiled
    *_, expected = train(faster, digits, numpy_backend)
    np.testing.assert_allclose(last.step_losses, expected.step_losses, rtol=1e-5)


def test_jax_shares_no_memory_with_the_host() -> None:
    """It computes later than it is asked to, so an array of the host may be written to in between."""
    backend = open_or_skip("jax")
    for n in (4, 100_000):  # whether device_put copies depends on size and alignment
        host = np.zeros(n, np.float32)
        there = backend.asarray(host)
        host[:] = 1.0
        assert not np.any(backend.to_host(there))


class RecordingDevice:
    """Stands in for a CUDA device and knows whether it is the current one."""

    current = False

    def __enter__(self) -> None:
        self.current = True

    def __exit__(self, *_: object) -> None:
        self.current = False


def test_cupy_computes_and_copies_on_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """With several GPUs the current one may be another; no GPU is needed to hold that."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    backend: Any = object.__new__(load_backend("cupy"))
    backend.xp, backend.device, calls = np, RecordingDevice(), []
    backend._replays = importlib.import_module("mlp_xp_cupy_graph").Replays(cupy)

    def observed(value: Any, *_: Any, **__: Any) -> Any:
        calls.append(backend.device.current)
        return value

    monkeypatch.setattr(cupy, "asarray", observed)
    monkeypatch.setattr(cupy, "asnumpy", observed)
    ones = backend.to_host(backend.asarray(np.ones(3)))
    backend.scan(lambda carry, x, constants: observed((carry, x)), ones, (ones,))
    assert calls == [True] * 5


@pytest.mark.parametrize(("theirs", "then"), [(None, "highest"), ("tensorfloat32", "tensorfloat32")])
def test_jax_multiplies_float32_in_float32_unless_the_user_chose(theirs: str | None, then: str) -> None:
    open_or_skip("jax")
    import jax

    before = jax.config.jax_default_matmul_precision
    try:
        jax.config.update("jax_default_matmul_precision", theirs)
        assert open_backend("jax").describe()["matmul_precision"] == then
    finally:
        jax.config.update("jax_default_matmul_precision", before)


def test_torch_records_nothing_for_autograd() -> None:
    backend = open_or_skip("torch")
    one = backend.asarray(np.ones(2), "float32").requires_grad_()
    xs = (backend.asarray(np.ones((5, 2)), "float32"),)
    carry, (ys,) = backend.scan(CountingStep(2.0), one, xs, one)
    assert not carry.requires_grad
    assert not ys.requires_grad


def test_numpy_does_not_warn_of_what_the_loss_shows() -> None:
    backend = open_backend("numpy")
    huge = backend.asarray(np.full(2, 1e38), "float32")
    carry, _ = backend.scan(CountingStep(1e3), huge, (np.full((2, 2), 1e38, np.float32),), huge)
    assert np.all(np.isinf(carry))
