"""The evaluation: mean loss and accuracy of rows that nothing is learnt from, beside the forward products alone."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import bench_workloads
from bench_contenders import VARIANTS, project_name, wait
from bench_peers import jax_loss, open_jax
from bench_pytorch import PyTorch
from bench_report import Report, Request, Unit
from bench_rounds import Contender, Entry
from bench_training import measure
from bench_workloads import Workload
from mlp_xp.backend import list_backends, open_backend
from mlp_xp.network import map_parameters
from mlp_xp.segments import open_rows
from mlp_xp.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlp_xp.array_types import Array, Namespace

CHUNKS = (12_000, 4_000, 1_000, 200)
"""Rows that the floor multiplies at once: all of them, and fewer, which stay in the caches."""
PEER_CHUNKS = (12_000, 1_000)
"""Rows that a peer is given at once: all of them, and as many as in PyTorch's own example of MNIST."""


def sizes(chunks: Sequence[int], n_rows: int) -> list[int]:
    """Return the chunks that divide the rows, at least all rows at once."""
    return [n for n in chunks if n < n_rows and n_rows % n == 0] + [n_rows]


def project(backend_name: str, change: dict[str, str], workload: Workload) -> Contender:
    """Return what this project does after every epoch."""
    backend = open_backend(backend_name)
    settings = replace(workload.settings, **change)  # type: ignore[arg-type]
    trainer = Trainer(settings, workload.data, backend)
    rows = open_rows(workload.data, backend, settings.dtype, trainer.arithmetic.for_inference())
    description = backend.describe()

    def turn(_: int) -> float:
        return trainer.model.evaluate(rows).loss

    return Contender(project_name(backend_name, change), "project", description["device"], turn, description)


def floor(backend_name: str, workload: Workload) -> list[Contender]:
    """Return the forward products by one library, for every sensible chunk of rows."""
    backend = open_backend(backend_name)
    weights = [layer.weight for layer in map_parameters(backend.asarray, workload.parameters)]
    multiply: Callable[..., Array] = partial(forward_products, backend.xp)
    if backend_name == "jax":
        import jax

        multiply = jax.jit(multiply)
    description = backend.describe()

    def contender(chunk: int) -> Contender:
        chunks = [backend.asarray(workload.features[i : i + chunk]) for i in range(0, workload.n_rows, chunk)]

        def turn(_: int) -> float:
            wait(backend, [multiply(weights, rows) for rows in chunks])
            return math.nan

        name = f"floor {backend_name}, {chunk} rows at once"
        return Contender(name, "floor", description["device"], turn, description)

    return [contender(chunk) for chunk in sizes(CHUNKS, workload.n_rows)]


def forward_products(xp: Namespace, weights: Sequence[Array], rows: Array) -> Array:
    """Multiply rows by every weight in turn."""
    for weight in weights:
        rows = xp.matmul(rows, weight)
    return rows


def pytorch(name: str, workload: Workload, *, compiled: bool = False) -> list[Contender]:
    """Return the test loop of PyTorch's examples, with its body compiled or not."""
    peer = PyTorch(workload)
    torch = peer.torch

    def evaluate(features: Any, labels: Any) -> tuple[Any, Any]:
        logits = peer.model(features)
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        return loss, (logits.argmax(dim=1) == labels).sum()

    if compiled:
        torch.compiler.reset()
        mode = "reduce-overhead" if peer.device != "cpu" else None
        evaluate = torch.compile(evaluate, dynamic=False, mode=mode)

    def contender(chunk: int) -> Contender:
        def turn(_: int) -> float:
            loss = torch.zeros((), dtype=peer.features.dtype, device=peer.device)
            right = torch.zeros((), device=peer.device, dtype=torch.int64)
            with torch.no_grad():
                for batch in zip(peer.features.split(chunk), peer.labels.split(chunk), strict=True):
                    batch_loss, batch_right = evaluate(*batch)
                    loss += batch_loss
                    right += batch_right
            accuracy = right.item() / workload.n_rows
            return float(loss.item()) / workload.n_rows if 0 <= accuracy <= 1 else math.nan

        return Contender(f"{name}, {chunk} rows at once", "peer", peer.device, turn, peer.description)

    return [contender(chunk) for chunk in sizes(PEER_CHUNKS, workload.n_rows)]


def jax_optax(workload: Workload) -> list[Contender]:
    """Return one compiled function that evaluates all rows, at once or in a scan over chunks."""
    backend = open_jax(workload)
    import jax
    import optax

    features, labels = backend.asarray(workload.features), backend.asarray(workload.labels, "int32")
    parameters = [{name: backend.asarray(x) for name, x in layer._asdict().items()} for layer in workload.parameters]

    def evaluate(parameters: Any, features: Any, labels: Any) -> Any:
        def step(_: None, batch: Any) -> Any:
            losses, logits = jax_loss(parameters, *batch)
            return None, (losses, logits.argmax(axis=-1) == batch[1])

        _, (losses, right) = jax.lax.scan(step, None, (features, labels))
        return losses.mean(), right.mean()

    description, compiled = backend.describe() | {"optax": optax.__version__}, jax.jit(evaluate)

    def contender(chunk: int) -> Contender:
        batches = features.reshape(-1, chunk, features.shape[1]), labels.reshape(-1, chunk)

        def turn(_: int) -> float:
            loss, accuracy = compiled(parameters, *batches)
            return float(loss) if 0 <= float(accuracy) <= 1 else math.nan

        return Contender(f"JAX + optax, {chunk} rows at once", "peer", description["device"], turn, description)

    return [contender(chunk) for chunk in sizes(PEER_CHUNKS, workload.n_rows)]


EVALUATION: dict[str, Entry] = {
    **{name: Entry(partial(project, *variant), f"floor-{variant[0]}") for name, variant in VARIANTS.items()},
    "pytorch-eager": Entry(partial(pytorch, "PyTorch eager"), "floor-torch"),
    "pytorch-compiled": Entry(partial(pytorch, "PyTorch compiled", compiled=True), "floor-torch"),
    "jax-optax": Entry(jax_optax, "floor-jax"),
    **{f"floor-{name}": Entry(partial(floor, name)) for name in list_backends()},
}
"""Name on the command line -> how the contenders are made from a workload."""


def evaluate(request: Request, make: Callable[[str], Workload] = bench_workloads.evaluation) -> Report:
    """Measure an evaluation of all rows."""
    default = [*list_backends(), "pytorch-eager", "pytorch-compiled", "jax-optax"]
    workload = make(request.dtype)
    report = measure(workload, EVALUATION, default, request, "floor")
    layers = "-".join(map(str, workload.layer_sizes))
    title = f"evaluation: {workload.n_rows} rows, {layers}, {request.dtype}, on {workload.data.name}"
    return replace(report, title=title, unit=Unit("ms", 1e3))
