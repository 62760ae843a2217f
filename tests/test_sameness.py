"""One training, one digest: whatever the library, the threads, the kernels, the devices, or the order of the sums."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import numpy as np
import pytest
from numpy.typing import NDArray

from mlp_xp.backend import Backend, open_backend
from mlp_xp.checkpoint import host_tensors, map_named
from mlp_xp.datasets import load
from mlp_xp.datasets.dataset import Dataset, Split
from mlp_xp.digests import digest_arrays
from mlp_xp.initializers import initial_parameters
from mlp_xp.network import Layer, Parameters
from mlp_xp.randomness import batch_order
from mlp_xp.settings import Settings
from mlp_xp.training import train
from sameness import ADAM, SGD, TRAININGS, processor, rounding_switched_off

INSTRUCTIONS: list[str] = processor()["features"]
"""What NumPy may use of this CPU beyond its baseline."""
AVX512 = [name for name in INSTRUCTIONS if name.startswith("AVX512") or name == "X86_V4"]

PROCESSES: dict[str, tuple[list[str], dict[str, str]]] = {
    "plain": (["numpy", "numpy uncompiled", "numpy unrounded"], {"OPENBLAS_NUM_THREADS": "1"}),
    "threads": (["numpy", "numpy unrounded"], {"OPENBLAS_NUM_THREADS": "2"}),
    "Nehalem": (["numpy", "numpy unrounded"], {"OPENBLAS_CORETYPE": "Nehalem"}),
    "Prescott": (["numpy", "numpy unrounded"], {"OPENBLAS_CORETYPE": "Prescott"}),
    "without AVX-512": (["numpy"], {"NPY_DISABLE_CPU_FEATURES": " ".join(AVX512)}),
    "baseline": (["numpy"], {"NPY_DISABLE_CPU_FEATURES": " ".join(INSTRUCTIONS)}),
    "jax": (["jax", "jax unrounded"], {}),
    "jax, one operation at a time": (["jax uncompiled"], {}),
    "several devices": (["jax@cpu:0-3", "jax@cpu:0-7"], {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}),
    "torch": (["torch"], {}),
    "cupy": (["cupy"], {}),
    "strict": (["strict"], {}),
}
"""What runs in a process (see `sameness.report`), and the environment that shall not matter."""

Reports = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="session")
def reports() -> Iterator[Reports]:
    """Start all processes, two at a time, and give what any of them wrote."""
    pool = ThreadPoolExecutor(2)
    longest_first = sorted(PROCESSES, key=lambda name: "jax" not in PROCESSES[name][0][0])
    futures = {name: pool.submit(_run, *PROCESSES[name]) for name in longest_first}
    yield lambda name: futures[name].result()
    pool.shutdown(cancel_futures=True)


def _run(runs: list[str], environment: dict[str, str]) -> dict[str, Any]:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "sameness", *runs],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def assert_same(reports: Reports, name: str) -> None:
    """Assert that all runs of a process have the digests of NumPy with one thread."""
    plain = reports("plain")["digests"]
    for run, digests in reports(name)["digests"].items():
        if "unavailable" in digests:
            pytest.skip(digests["unavailable"])
        _, _, how = run.partition(" ")
        if how != "unrounded":
            assert digests == plain[f"numpy {how}".strip()], run


@pytest.mark.parametrize("name", [name for name, (runs, _) in PROCESSES.items() if "numpy" not in runs])
def test_every_library_has_the_digests_of_numpy(reports: Reports, name: str) -> None:
    assert_same(reports, name)


def test_threads_do_not_matter(reports: Reports) -> None:
    found = [reports(name)["processor"]["threads"] for name in ("plain", "threads")]
    if found != [[1], [2]]:
        pytest.skip(f"the threads of NumPy's BLAS cannot be set by OpenBLAS's variable here: {found}")
    assert_same(reports, "threads")


@pytest.mark.parametrize("kernel", ["Nehalem", "Prescott"])
def test_the_kernels_of_the_blas_do_not_matter(reports: Reports, kernel: str) -> None:
    usual, chosen = (reports(name)["processor"] for name in ("plain", kernel))
    if usual["blas"] != ["openblas"] or usual["kernels"] == chosen["kernels"]:
        pytest.skip(f"{usual['blas']} has no other kernels here than {usual['kernels']}")
    assert_same(reports, kernel)


@pytest.mark.parametrize(("name", "disabled"), [("without AVX-512", AVX512), ("baseline", INSTRUCTIONS)])
def test_the_instructions_of_the_cpu_do_not_matter(reports: Reports, name: str, disabled: list[str]) -> None:
    if not disabled:
        pytest.skip("NumPy has no such instructions to leave out on this CPU")
    assert reports(name)["processor"]["features"] == [one for one in INSTRUCTIONS if one not in disabled]
    assert_same(reports, name)


def test_without_rounding_points_the_digests_differ(reports: Reports) -> None:
    """So the tests above can fail."""
    runs = [digests for name in PROCESSES for digests in reports(name)["digests"].values()]
    assert len({digests["unrounded"] for digests in runs if "unrounded" in digests}) > 1


# --- the order of the sums, within one process --------------------------------------------------------------------

Orders = list[NDArray[np.intp]]
"""Of the features, of every hidden layer's units, and of the outputs."""


def reordered(layers: Parameters, orders: Orders) -> Parameters:
    """Return host parameters with every layer's inputs and outputs in another order."""
    return tuple(
        Layer(layer.weight[before][:, after], layer.bias[after])
        for layer, before, after in zip(layers, orders, orders[1:], strict=False)
    )


def trained(settings: Settings, backend: Backend, shuffled: str = "") -> str:
    """Return the digest of a training with something in another order, which is put back at the end."""
    rng, digits = np.random.default_rng(0), load("digits").split()
    sizes = (digits.train.n_features, *settings.hidden_layer_sizes, 10)
    moves = [shuffled == "features", *(shuffled == "hidden units" for _ in settings.hidden_layer_sizes), False]
    orders = [rng.permutation(size) if moved else np.arange(size) for size, moved in zip(sizes, moves, strict=True)]

    def within_batches(*arguments: int) -> NDArray[Any]:
        order = batch_order(*arguments)
        return rng.permuted(order, axis=1) if shuffled == "rows" else order

    def columns(part: Dataset) -> Dataset:
        return Dataset(part.name, part.features[:, orders[0]], part.targets, part.n_classes, part.scale)

    data = Split(*map(columns, digits))
    start = reordered(initial_parameters(sizes, settings.init, settings.seed), orders)
    with mock.patch("mlp_xp.trainer.batch_order", within_batches), mock.patch("mlp_xp.exactness.require_exact"):
        epochs = list(train(settings, data, backend, initial=start))
    numbers = [number for epoch in epochs for number in (*epoch.step_losses, epoch.loss, epoch.test_loss)]

    def to_host(_: str, array: Any) -> Any:
        return backend.to_host(array)

    back = [np.argsort(order) for order in orders]
    state = map_named(to_host, epochs[-1].optimizer_state, "")
    state = type(state)(*(reordered(part, back) if isinstance(part, tuple) else part for part in state))
    model = epochs[-1].model
    tensors = host_tensors(reordered(model.host_parameters(), back), state, open_backend("numpy"))
    predicted = model.predict(data.test.features).values
    return digest_arrays({**tensors, "numbers": np.array(numbers), "predicted": predicted})


SHUFFLED = ("rows", "features", "hidden units")


@pytest.mark.parametrize("training", TRAININGS)
def test_the_order_of_rows_features_and_units_does_not_matter(backend: Backend, training: str) -> None:
    expected = trained(TRAININGS[training], backend)
    for shuffled in SHUFFLED:
        assert trained(TRAININGS[training], backend, shuffled) == expected, shuffled


@pytest.mark.parametrize("settings", [SGD, ADAM])
@pytest.mark.parametrize("shuffled", SHUFFLED)
def test_without_rounding_points_the_order_matters(numpy_backend: Backend, shuffled: str, settings: Settings) -> None:
    with rounding_switched_off():
        assert trained(settings, numpy_backend, shuffled) != trained(settings, numpy_backend)
