"""A device is tried before exact work: a step with known bits, which one that computes otherwise does not have."""

from __future__ import annotations

import numpy as np
import pytest

import mlp_xp.exactness
from mlp_xp.backend import Backend, open_backend
from mlp_xp.cli import main
from mlp_xp.datasets import load
from mlp_xp.errors import BackendUnavailable
from mlp_xp.exactness import DIGEST, exact_digest, open_arithmetic
from mlp_xp.settings import Settings
from mlp_xp.training import train

EXACT = Settings(arithmetic="exact", hidden_layer_sizes=(4,), epochs=1)


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget which devices have passed."""
    monkeypatch.setattr(mlp_xp.exactness, "_passed", set())


def test_every_backend_has_the_known_bits(backend: Backend) -> None:
    assert exact_digest(backend) == DIGEST


@pytest.mark.usefixtures("wrong_backends", "untried")
@pytest.mark.parametrize("name", ["emulated", "merging", "scaled"])
def test_one_that_computes_otherwise_is_refused(name: str) -> None:
    data = load("digits").split()
    with pytest.raises(BackendUnavailable, match=f"backend '{name}' on cpu does not compute exactly: .*--arithmetic"):
        train(EXACT, data, open_backend(name))


@pytest.mark.usefixtures("wrong_backends", "untried")
def test_the_command_says_so_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--arithmetic", "exact", "--backend", "emulated", "--epochs", "1"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.usefixtures("untried")
def test_a_device_is_tried_once_and_only_for_exact_work(
    numpy_backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def digest(backend: Backend) -> str:
        tried.append(backend)
        return DIGEST

    monkeypatch.setattr(mlp_xp.exactness, "exact_digest", digest)
    open_arithmetic("native", numpy_backend, "float32")
    assert tried == []
    open_arithmetic("exact", numpy_backend, "float64")
    open_arithmetic("exact", numpy_backend, "float64")
    assert tried == [numpy_backend]


@pytest.mark.usefixtures("wrong_backends")
def test_an_emulated_product_passes_for_right_in_native_arithmetic(numpy_backend: Backend) -> None:
    """So the self-test of exact work finds what no tolerance shows."""
    data = load("digits").split()
    settings = Settings(dtype="float64", hidden_layer_sizes=(4,), epochs=1)
    (right,) = train(settings, data, numpy_backend)
    (emulated,) = train(settings, data, open_backend("emulated"))
    np.testing.assert_allclose(emulated.step_losses, right.step_losses, rtol=1e-12)
