"""The trainings: who can take part, and the workloads in which everyone trains an epoch a turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import bench_peers
import bench_pytorch
import bench_workloads
from bench_contenders import REPLICAS, VARIANTS, floor, project, replicas
from bench_report import Report, Request, summarize
from bench_rounds import Entry, chosen, enter, interleave
from bench_workloads import Workload
from mlp_xp.backend import list_backends

TRAINING: dict[str, Entry] = {
    **{name: Entry(partial(project, *variant), f"floor-{variant[0]}") for name, variant in VARIANTS.items()},
    "pytorch-eager": Entry(bench_pytorch.eager, "floor-torch"),
    "pytorch-compiled": Entry(bench_pytorch.compiled, "floor-torch"),
    "pytorch-graphs": Entry(bench_pytorch.cuda_graphs, "floor-torch"),
    "jax-optax": Entry(bench_peers.jax_optax, "floor-jax"),
    "scikit-learn": Entry(bench_peers.scikit_learn),
    "keras-jax": Entry(bench_peers.keras_jax, "floor-jax"),
    **{f"floor-{name}": Entry(partial(floor, name)) for name in list_backends()},
}
"""Name on the command line -> how the contender is made from a workload."""

PEERS = ("pytorch-eager", "pytorch-compiled", "pytorch-graphs", "jax-optax", "scikit-learn", "keras-jax")

REPLICATED: dict[str, Entry] = {name: Entry(partial(replicas, *variant)) for name, variant in VARIANTS.items()}
"""Of the same names -> one network and many."""


def measure(
    workload: Workload, registry: Mapping[str, Entry], default: Sequence[str], request: Request, reference: str
) -> Report:
    """Let contenders of a registry take turns at a workload."""
    contenders, left_out = enter(chosen(request.names, registry, default), registry, workload)
    values, failed = interleave(contenders, request.count())
    return Report(
        name=workload.name,
        title=str(workload),
        results=summarize(contenders, values),
        left_out=left_out | failed,
        details=workload.to_dict(),
        unit=workload.unit,
        reference=reference,
    )


def train(make: Callable[[str], Workload], request: Request) -> Report:
    """Measure an epoch of training, without the evaluation."""
    return measure(make(request.dtype), TRAINING, [*list_backends(), *PEERS], request, "floor")


def train_replicas(request: Request, make: Callable[[str], Workload] = bench_workloads.tiny) -> Report:
    """Measure an epoch of many networks that differ in their seed, beside one."""
    workload = make(request.dtype)
    named = Workload(f"replicas ({REPLICAS} beside 1)", workload.settings, workload.data, workload.per_step)
    return measure(named, REPLICATED, ["numpy", "jax"], request, "one network")
