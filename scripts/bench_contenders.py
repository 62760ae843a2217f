"""What `bench.py` measures: the workloads, and who takes them on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mlp_xp.backend import Backend, list_backends, open_backend
from mlp_xp.datasets import Dataset, load, mnist
from mlp_xp.initializers import initial_parameters
from mlp_xp.network import Parameters, map_parameters
from mlp_xp.settings import PRESETS, Settings
from mlp_xp.training import Trainer, make_objective

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_xp.array_types import Array, Namespace


@dataclass(frozen=True)
class Workload:
    """What every contender trains: the same network with the same batch size and dtype, on the same rows."""

    name: str
    settings: Settings
    data: Dataset

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """Number of inputs, of units in each hidden layer, and of outputs."""
        return make_objective(self.settings, self.data).network.layer_sizes

    @property
    def n_steps(self) -> int:
        """Batches of an epoch."""
        return self.data.n_samples // self.settings.batch_size

    def parameters(self, backend: Backend) -> Parameters:
        """Return the parameters that training starts from, on the backend's device."""
        host = initial_parameters(self.layer_sizes, self.settings.init, self.settings.seed)
        return map_parameters(lambda array: backend.asarray(array, self.settings.dtype), host)

    def __str__(self) -> str:
        sizes = "-".join(map(str, self.layer_sizes))
        batch, dtype = self.settings.batch_size, self.settings.dtype
        return f"{self.name}: {sizes}, batch {batch}, {self.n_steps} steps an epoch, {dtype}, on {self.data.name}"


def lab(dtype: str) -> Workload:
    """Return the lab on MNIST's 48,000 training rows, or on random bytes where MNIST is not on this machine."""
    if mnist.available():
        data = load("mnist").split().train
    else:
        words = np.asarray(np.random.PCG64(0).random_raw(48_000 * 98), dtype=np.uint64)
        pixels, labels = words.view(np.uint8).reshape(48_000, 784), np.arange(48_000) % 10
        data = Dataset("random bytes (no MNIST here)", pixels, labels, 10, 1 / 256)
    return Workload("lab", replace(PRESETS["lab"], dtype=dtype), data)


WORKLOADS: dict[str, Callable[[str], Workload]] = {"lab": lab}
"""Name -> the workload, made from the dtype's name."""


class Contender(Protocol):
    """Something that trains a workload's network, or does a part of that; made once, then timed by the epoch."""

    name: str
    device: str  # such as "cpu" or "cuda:0"
    description: dict[str, Any]  # versions, threads and whatever else may decide its speed

    def epoch(self, number: int) -> None:
        """Do an epoch's work, the host's part included, and return when the device is done."""


class Project:
    """One of this project's backends: an epoch of `mlp_xp.training`, without the evaluation."""

    def __init__(self, backend_name: str, workload: Workload, **change: str) -> None:
        settings = replace(workload.settings, **change)  # type: ignore[arg-type]
        self.trainer = Trainer(settings, workload.data, open_backend(backend_name))
        self.name = " ".join(["mlp_xp", backend_name, *filter(None, change.values())])
        self.description = self.trainer.backend.describe()
        self.device = self.description["device"]

    def epoch(self, number: int) -> None:
        """Draw the order, train, and fetch every batch's loss."""
        self.trainer.run_epoch(number)
        self.trainer.backend.synchronize()


class PyTorchEager:
    """PyTorch as its tutorials write it, with the data on the device as floats beforehand."""

    name = "PyTorch eager"

    def __init__(self, workload: Workload) -> None:
        import torch

        self.torch, self.workload = torch, workload
        self.device = "cuda:0" if torch.cuda.is_available() else "cpu"
        kind = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        self.description = {"torch": torch.__version__, "device_kind": kind, "threads": torch.get_num_threads()}
        place = {"dtype": getattr(torch, workload.settings.dtype), "device": self.device}
        self.features = torch.tensor(workload.data.features, **place) * workload.data.scale
        self.labels = torch.tensor(workload.data.targets, dtype=torch.int64, device=self.device)
        modules: list[Any] = []
        for n_in, n_out in pairwise(workload.layer_sizes):
            modules += [torch.nn.Linear(n_in, n_out, **place), torch.nn.ReLU()]
        self.model = torch.nn.Sequential(*modules[:-1])  # the last layer gives logits
        self.loss_function = torch.nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=workload.settings.learning_rate)

    def epoch(self, number: int) -> None:  # noqa: ARG002 - PyTorch draws the order
        """Train on shuffled batches and fetch the mean loss."""
        batch_size, n_steps = self.workload.settings.batch_size, self.workload.n_steps
        order = self.torch.randperm(len(self.labels), device=self.device)[: n_steps * batch_size]
        running_loss = self.torch.zeros((), device=self.device)
        for rows in order.split(batch_size):
            self.optimizer.zero_grad()
            loss = self.loss_function(self.model(self.features[rows]), self.labels[rows])
            loss.backward()
            self.optimizer.step()
            running_loss += loss.detach()
        (running_loss / n_steps).item()  # waits for the device


class Floor:
    """The matrix products of an epoch alone, by one library on its device: what no training can do without."""

    def __init__(self, backend_name: str, workload: Workload) -> None:
        self.backend, self.n_steps = open_backend(backend_name), workload.n_steps
        self.name, self.description = f"floor {backend_name}", self.backend.describe()
        self.device = self.description["device"]
        weights = [layer.weight for layer in workload.parameters(self.backend)]
        rows = workload.data.features[: workload.settings.batch_size].astype(np.float64) * workload.data.scale
        self.operands = self.backend.asarray(rows, workload.settings.dtype), weights
        self.matmuls = partial(matmuls, self.backend.xp)
        if backend_name == "jax":  # uncompiled, JAX would spend its time on the host
            import jax

            self.matmuls = jax.jit(self.matmuls)

    def epoch(self, number: int) -> None:  # noqa: ARG002 - every epoch is the same
        """Multiply, once for every step."""
        for _ in range(self.n_steps):
            products = self.matmuls(*self.operands)
        self.backend.to_host(products[-1][0, 0])  # waits for the device, which works in order
        self.backend.synchronize()


def matmuls(xp: Namespace, features: Array, weights: Sequence[Array]) -> list[Array]:
    """Return every matrix product of a training step and nothing else: eight for three layers."""
    inputs = [features]
    for weight in weights:
        inputs.append(xp.matmul(inputs[-1], weight))
    products, delta = inputs[1:], inputs[-1]
    for i in reversed(range(len(weights))):
        products.append(xp.matmul(xp.matrix_transpose(inputs[i]), delta))
        if i > 0:
            delta = xp.matmul(delta, xp.matrix_transpose(weights[i]))
            products.append(delta)
    return products


CONTENDERS: Mapping[str, Callable[[Workload], Contender]] = {
    **{name: partial(Project, name) for name in list_backends()},
    **{f"{name}-exact": partial(Project, name, arithmetic="exact", dtype="") for name in list_backends()},
    **{f"{name}-float32": partial(Project, name, dtype="float32") for name in list_backends()},
    "pytorch-eager": PyTorchEager,
    **{f"floor-{name}": partial(Floor, name) for name in list_backends()},
}
"""Name on the command line -> the contender, made from a workload."""
