"""Memory that does not suffice and devices that disappear: one clear error, and what was saved is kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from mlp_xp.backend import DEVICE_CALLS, open_backend
from mlp_xp.cli import main
from mlp_xp.datasets import Split
from mlp_xp.errors import DeviceLost, RunError
from mlp_xp.recorded import load_model
from mlp_xp.resuming import resume
from mlp_xp.runs import record
from mlp_xp.settings import Settings
from mlp_xp.training import train
from mlp_xp_numpy import NumPyBackend

SETTINGS = Settings(hidden_layer_sizes=(4,), batch_size=200, epochs=3)


class LibraryError(RuntimeError):
    """As a library raises it when its device is gone."""


class FailingBackend(NumPyBackend):
    """Works for some scans, and then not any more."""

    def __init__(self, n_scans: int, error: Exception) -> None:
        super().__init__()
        self.n_scans, self.error = n_scans, error

    def scan(self, *arguments: Any) -> Any:
        self.n_scans -= 1
        if self.n_scans < 0:
            raise self.error
        return super().scan(*arguments)

    def failure(self, error: Exception) -> Exception | None:
        return self.lost(error) if isinstance(error, LibraryError) else None


def test_a_device_that_disappears_is_told_and_the_run_goes_on_elsewhere(tmp_path: Path, digits: Split) -> None:
    numpy = open_backend("numpy")
    *_, last = record(tmp_path / "whole", SETTINGS, digits, numpy, train(SETTINGS, digits, numpy))
    backend = FailingBackend(4, LibraryError("CUDA_ERROR_LAUNCH_FAILED\n  at some place in the library"))
    epochs = record(tmp_path / "run", SETTINGS, digits, backend, train(SETTINGS, digits, backend))
    with pytest.raises(
        DeviceLost, match=r"^backend 'numpy': the device cpu stopped working: CUDA_ERROR_LAUNCH_FAILED; "
    ):
        list(epochs)
    *_, again = resume(tmp_path / "run", numpy, digits)
    assert again.digests == last.digests  # type: ignore[union-attr]


@pytest.mark.parametrize("name", DEVICE_CALLS)
def test_whatever_reaches_the_device_tells_that_it_is_lost(name: str) -> None:
    def fail(*_: object) -> None:
        raise LibraryError("gone")

    class Lost(FailingBackend):
        vars()[name] = fail

    with pytest.raises(DeviceLost, match=r"^backend 'numpy': the device cpu stopped working: gone; ") as caught:
        getattr(Lost(0, LibraryError()), name)()
    assert isinstance(caught.value.__cause__, LibraryError)


def test_what_is_inherited_is_told_once() -> None:
    class Grandchild(FailingBackend):
        pass

    assert Grandchild.scan is FailingBackend.scan
    assert Grandchild.to_host is NumPyBackend.to_host


@pytest.mark.parametrize("error", [MemoryError("out of memory allocating 8 bytes"), KeyError("a bug")])
def test_other_errors_stay_what_they_are(error: Exception, digits: Split) -> None:
    backend = FailingBackend(0, error)
    with pytest.raises(type(error)) as caught:
        list(train(SETTINGS, digits, backend))
    assert caught.value is error


def test_predictions_are_told_too(tmp_path: Path, digits: Split) -> None:
    numpy = open_backend("numpy")
    list(record(tmp_path, SETTINGS, digits, numpy, train(SETTINGS, digits, numpy)))
    model = load_model(tmp_path, FailingBackend(0, LibraryError("gone")))
    with pytest.raises(DeviceLost, match="stopped working: gone; see to it"):
        model.predict(digits.test.features)


def test_jax_names_the_size_that_it_could_not_have(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command says it in one line, how to go on in another, and what was finished is there."""
    jax = pytest.importorskip("jax", reason="needs JAX")
    import mlp_xp_jax

    scan, calls = mlp_xp_jax._scan, [0]

    def hungry(*arguments: Any) -> Any:
        calls[0] += 1
        return scan(*arguments) if calls[0] <= 2 else jax.numpy.zeros(2**44)

    backend = open_backend("jax")
    with pytest.raises(MemoryError, match=r"^Out of memory allocating 70368744177664 bytes$"), backend.working():
        jax.numpy.zeros(2**44)
    monkeypatch.setattr(mlp_xp_jax, "_scan", hungry)
    run = tmp_path / "run"
    assert main(["train", "--backend", "jax", "--hidden", "4", "--epochs", "3", "--out", str(run)]) == 2
    monkeypatch.setattr(mlp_xp_jax, "_scan", scan)
    assert len((run / "curve.jsonl").read_text().splitlines()) == 1
    assert main(["train", "--resume", str(run)]) == 0


def test_the_command_names_the_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Of the layers before it none may be large: they would be there for a moment.
    assert main(["train", "--hidden", "1000,200000000", "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "mlp-xp: error: the memory does not suffice (Unable to allocate 1.46 TiB for an array with shape (" in error
    assert not (tmp_path / "run").exists()


def test_jax_blames_a_device_only_if_there_is_one_to_blame() -> None:
    jax = pytest.importorskip("jax", reason="needs JAX")
    backend: Any = open_backend("jax")
    error = jax.errors.JaxRuntimeError("INTERNAL: CUDA error: an illegal memory access was encountered\nmore")
    assert backend.failure(error) is None, "a CPU does not get lost"

    class GPU:
        platform = "gpu"

    backend._first = GPU()
    assert isinstance(lost := backend.failure(error), DeviceLost)
    assert "stopped working: INTERNAL: CUDA error: an illegal memory access was encountered; see to it" in str(lost)
    assert backend.failure(jax.errors.JaxRuntimeError("INVALID_ARGUMENT: a shape")) is None
    assert backend.failure(ValueError("INTERNAL: no")) is None


def test_pytorch_names_the_size_that_it_could_not_have() -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    backend = open_backend("torch", "cpu")
    with (
        pytest.raises(MemoryError, match=r"^can't allocate memory: you tried to allocate 140737488355328 bytes\."),
        backend.working(),
    ):
        torch.zeros(2**45)
    with (
        pytest.raises(DeviceLost, match="stopped working: CUDA error: unspecified launch failure; "),
        backend.working(),
    ):
        raise RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be …")
    with pytest.raises(RuntimeError, match="inconsistent tensor size"), backend.working():
        torch.zeros(2) @ torch.zeros(3)


def test_a_disk_that_vanishes_is_told(tmp_path: Path, digits: Split) -> None:
    """As a memory stick that is pulled out: the folder itself is gone."""
    numpy = open_backend("numpy")
    epochs = record(tmp_path / "run", SETTINGS, digits, numpy, train(SETTINGS, digits, numpy))
    next(epochs)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(
        RunError,
        match=r"run: cannot be written: No such file or directory; the folder is gone; if it comes back, go",
    ):
        list(epochs)
    assert not (tmp_path / "run").exists()
