"""Where a training can go on: its parameters and its optimiser's state, by name, on the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlp_xp.array_types import Array, PyTree
from mlp_xp.backend import Backend
from mlp_xp.errors import RunError
from mlp_xp.network import Parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYERS, OPTIMIZER, TOP = "layers", "optimizer", "top"


class Position(NamedTuple):
    """How far a training is: which step is next.

    Attributes
    ----------
    epoch : int
        From 0.
    step : int
        From 0, of that epoch.
    pretrained : int
        Before the very first step: the epochs of a pre-training that are over.
    """

    epoch: int
    step: int
    pretrained: int = 0

    @property
    def is_between_epochs(self) -> bool:
        """Whether an epoch is over and the next one not begun."""
        return self.epoch > 0 and self.step == 0


BEGINNING = Position(0, 0)


@dataclass(frozen=True)
class Checkpoint:
    """A moment between two steps of a training.

    Attributes
    ----------
    epoch : int
        The last one that is over, from 0; -1 before the first is.
    chain : str
        That epoch's `mlp_xp.digests.Digests.chain`.
    tensors : mapping of ndarray
        As `host_tensors` gives them.
    losses : ndarray of float64, shape (n_steps,)
        Of the steps of the next epoch that are over, too.
    first_loss : float or None
        Of the training's very first step, by which it is judged whether the loss explodes; None if that is not known.
    pretrained : int
        As of `Position`. While other epochs of it are to come, the optimiser is that of the stage, and ``tensors`` has
        its last layer, too.
    beginning : Checkpoint or None
        Of a moment within an epoch: where that began, if it is known; a rollback goes there.
    """

    epoch: int
    chain: str
    tensors: Mapping[str, NDArray[Any]]
    losses: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    first_loss: float | None = None
    pretrained: int = 0
    beginning: Checkpoint | None = None

    @property
    def position(self) -> Position:
        """Where the training goes on."""
        return Position(self.epoch + 1, len(self.losses), self.pretrained)


def host_tensors(
    parameters: Parameters, optimizer_state: PyTree, backend: Backend, top: PyTree = None
) -> dict[str, NDArray[Any]]:
    """Return copies on the host, named "layers.0.weight", …, "optimizer.learning_rate", …, "top.weight", ….

    ``top`` is the last layer of a stage of a pre-training; else None.
    """
    tensors: dict[str, NDArray[Any]] = {}

    def keep(name: str, array: Array) -> Array:
        tensors[name] = np.array(backend.to_host(array))
        return array

    map_named(keep, parameters, LAYERS)
    map_named(keep, optimizer_state, OPTIMIZER)
    map_named(keep, top, TOP)
    return tensors


def device_tensors(
    tensors: Mapping[str, NDArray[Any]],
    parameters: Parameters,
    optimizer_state: PyTree,
    backend: Backend,
    dtype: str,
    top: PyTree = None,
) -> tuple[Parameters, PyTree, PyTree]:
    """Return what `host_tensors` kept, on the device and in the given trees' structure.

    Raises
    ------
    RunError
        If a tensor is missing or has no place in the trees, or is not of its place's shape and of ``dtype``.
    """
    remedy = "give the settings and the data that it was made with"
    names = set()

    def restore(name: str, like: Array) -> Array:
        if name not in tensors:
            raise RunError(f"the checkpoint holds no tensor {name!r}; {remedy}")
        names.add(name)
        host, shape = tensors[name], tuple(like.shape)
        if host.shape != shape or host.dtype != dtype:
            found, wanted = f"{host.dtype} of shape {host.shape}", f"{dtype} of shape {shape}"
            raise RunError(f"the checkpoint's tensor {name!r} is {found}, not {wanted}; {remedy}")
        return backend.asarray(host.copy())  # a backend may take the memory as it is

    trees = {LAYERS: parameters, OPTIMIZER: optimizer_state, TOP: top}
    layers, state, last = (map_named(restore, tree, name) for name, tree in trees.items())
    if unknown := sorted(set(tensors) - names):
        raise RunError(f"the checkpoint holds {unknown[0]!r}, which has no place in this training; {remedy}")
    return layers, state, last


def select(tensors: Mapping[str, NDArray[Any]], part: str) -> dict[str, NDArray[Any]]:
    """Return the tensors of `LAYERS`, `OPTIMIZER` or `TOP` alone."""
    return {name: tensor for name, tensor in tensors.items() if name.startswith(f"{part}.")}


def stack(each: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Return the tensors of many networks side by side: with a leading axis, but for single numbers, which all share.

    Raises
    ------
    RunError
        If they do not have the same tensors, of the same shapes.
    """
    stacked = {}
    for name, first in each[0].items():
        try:
            tensors = [tensors[name] for tensors in each]
            stacked[name] = np.stack(tensors) if first.ndim else first
        except (KeyError, ValueError) as error:
            raise RunError(f"the checkpoints do not all hold a tensor {name!r} of the shape {first.shape}") from error
    return stacked


def unstack(tree: PyTree, n: int, backend: Backend) -> list[PyTree]:
    """Return the n trees that a tree holds along its arrays' first axis; each of them has all 0-d arrays."""
    slices: dict[str, Sequence[Array]] = {}

    def split(name: str, array: Array) -> Array:
        slices[name] = backend.xp.unstack(array) if array.ndim else (array,) * n
        return array

    map_named(split, tree, "")
    return [map_named(lambda name, _, i=i: slices[name][i], tree, "") for i in range(n)]  # type: ignore[misc]


def map_named(function: Callable[[str, Array], Array], tree: PyTree, name: str) -> PyTree:
    """Apply ``function(name, array)`` to every array of nested (named) tuples; None stays None.

    An array's name is the tree's and the field names and positions that lead to it, joined by dots.
    """
    if tree is None:
        return None
    if not isinstance(tree, tuple):
        return function(name, tree)
    keys = getattr(tree, "_fields", range(len(tree)))
    branches = [map_named(function, branch, f"{name}.{key}") for key, branch in zip(keys, tree, strict=True)]
    return type(tree)(*branches) if hasattr(tree, "_fields") else tuple(branches)
