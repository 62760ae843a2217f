"""The self-test passes every right library and fails every wrong one."""

from __future__ import annotations

import pytest

from mlp_xp.backend import Backend, open_backend
from mlp_xp.errors import TrainingDiverged
from mlp_xp.losses import gradient_of_mean
from mlp_xp.selftest import self_test


def test_every_backend_here_computes_rightly(backend: Backend) -> None:
    test = self_test(backend)
    assert test.passed, test.errors
    assert test.errors["float64"] < 1e-14
    assert test.errors["float32"] < 1e-6


@pytest.mark.usefixtures("wrong_backends")
@pytest.mark.parametrize("name", ["bfloat", "tf32", "scaled"])
def test_products_in_too_few_bits_or_off_by_a_factor_are_caught(name: str) -> None:
    test = self_test(open_backend(name))
    assert not test.passed
    assert (test.errors["float64"] < 1e-14) == (name == "tf32")  # which is a matter of float32 alone


@pytest.mark.usefixtures("wrong_backends")
def test_numbers_that_are_not_finite_are_caught() -> None:
    with pytest.raises(TrainingDiverged):
        self_test(open_backend("infinite"))


def test_a_wrong_gradient_is_caught(numpy_backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first loss is right, and still the test fails: it takes steps."""
    monkeypatch.setattr("mlp_xp.objective.gradient_of_mean", lambda *values: gradient_of_mean(*values) * 1.001)
    assert not self_test(numpy_backend).passed
