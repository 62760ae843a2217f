"""Who trains: this project's backends, and the floor, the matrix products alone, that no training can do without."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bench_rounds import Contender
from bench_workloads import Workload
from mlp_xp.backend import Backend, list_backends, open_backend
from mlp_xp.network import map_parameters
from mlp_xp.trainer import Trainer

if TYPE_CHECKING:
    from mlp_xp.array_types import Array, Namespace

REPLICAS = 16

VARIANTS: dict[str, tuple[str, dict[str, str]]] = {
    **{name: (name, {}) for name in list_backends()},
    **{f"{name}-exact": (name, {"arithmetic": "exact", "dtype": ""}) for name in list_backends()},
    **{f"{name}-float32": (name, {"dtype": "float32"}) for name in list_backends()},
}
"""Name on the command line -> the backend's name, and what it changes of a workload's settings."""


def project_name(backend_name: str, change: dict[str, str]) -> str:
    """Return what people call a variant."""
    return " ".join(["mlp_xp", backend_name, *filter(None, change.values())])


def project(backend_name: str, change: dict[str, str], workload: Workload) -> Contender:
    """Return one of this project's backends: an epoch as `mlp_xp.training` trains it, without the evaluation."""
    return _training(open_backend(backend_name), project_name(backend_name, change), change, workload, None)


def replicas(backend_name: str, change: dict[str, str], workload: Workload) -> list[Contender]:
    """Return a training of one network, and one of many that is compared with it."""
    backend, name = open_backend(backend_name), project_name(backend_name, change)
    one = _training(backend, f"{name}, one", change, workload, None)
    many = _training(backend, f"{name}, {REPLICAS} replicas", change, workload, REPLICAS)
    return [replace(one, against=one.name), replace(many, against=one.name)]


def _training(
    backend: Backend, name: str, change: dict[str, str], workload: Workload, n_replicas: int | None
) -> Contender:
    settings = replace(workload.settings, epochs=2**20, **change)  # type: ignore[arg-type]  # an order ahead for every turn
    trainer = Trainer(settings, workload.data, backend, replicas=n_replicas)

    def epoch(number: int) -> float:
        """Draw the order, train, and fetch every batch's loss, which waits for the device."""
        return float(np.mean(trainer.run_epoch(number)))

    description = backend.describe()
    return Contender(name, "project", description["device"], epoch, description)


def multiplications(xp: Namespace, features: Array, weights: Sequence[Array]) -> list[tuple[Array, Array, Array]]:
    """Return both operands and the result of every matrix product of a training step: of eight for three layers.

    The forward ones come first; then, from the last layer to the first, a weight's gradient and the layer's input's.
    """
    products = []

    def multiply(a: Array, b: Array) -> Array:
        products.append((a, b, xp.matmul(a, b)))
        return products[-1][-1]

    inputs = [features]
    for weight in weights:
        inputs.append(multiply(inputs[-1], weight))
    delta = inputs[-1]
    for i in reversed(range(len(weights))):
        multiply(xp.matrix_transpose(inputs[i]), delta)
        if i > 0:
            delta = multiply(delta, xp.matrix_transpose(weights[i]))
    return products


def floor(backend_name: str, workload: Workload) -> Contender:
    """Return the matrix products of an epoch, by one library on its device."""
    backend = open_backend(backend_name)
    weights = [layer.weight for layer in map_parameters(backend.asarray, workload.parameters)]
    description = backend.describe()
    make = _compiled_products if backend_name == "jax" else _products
    epoch = make(backend, workload, weights)

    def turn(_: int) -> float:
        wait(backend, epoch())
        return math.nan

    return Contender(f"floor {backend_name}", "floor", description["device"], turn, description)


def wait(backend: Backend, results: list[Array]) -> None:
    """Return when all matrices are there; nothing is copied to the host but a number."""
    if backend.name == "jax":
        import jax

        jax.block_until_ready(results)
    else:
        backend.to_host(results[-1][0, 0])  # a device works in order


def _products(backend: Backend, workload: Workload, weights: list[Array]) -> Callable[[], list[Array]]:
    """Return a function that multiplies into memory that is there already, once for every step."""
    rows = backend.asarray(workload.features[: workload.settings.batch_size])
    products = multiplications(backend.xp, rows, weights)
    n_steps, matmul = workload.n_steps, backend.xp.matmul

    def epoch() -> list[Array]:
        for _ in range(n_steps):
            for a, b, result in products:
                matmul(a, b, out=result)
        return [result for *_, result in products]

    return epoch


def _compiled_products(backend: Backend, workload: Workload, weights: list[Array]) -> Callable[[], list[Array]]:
    """Return a function that is one compiled loop; every step has rows of its own, so that none is taken out of it."""
    import jax

    batch_size, n_steps = workload.settings.batch_size, workload.n_steps
    features = backend.asarray(workload.features)

    def train(features: Array, weights: list[Array]) -> Any:
        def step(_: list[Array], first: Array) -> tuple[list[Array], None]:
            rows = jax.lax.dynamic_slice_in_dim(features, first, batch_size)
            results = [result for *_, result in multiplications(jax.numpy, rows, weights)]
            return results[len(weights) :: 2], None  # the gradients of all weights: they need every other product

        starts = jax.numpy.arange(n_steps, dtype="int32") * batch_size
        return jax.lax.scan(step, weights[::-1], starts)[0]  # all of them, or the compiler would leave some out

    return partial(jax.jit(train), features, weights)
