"""Reading a run folder: every file is a stranger's until it was looked at."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy

from mlp_xp.backend import Backend
from mlp_xp.datasets.dataset import Dataset
from mlp_xp.digests import Digests
from mlp_xp.errors import RunError
from mlp_xp.exactness import open_arithmetic
from mlp_xp.model import Model
from mlp_xp.network import Layer, map_parameters
from mlp_xp.runs import CURVE, FORMAT, RUN, STEPS, WEIGHTS
from mlp_xp.settings import Settings
from mlp_xp.training import make_objective

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = ("epoch", "loss", "test_loss", "accuracy", *(f"sha256_{name}" for name in Digests._fields))
"""What a line of ``curve.jsonl`` must have."""


def load_model(folder: Path | str, backend: Backend) -> Model:
    """Return a recorded run's network on a backend, whichever trained it.

    Raises
    ------
    RunError
        If a file is missing or does not hold what a run's file holds.
    """
    folder = Path(folder)
    description = read_description(folder)
    try:
        settings = Settings.from_dict(description["settings"])
        layers = _read_layers(folder / WEIGHTS, len(settings.hidden_layer_sizes) + 1)
        data = _stand_in(description["data"], layers[-1].bias.size)
        objective = make_objective(settings, data)
    except KeyError as error:
        raise RunError(f"{folder / RUN}: not a run's description: {error} is missing") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise RunError(f"{folder / RUN}: not a run's description: {error}") from error
    for i, (layer, shape) in enumerate(zip(layers, pairwise(objective.network.layer_sizes), strict=True)):
        if layer.weight.shape != shape or layer.bias.shape != shape[1:]:
            raise RunError(
                f"{folder / WEIGHTS}: layer {i} has shapes {layer.weight.shape} and {layer.bias.shape}, "
                f"but {RUN} says {shape} and {shape[1:]}; give a folder whose files belong together"
            )
        if any(array.dtype != settings.dtype or not np.all(np.isfinite(array)) for array in layer):
            raise RunError(
                f"{folder / WEIGHTS}: layer {i} does not hold finite numbers of {settings.dtype}; train again"
            )
    parameters = map_parameters(lambda array: backend.asarray(array, settings.dtype), layers)
    arithmetic = open_arithmetic(settings, backend).for_inference()
    return Model(objective, parameters, data.scale, data.n_classes, backend, arithmetic, settings.dtype)


def _stand_in(description: dict[str, Any], n_outputs: int) -> Dataset:
    """Return one row that has the shape, classes and scale of a run's data: what a network is made for."""
    n_features, n_classes = int(description["n_features"]), description["n_classes"]
    targets = np.zeros((1, n_outputs)) if n_classes is None else np.zeros(1, np.int32)
    return Dataset("data", np.broadcast_to(0.0, (1, n_features)), targets, n_classes, description["scale"])


def read_description(folder: Path) -> dict[str, Any]:
    """Return what ``run.json`` holds.

    Raises
    ------
    RunError
        If it is missing or not a run's description.
    """
    try:
        description = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(
            f"{folder} holds no run ({RUN} is missing); make one with: mlp-xp train --out {folder}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{folder / RUN}: cannot be read: {error}") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise RunError(f"{folder / RUN}: not a run's description of format {FORMAT}")
    return description


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of a safetensors file.

    Raises
    ------
    RunError
        If it is missing or damaged.
    """
    try:
        tensors: dict[str, NDArray[Any]] = safetensors.numpy.load_file(path)
    except FileNotFoundError:
        raise RunError(f"{path} is missing: no epoch of this run was finished") from None
    except (OSError, safetensors.SafetensorError, AttributeError, KeyError, TypeError) as error:
        # The last three are what versions of safetensors raise for a type that NumPy does not have.
        raise RunError(f"{path}: cannot be read: {error}") from error
    return tensors


def _read_layers(path: Path, n_layers: int) -> tuple[Layer, ...]:
    tensors = read_tensors(path)
    try:
        return tuple(Layer(tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"]) for i in range(n_layers))
    except KeyError as error:
        raise RunError(f"{path}: the tensor {error} is missing") from error


def read_curve(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of ``curve.jsonl``.

    Raises
    ------
    RunError
        If it is missing, or a line is not an epoch's record.
    """
    path = folder / CURVE
    rows = []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RunError(f"{path}, line {number}: cannot be read: {error}") from error
        missing = [name for name in COLUMNS if not isinstance(row, dict) or name not in row]
        if missing:
            raise RunError(f"{path}, line {number}: {missing[0]!r} is missing")
        rows.append(row)
    return rows


def read_steps(folder: Path) -> dict[int, NDArray[np.float64]]:
    """Return every epoch's batch losses from ``steps.csv``.

    Raises
    ------
    RunError
        If it is missing, or a line is not a step's record.
    """
    path = folder / STEPS
    epochs: dict[int, list[float]] = {}
    for number, line in enumerate(_read_text(path).splitlines()[1:], start=2):
        try:
            epoch, step, loss = line.split(",")
            losses = epochs.setdefault(int(epoch), [])
            if int(step) != len(losses):
                raise ValueError(f"step {step} follows {len(losses) - 1}")
            losses.append(float(loss))
        except ValueError as error:
            raise RunError(f"{path}, line {number}: not a step's record: {error}") from error
    return {epoch: np.asarray(losses) for epoch, losses in epochs.items()}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RunError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from error
