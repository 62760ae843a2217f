"""Whether a device computes exactly: one whole step at worst-case values, whose bits are known."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from mlp_xp.arithmetic import Arithmetic, make_arithmetic
from mlp_xp.backend import Backend
from mlp_xp.batches import DeviceData
from mlp_xp.checkpoint import host_tensors
from mlp_xp.digests import digest_arrays
from mlp_xp.errors import BackendUnavailable
from mlp_xp.network import Layer, Network, map_parameters
from mlp_xp.objective import Objective
from mlp_xp.optimizers import Adam
from mlp_xp.randomness import Stream, uniform
from mlp_xp.step import TrainingStep

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYER_SIZES, ROWS = (784, 256, 256, 10), 200
"""The lab's."""

DIGEST = "1c36aaf12bb76f63709d56bfbe877091416a9de571bc1cbe5df68ca055e72395"
"""Of the loss, the parameters and Adam's state after the step: one and the same on all libraries that were tried."""

_passed: set[tuple[str, str]] = set()


def open_arithmetic(name: str, backend: Backend, dtype: str) -> Arithmetic:
    """Return the arithmetic of that name; a device's first exact one is preceded by a self-test.

    Raises
    ------
    BackendUnavailable
        If the device does not compute exactly.
    """
    if name == "exact":
        require_exact(backend)
    return make_arithmetic(name, backend, dtype)


def require_exact(backend: Backend) -> None:
    """Refuse a device that does not compute exactly; every device is tried once.

    Raises
    ------
    BackendUnavailable
        If the self-test's step leaves other bits.
    """
    device = (backend.name, str(backend.describe()["device"]))
    if device in _passed:
        return
    if exact_digest(backend) != DIGEST:
        raise BackendUnavailable(
            f"backend {device[0]!r} on {device[1]} does not compute exactly: a training step with known bits gave "
            "others; use another backend or device, or --arithmetic native"
        )
    _passed.add(device)


def exact_digest(backend: Backend) -> str:
    """Return the digest of what one exact step leaves.

    All operands have all the bits they may have, are near their largest magnitude and of one sign, so that the sums
    come near 2**53: a product in less than float64, or with a sum that rounds, shows. The step takes every function
    that exact arithmetic has, and the shapes are the lab's, at which libraries use the kernels made for real work.
    """
    arithmetic = make_arithmetic("exact", backend, "float64")
    parameters = tuple(
        Layer(_near(2.0 / n_in, (n_in, n_out), i), _near(0.5, (n_out,), i + len(LAYER_SIZES)))
        for i, (n_in, n_out) in enumerate(pairwise(LAYER_SIZES))
    )
    start = map_parameters(backend.asarray, parameters)
    features = arithmetic.round_activation(backend.asarray(_near(1.0, (ROWS, LAYER_SIZES[0]), 2 * len(LAYER_SIZES))))
    rows = DeviceData(features, backend.asarray(np.zeros(ROWS, np.int32)))  # one class: all gradients of one sign
    optimizer = Adam(0.01)
    step = TrainingStep(Objective(Network(LAYER_SIZES, "tanh"), "cross_entropy", 0.01), optimizer, 1.0, arithmetic)
    order = backend.asarray(np.arange(ROWS, dtype=np.int32)[None])
    (after, state), (loss,) = backend.scan(step, (start, optimizer.init(start, arithmetic)), (order,), rows)
    return digest_arrays({**host_tensors(after, state, backend), "loss": backend.to_host(loss)})


def describe_erased(limits: NDArray[np.float64], rounded: NDArray[np.float64]) -> str | None:
    """Return what to say of features that vary no longer once they are rounded relative to the largest of all.

    Rounding keeps the order of numbers: what a column's least and greatest become are the limits of the rounded column.

    Parameters
    ----------
    limits, rounded : ndarrays of float64, shape (2, n_features)
        Every column's least and greatest number, before and after.
    """
    spread = limits[1] - limits[0]
    erased = np.flatnonzero((rounded[0] == rounded[1]) & (spread > 0))
    if not erased.size:
        return None
    column, largest = erased[0], np.max(np.abs(limits))
    return (
        f"column {column}, counted from 0, varies by {spread[column]:.3g}, but the largest feature of all is "
        f"{largest:.3g}: rounded to the bits of exact arithmetic, {erased.size} such columns are constant; "
        "standardise the columns, clip what is far off"
    )


def _near(bound: float, shape: tuple[int, ...], index: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return numbers in (1 - 1/256, 1) × bound."""
    return bound * (1.0 - 2.0**-9 * (1.0 + uniform(shape, 1.0, 0, Stream.WEIGHT, index)))
