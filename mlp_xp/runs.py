"""A run folder: what was trained, on what, and how it went, in files that need no mlp_xp to be read.

``run.json``            settings, versions, the backend, the data's source, shape and SHA-256
``curve.jsonl``         a line per epoch: epoch, loss, test_loss, accuracy, seconds
``steps.csv``           every batch's loss: epoch, step, loss
``weights.safetensors`` the parameters after the last finished epoch: ``layers.0.weight``, ``layers.0.bias``, …
``loss.png``            the picture
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy

import mlp_xp
from mlp_xp.arithmetic import make_arithmetic
from mlp_xp.backend import Backend
from mlp_xp.datasets.dataset import Dataset, Split
from mlp_xp.datasets.source import DataSource
from mlp_xp.errors import RunError
from mlp_xp.files import make_folder, write_atomically, writing
from mlp_xp.model import Model
from mlp_xp.network import Layer, map_parameters
from mlp_xp.settings import Settings
from mlp_xp.training import Epoch, make_objective

if TYPE_CHECKING:
    from numpy.typing import NDArray

RUN, CURVE, STEPS, WEIGHTS, PICTURE = (
    "run.json",
    "curve.jsonl",
    "steps.csv",
    "weights.safetensors",
    "loss.png",
)
FORMAT = 1


def record(
    folder: Path | str,
    settings: Settings,
    data: Split,
    backend: Backend,
    epochs: Iterable[Epoch],
    *,
    source: DataSource | None = None,
    overwrite: bool = False,
) -> Iterator[Epoch]:
    """Write a run folder while a training goes on, and hand every epoch on.

    The folder is made, ``run.json`` written and an old run's other files removed by this call itself; the rest follows
    as epochs are drawn from the iterator it returns.

    Parameters
    ----------
    folder : path
        Made if need be.
    settings, data, backend
        What `mlp_xp.training.train` was given.
    epochs : iterable of Epoch
        What it returned.
    source : DataSource, optional
        What ``data`` were loaded from, so that they can be loaded again; None for arrays of one's own.
    overwrite : bool
        Whether a run that is already there may be replaced. It is gone as soon as this call returns, not only when
        the new one has finished an epoch; if ``run.json`` cannot be written, it stays as it was.

    Raises
    ------
    RunError
        If the folder holds a run already, or cannot be written.
    """
    folder = Path(folder)
    with writing(folder):
        taken = any((folder / name).exists() for name in (RUN, CURVE, STEPS, WEIGHTS, PICTURE))
    if taken and not overwrite:
        raise RunError(f"{folder} already holds a run; choose another --out, or replace it with --overwrite")
    train = data.train
    description = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "mlp_xp": mlp_xp.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "backend": {"name": backend.name, **backend.describe()},
        "settings": settings.to_dict(),
        "data": {
            "name": train.name,
            "source": None if source is None else source.to_dict(),
            "n_train": train.n_samples,
            "n_test": data.test.n_samples,
            "n_features": train.n_features,
            "n_classes": train.n_classes,
            "scale": train.scale,
            "sha256_train": train.digest(),
            "sha256_test": data.test.digest(),
        },
    }
    with writing(folder):
        make_folder(folder)
        write_atomically(folder / RUN, (json.dumps(description, indent=2) + "\n").encode())
        for name in (CURVE, STEPS, WEIGHTS, PICTURE):  # only now: on a full disk, an old run is still whole
            (folder / name).unlink(missing_ok=True)
        (folder / STEPS).write_text("epoch,step,loss\n", encoding="utf-8")
    return _record_epochs(folder, f"{train.name} on {backend.name}", epochs)


def _record_epochs(folder: Path, title: str, epochs: Iterable[Epoch]) -> Iterator[Epoch]:
    curve: list[dict[str, Any]] = []
    step_losses: list[NDArray[np.float64]] = []
    try:
        for epoch in epochs:
            with writing(folder):
                _record_epoch(folder, epoch)
            curve.append(epoch.row())
            step_losses.append(epoch.step_losses)
            yield epoch
    finally:
        if curve:
            from mlp_xp.plots import plot_run, png  # matplotlib is slow to import, and comes last

            with writing(folder):
                write_atomically(folder / PICTURE, png(plot_run(np.concatenate(step_losses), curve, title)))


def _record_epoch(folder: Path, epoch: Epoch) -> None:
    tensors = {
        f"layers.{i}.{name}": np.ascontiguousarray(array)  # safetensors would write a strided array wrongly
        for i, layer in enumerate(epoch.model.host_parameters())
        for name, array in layer._asdict().items()
    }
    write_atomically(folder / WEIGHTS, safetensors.numpy.save(tensors))
    with (folder / STEPS).open("a", encoding="utf-8") as file:
        file.writelines(f"{epoch.epoch},{step},{loss!r}\n" for step, loss in enumerate(epoch.step_losses.tolist()))
    with (folder / CURVE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(epoch.row()) + "\n")


def load_model(folder: Path | str, backend: Backend) -> Model:
    """Return a recorded run's network on a backend, whichever trained it.

    Raises
    ------
    RunError
        If a file is missing or does not hold what a run's file holds.
    """
    folder = Path(folder)
    description = _read_description(folder)
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
    arithmetic = make_arithmetic(settings.arithmetic, backend.xp, settings.dtype, backend.device)
    return Model(objective, parameters, data.scale, data.n_classes, backend, arithmetic, settings.dtype)


def _stand_in(description: dict[str, Any], n_outputs: int) -> Dataset:
    """Return one row that has the shape, classes and scale of a run's data: what a network is made for."""
    n_features, n_classes = int(description["n_features"]), description["n_classes"]
    targets = np.zeros((1, n_outputs)) if n_classes is None else np.zeros(1, np.int32)
    return Dataset("data", np.broadcast_to(0.0, (1, n_features)), targets, n_classes, description["scale"])


def _read_description(folder: Path) -> dict[str, Any]:
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


def _read_layers(path: Path, n_layers: int) -> tuple[Layer, ...]:
    try:
        tensors = safetensors.numpy.load_file(path)
    except FileNotFoundError:
        raise RunError(f"{path} is missing: no epoch of this run was finished") from None
    except (OSError, safetensors.SafetensorError, AttributeError, KeyError, TypeError) as error:
        # The last three are what versions of safetensors raise for a type that NumPy does not have.
        raise RunError(f"{path}: cannot be read: {error}") from error
    try:
        return tuple(Layer(tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"]) for i in range(n_layers))
    except KeyError as error:
        raise RunError(f"{path}: the tensor {error} is missing") from error
