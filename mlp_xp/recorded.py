"""Reading a run folder: every file is a stranger's until it was looked at."""

from __future__ import annotations

import json
import math
import re
import reprlib
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
from mlp_xp.network import Layer, NormalizedLayer, Parameters, map_parameters
from mlp_xp.run_folder import CHECKPOINTS, CURVE, FORMAT, REPLICA, RUN, STEPS, STEPS_HEADER, WEIGHTS, checkpoint_path
from mlp_xp.settings import Settings
from mlp_xp.trainer import make_objective

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS: dict[str, tuple[type, ...]] = {
    "epoch": (int,),
    "loss": (float,),
    "test_loss": (float,),
    "accuracy": (float, type(None)),
    **{f"sha256_{name}": (str,) for name in Digests._fields},
}
"""What a line of ``curve.jsonl`` must have, and of which types."""


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
        layers = _read_layers(folder / WEIGHTS, settings)
        data = _stand_in(description["data"], layers[-1].bias.size)
        objective = make_objective(settings, data)
    except KeyError as error:
        raise RunError(f"{folder / RUN}: not a run's description: {error} is missing") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise RunError(f"{folder / RUN}: not a run's description: {error}") from error
    for i, (layer, shape) in enumerate(zip(layers, pairwise(objective.network.layer_sizes), strict=True)):
        if layer.weight.shape != shape or any(array.shape != shape[1:] for array in layer[1:]):
            raise RunError(
                f"{folder / WEIGHTS}: layer {i} has shapes {layer.weight.shape} and {layer.bias.shape}, "
                f"but {RUN} says {shape} and {shape[1:]}; give a folder whose files belong together"
            )
        if any(array.dtype != settings.dtype or not np.all(np.isfinite(array)) for array in layer):
            raise RunError(
                f"{folder / WEIGHTS}: layer {i} does not hold finite numbers of {settings.dtype}; train again"
            )
        if isinstance(layer, NormalizedLayer) and np.any(layer.variance < 0):
            raise RunError(f"{folder / WEIGHTS}: layer {i} has running variances below 0; train again")
    parameters = map_parameters(lambda array: backend.asarray(array, settings.dtype), layers)
    arithmetic = open_arithmetic(settings.arithmetic, backend, settings.dtype).for_inference()
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
        if replicas := sorted(path.parent.name for path in folder.glob(f"{REPLICA}*/{RUN}")):
            raise RunError(f"{folder} holds a run per seed; give one of them, such as {folder / replicas[0]}") from None
        raise RunError(
            f"{folder} holds no run ({RUN} is missing); make one with: mlp-xp train --out {folder}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise unusable(folder / RUN, f"cannot be read: {error}") from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise unusable(folder / RUN, f"not a run's description of format {FORMAT}")
    for name in ("settings", "data", "backend"):
        if not isinstance(found := description.get(name, {}), dict):
            raise unusable(folder / RUN, f"not a run's description: {name!r} is {reprlib.repr(found)}, not an object")
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
        raise RunError(f"{path} is missing: no epoch of this run was finished; train again") from None
    except (OSError, safetensors.SafetensorError, AttributeError, KeyError, TypeError) as error:
        # The last three are what versions of safetensors raise for a type that NumPy does not have.
        raise unusable(path, f"cannot be read: {error}") from error
    return tensors


def _read_layers(path: Path, settings: Settings) -> Parameters:
    tensors, n_hidden = read_tensors(path), len(settings.hidden_layer_sizes)
    kinds = [NormalizedLayer if settings.batch_norm else Layer] * n_hidden + [Layer]
    try:
        return tuple(kind(*(tensors[f"layers.{i}.{name}"] for name in kind._fields)) for i, kind in enumerate(kinds))
    except KeyError as error:
        raise RunError(f"{path}: the tensor {error} is missing") from error


def list_checkpoints(folder: Path) -> list[int]:
    """Return the epochs after which a checkpoint was kept, in order.

    Raises
    ------
    RunError
        If the folder of checkpoints cannot be read.
    """
    try:
        paths = list((folder / CHECKPOINTS).iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unusable(folder / CHECKPOINTS, f"cannot be read: {error.strerror or error}") from error
    epochs = {int(number) for path in paths for number in re.findall(r"^epoch-([0-9]+)\.safetensors$", path.name)}
    return sorted(epoch for epoch in epochs if checkpoint_path(folder, epoch) in paths)


def read_curve(folder: Path, n_epochs: int | None = None) -> list[dict[str, Any]]:
    """Return the lines of ``curve.jsonl``.

    Raises
    ------
    RunError
        If it is missing, or a line is not an epoch's record.
    """
    path = folder / CURVE
    rows: list[dict[str, Any]] = []
    if n_epochs == 0:
        return rows
    for number, line in enumerate(_read_text(path).splitlines()[:n_epochs], start=1):
        place = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:  # whose own text counts lines within this one
            raise unusable(place, f"cannot be read: {error.msg} (column {error.colno})") from error
        except (ValueError, RecursionError) as error:
            raise unusable(place, f"cannot be read: {error}") from error
        if not isinstance(row, dict):
            raise unusable(place, "not an epoch's record")
        for name, types in COLUMNS.items():
            if name not in row:
                raise unusable(place, f"{name!r} is missing")
            if type(value := row[name]) not in types or (isinstance(value, float) and not math.isfinite(value)):
                wanted = {int: "a whole number", float: "a finite float", str: "a text"}[types[0]]
                raise unusable(place, f"{name!r} is {reprlib.repr(value)}, not {wanted}")
        rows.append(row)
    return rows


def read_steps(folder: Path) -> list[tuple[int, int, float]]:
    """Return the lines of ``steps.csv``: epoch, step, loss.

    Raises
    ------
    RunError
        If it is missing, or a line is not a step's record.
    """
    path = folder / STEPS
    header, *lines = _read_text(path).splitlines() or [""]
    if header != STEPS_HEADER:
        raise unusable(f"{path}, line 1", f"{reprlib.repr(header)} is not {STEPS_HEADER!r}")
    rows = []
    for number, line in enumerate(lines, start=2):
        try:
            if len(cells := line.split(",")) != 3:
                raise ValueError(f"{len(cells)} columns")
            row = int(cells[0]), int(cells[1]), float(cells[2])
            if not math.isfinite(row[2]):
                raise ValueError(f"the loss is {row[2]}")
        except ValueError as error:
            raise unusable(f"{path}, line {number}", f"not a step's record: {error}") from error
        rows.append(row)
    return rows


def unusable(place: object, problem: str) -> RunError:
    """Return the error to raise for a file, or a line of it, that is not as a training writes it."""
    return RunError(f"{place}: {problem}; restore the file from a copy, or train again")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RunError(
            f"{path} is missing: no epoch of this run was finished, or the file was removed; restore it from a copy, "
            "or train again"
        ) from None
    except (OSError, ValueError) as error:
        raise unusable(path, f"cannot be read: {error}") from error


def read_losses(folder: Path, n_epochs: int) -> list[NDArray[np.float64]]:
    """Return the batch losses of the first epochs."""
    losses: list[list[float]] = [[] for _ in range(n_epochs)]
    for line in _read_text(folder / STEPS).splitlines()[1:]:
        cells = line.split(",")
        if int(cells[0]) >= n_epochs:
            break
        losses[int(cells[0])].append(float(cells[2]))
    return [np.asarray(each) for each in losses]


def read_replicas(folder: Path) -> dict[str, Any]:
    """Return what ``replicas.json`` holds."""
    found: dict[str, Any] = json.loads((folder / "replicas.json").read_text(encoding="utf-8"))
    return found
