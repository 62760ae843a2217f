"""What contenders train: the same network with the same batch size, optimiser and dtype, on the same rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from bench_report import S_PER_EPOCH, Unit
from mlp_xp.datasets import Dataset, load, mnist
from mlp_xp.initializers import initial_parameters
from mlp_xp.network import Parameters, map_parameters
from mlp_xp.settings import PRESETS, Settings
from mlp_xp.trainer import make_objective

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Workload:
    """A training by plain SGD; a last, partial batch of the rows is left out by everyone."""

    name: str
    settings: Settings
    data: Dataset
    per_step: bool = False

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """Number of inputs, of units in each hidden layer, and of outputs."""
        return make_objective(self.settings, self.data).network.layer_sizes

    @property
    def n_steps(self) -> int:
        """Batches of an epoch."""
        return self.data.n_samples // self.settings.batch_size

    @property
    def n_rows(self) -> int:
        """Rows in the batches of an epoch."""
        return self.n_steps * self.settings.batch_size

    @property
    def unit(self) -> Unit:
        """What people read times in."""
        return Unit("us per step", 1e6 / self.n_steps) if self.per_step else S_PER_EPOCH

    @cached_property
    def features(self) -> NDArray[Any]:
        """The rows of an epoch's batches as floats on the host: what a peer is given beforehand; not to be written."""
        rows: NDArray[Any] = self.data.features[: self.n_rows]
        return rows.astype(self.settings.dtype) * self.data.scale

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """The classes of those rows."""
        return self.data.targets[: self.n_rows].astype(np.int64)

    @property
    def parameters(self) -> Parameters:
        """The parameters that everyone starts from, on the host."""
        host = initial_parameters(self.layer_sizes, self.settings.init, self.settings.seed)
        return map_parameters(lambda array: array.astype(self.settings.dtype), host)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it; the data are named, not included."""
        return {
            "data": self.data.name,
            "layer_sizes": self.layer_sizes,
            "n_rows": self.n_rows,
            "n_steps": self.n_steps,
            "settings": self.settings.to_dict(),
        }

    def __str__(self) -> str:
        sizes = "-".join(map(str, self.layer_sizes))
        if len(self.layer_sizes) > 6:  # many hidden layers of one size
            first, width, *others, last = self.layer_sizes
            sizes = f"{first}-{width} ({len(others) + 1} times)-{last}"
        batch, dtype = self.settings.batch_size, self.settings.dtype
        return f"{self.name}: {sizes}, batch {batch}, {self.n_steps} steps an epoch, {dtype}, on {self.data.name}"


def random_rows(n_rows: int, n_features: int, n_classes: int) -> Dataset:
    """Return bytes that are the same everywhere, labelled in turns."""
    n_words = -(-n_rows * n_features // 8)
    words = np.asarray(np.random.PCG64(0).random_raw(n_words), dtype="<u8")
    features = words.view(np.uint8)[: n_rows * n_features].reshape(n_rows, n_features)
    return Dataset("random bytes", features, np.arange(n_rows) % n_classes, n_classes, 1 / 256)


def images(*, test: bool = False) -> Dataset:
    """Return MNIST's 48,000 training or 12,000 test rows, or random bytes where MNIST is not on this machine."""
    if mnist.available():
        split = load("mnist").split()
        return split.test if test else split.train
    return replace(random_rows(12_000 if test else 48_000, 784, 10), name="random bytes (no MNIST here)")


def lab(dtype: str) -> Workload:
    """Return the lab."""
    return Workload("lab", replace(PRESETS["lab"], dtype=dtype), images())


def tiny(dtype: str) -> Workload:
    """Return a network so small that what surrounds the arithmetic decides."""
    settings = replace(PRESETS["lab"], hidden_layer_sizes=(64,), batch_size=32, dtype=dtype)
    return Workload("tiny", settings, random_rows(6_400, 20, 2), per_step=True)


def wide(dtype: str) -> Workload:
    """Return a network so large that nothing but its products should count."""
    settings = replace(PRESETS["lab"], hidden_layer_sizes=(4096, 4096), batch_size=1024, dtype=dtype)
    return Workload("wide", settings, images().take(np.arange(4 * 1024)))


def deep(dtype: str) -> Workload:
    """Return a network of many layers."""
    settings = replace(PRESETS["lab"], hidden_layer_sizes=(128,) * 20, dtype=dtype)
    return Workload("deep", settings, images().take(np.arange(12_000)))


def evaluation(dtype: str) -> Workload:
    """Return the lab's network and the rows that it is evaluated on after an epoch."""
    return Workload("evaluation", replace(PRESETS["lab"], dtype=dtype), images(test=True))
