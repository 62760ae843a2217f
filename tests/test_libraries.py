"""What single libraries promise beyond the common contract: compiled once, full precision, no autograd."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest

from mlp_xp.backend import Backend, open_backend
from mlp_xp.errors import BackendUnavailable


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
