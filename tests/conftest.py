"""One fixture gives every test of the equations every array library that is installed here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlp_xp.trainer
from mlp_xp.backend import Backend, list_backends, open_backend
from mlp_xp.datasets import Split, load
from mlp_xp.errors import BackendUnavailable

DEVICES = {"strict": ("cpu", "device1")}  # stands in for a GPU: refuses hidden copies to the host
NEEDS_GPU = {"cupy"}
ALWAYS_THERE = {"numpy", "readonly", "strict"}  # never skipped


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        action="append",
        metavar="NAME",
        help="run the tests of the equations on this backend alone (may be given several times); "
        "by default on all, and those that cannot be opened here are skipped",
    )


def pytest_configure(config: pytest.Config) -> None:
    unknown = set(config.getoption("--backend") or ()) - set(list_backends())
    if unknown:
        raise pytest.UsageError(f"--backend {', '.join(sorted(unknown))}: known are {', '.join(list_backends())}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" not in metafunc.fixturenames:
        return
    chosen = metafunc.config.getoption("--backend") or list_backends()
    cases = [(name, device) for name in chosen for device in DEVICES.get(name, (None,))]
    parameters = [
        pytest.param(
            (name, device),
            id=name if device is None else f"{name}-{device}",
            marks=[pytest.mark.gpu] if name in NEEDS_GPU else [],
        )
        for name, device in cases
    ]
    metafunc.parametrize("backend", parameters, indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """An opened backend; skipped with the reason if it cannot be opened here, unless it was asked for."""
    name, device = request.param
    try:
        opened = open_backend(name, device)
    except BackendUnavailable as error:
        if name in ALWAYS_THERE or request.config.getoption("--backend"):
            raise
        pytest.skip(str(error))
    yield opened
    if name == "jax":
        import jax

        # 64 bits are a process-wide switch: the next test shall have to ask for them itself.
        jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="module", autouse=True)
def programs_end_with_their_module() -> Iterator[None]:
    """Let go of what JAX compiled: every program maps memory, and a process has 65,530 mappings on Linux, not more."""
    yield
    if "jax" in sys.modules:
        import jax

        jax.clear_caches()


@pytest.fixture
def numpy_backend() -> Backend:
    """The reference."""
    return open_backend("numpy")


@pytest.fixture
def wrong_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the backends of tests/backends/wrong, each of which must be caught."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "backends" / "wrong")


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that record many runs: drawing takes longer than all the rest."""
    for name in ("plot_run", "plot_replicas"):
        monkeypatch.setattr(f"mlp_xp.plots.{name}", lambda *_: None)
    monkeypatch.setattr("mlp_xp.plots.png", lambda _: b"a picture")


@pytest.fixture
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a training stop within an epoch: of digits, 14 steps of `stopped_runs` are pieces of 5, 5 and 4."""
    monkeypatch.setattr("mlp_xp.trainer.PIECE", 55 * mlp_xp.trainer.CALLS // 10)


@pytest.fixture(scope="session")
def digits() -> Split:
    """The 8 x 8 digits of scikit-learn, split as `mlp-xp train` does."""
    return load("digits").split()
