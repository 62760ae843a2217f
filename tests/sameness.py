"""Short exact trainings and the digests they end with; ``python -m sameness`` writes those of this very process.

A process is started with whatever environment shall not matter: threads, kernels of a BLAS, a CPU's instructions.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields, replace
from typing import Any
from unittest import mock

import numpy as np
from threadpoolctl import threadpool_info

from mlp_xp.arithmetic import ARITHMETICS, Arithmetic
from mlp_xp.arithmetic.exact import Exact
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend, open_backend
from mlp_xp.datasets import load
from mlp_xp.errors import BackendUnavailable
from mlp_xp.settings import Settings
from mlp_xp.training import train

# Batches of 240 rows are large enough for a BLAS to share them out among threads, and can be among 4 or 8 devices.
SGD = Settings(hidden_layer_sizes=(64, 32), momentum=0.9, batch_size=240, epochs=2, arithmetic="exact")
ADAM = replace(
    SGD, activation="tanh", optimizer="adam", momentum=0.0, learning_rate=0.01, l2=0.001, max_gradient_norm=0.25
)
TRAININGS = {"sgd": SGD, "adam": ADAM}
# Not among them: a mask goes by the numbers of rows and units, so that their order matters.
DROPOUT = replace(SGD, dropout=0.3, max_gradient_norm=0.125)
# Nor is this: a unit's place is that of the unit it is added to.
DEEP = replace(
    SGD, hidden_layer_sizes=(32, 32, 32), activation="sigmoid", residual=True, batch_norm=True, pretrain="layerwise"
)
# As few steps and shapes as possible, since JAX compiles every operation by itself when it compiles no whole step.
FEW_STEPS = replace(ADAM, hidden_layer_sizes=(10,), batch_size=360, epochs=1, dropout=0.3)


class Unrounded(Exact):
    """Exact arithmetic without its rounding points: sums round again, and so depend on their order."""

    def round_activation(self, x: Array) -> Array:
        return x

    def round_gradient(self, x: Array) -> Array:
        return x

    def round_weight(self, x: Array) -> Array:
        return x

    def sum(self, x: Array, axis: int | tuple[int, ...], *, keepdims: bool = False) -> Array:
        return self.xp.sum(x, axis=axis, keepdims=keepdims)


@contextmanager
def rounding_switched_off() -> Iterator[None]:
    """Train without rounding points: the control, which must show differences."""

    def unrounded(backend: Backend, dtype: str) -> Arithmetic:
        arithmetic: Any = make(backend, dtype)
        return Unrounded(*(getattr(arithmetic, field.name) for field in fields(arithmetic)))

    make = ARITHMETICS["exact"]
    with mock.patch.dict(ARITHMETICS, exact=unrounded), mock.patch("mlp_xp.exactness.require_exact"):
        yield


def chain(settings: Settings, backend: Backend) -> str:
    """Return the digest of all that a training on the digits made."""
    *_, last = train(settings, load("digits").split(), backend)
    return last.digests.chain


def report(run: str) -> dict[str, str]:
    """Return the digests of a run: "backend", "backend@device", "backend unrounded" or "backend uncompiled"."""
    name, _, how = run.partition(" ")
    library, _, device = name.partition("@")
    try:
        backend = open_backend(library, device or None)
    except BackendUnavailable as error:
        return {"unavailable": str(error)}
    with mock.patch("mlp_xp.exactness.require_exact"):  # which has tests of its own
        if how == "uncompiled":
            with not_compiled(library):
                return {"few steps": chain(FEW_STEPS, backend)}
        if how == "unrounded":
            with rounding_switched_off():
                return {how: chain(SGD, backend)}
        trainings = {**TRAININGS, "dropout": DROPOUT, "deep": DEEP}
        return {training: chain(settings, backend) for training, settings in trainings.items()}


def not_compiled(name: str) -> AbstractContextManager[Any]:
    """Have JAX run one operation at a time, as the other libraries always do."""
    if name != "jax":
        return nullcontext()
    import jax

    context: AbstractContextManager[Any] = jax.disable_jit()
    return context


def processor() -> dict[str, Any]:
    """Return what NumPy and its BLAS make of the processor in this process."""
    blas = [info for info in threadpool_info() if info["user_api"] == "blas"]
    return {
        "features": np.show_config(mode="dicts")["SIMD Extensions"].get("found", []),
        "blas": [info["internal_api"] for info in blas],
        "kernels": [info.get("architecture") for info in blas],
        "threads": [info["num_threads"] for info in blas],
    }


if __name__ == "__main__":
    json.dump({"processor": processor(), "digests": {run: report(run) for run in sys.argv[1:]}}, sys.stdout)
