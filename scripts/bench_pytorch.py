"""PyTorch as its documentation writes a training: eagerly, compiled, and as a captured CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from bench_rounds import Contender
from bench_workloads import Workload
from mlp_xp.errors import BackendUnavailable


class PyTorch:
    """A network of `torch.nn` that starts from a workload's parameters; its rows are on the device, as floats.

    On an NVIDIA GPU if there is one. Float32 products are float32 products, which is PyTorch's default.
    """

    def __init__(self, workload: Workload, **sgd: Any) -> None:
        import torch

        self.torch, self.workload = torch, workload
        self.device = "cuda:0" if torch.cuda.is_available() else "cpu"
        kind = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        self.description = {"torch": torch.__version__, "device_kind": kind, "threads": torch.get_num_threads()}
        self.features = torch.from_numpy(workload.features).to(self.device)
        self.labels = torch.from_numpy(workload.labels).to(self.device)
        modules: list[Any] = []
        for n_in, n_out in pairwise(workload.layer_sizes):
            place = {"dtype": self.features.dtype, "device": self.device}
            modules += [torch.nn.Linear(n_in, n_out, **place), torch.nn.ReLU()]
        self.model = torch.nn.Sequential(*modules[:-1])  # the last layer gives logits
        with torch.no_grad():
            for linear, layer in zip(modules[::2], workload.parameters, strict=True):
                linear.weight.copy_(torch.from_numpy(layer.weight.T.copy()))
                linear.bias.copy_(torch.from_numpy(layer.bias))
        self.loss_function = torch.nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=workload.settings.learning_rate, **sgd)

    def step(self, rows: Any) -> Any:
        """Train on a batch and return its loss, on the device."""
        self.optimizer.zero_grad()
        loss = self.loss_function(self.model(self.features[rows]), self.labels[rows])
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def contender(self, name: str, step: Callable[[Any], Any]) -> Contender:
        """Return an epoch of steps on shuffled batches, whose mean loss is fetched at the end."""
        batch_size, n_steps = self.workload.settings.batch_size, self.workload.n_steps

        def epoch(_: int) -> float:
            running_loss = self.torch.zeros((), dtype=self.features.dtype, device=self.device)
            for rows in self.torch.randperm(len(self.labels), device=self.device).split(batch_size):
                running_loss += step(rows)
            return float(running_loss.item()) / n_steps  # waits for the device

        return Contender(name, "peer", self.device, epoch, self.description)


def eager(workload: Workload) -> Contender:
    """Return the loop of PyTorch's tutorials, with the optimiser that its documentation calls the fastest."""
    peer = PyTorch(workload, fused=True)
    return peer.contender("PyTorch eager", peer.step)


def compiled(workload: Workload) -> Contender:
    """Return the whole step compiled, as in the tutorial of `torch.compile`; on a GPU in its mode for small kernels."""
    peer = PyTorch(workload)
    peer.torch.compiler.reset()  # other workloads' compilations would count as variants of this one
    mode = "reduce-overhead" if peer.device != "cpu" else None
    return peer.contender("PyTorch compiled", peer.torch.compile(peer.step, dynamic=False, mode=mode))


def cuda_graphs(workload: Workload) -> Contender:
    """Return the whole step captured as a CUDA graph: its notes on CUDA semantics, "whole-network capture"."""
    peer = PyTorch(workload)  # on a GPU its optimiser updates all parameters at once by default
    torch = peer.torch
    if not torch.cuda.is_available():
        raise BackendUnavailable("CUDA graphs need a CUDA device")
    static_rows = torch.arange(workload.settings.batch_size, device=peer.device)
    start = [parameter.detach().clone() for parameter in peer.model.parameters()]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            peer.step(static_rows)
    torch.cuda.current_stream().wait_stream(side)
    peer.optimizer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        static_loss = peer.step(static_rows)
    with torch.no_grad():
        for parameter, value in zip(peer.model.parameters(), start, strict=True):
            parameter.copy_(value)

    def step(rows: Any) -> Any:
        static_rows.copy_(rows)
        graph.replay()
        return static_loss

    return peer.contender("PyTorch CUDA graphs", step)
