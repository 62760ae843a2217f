"""Reading a run folder: every file is a stranger's until it was looked at."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import re
import reprlib
import shlex
from array import array
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlp_xp.backend import Backend
from mlp_xp.datasets.dataset import Dataset
from mlp_xp.datasets.source import DataSource
from mlp_xp.digests import Digests
from mlp_xp.errors import RunError
from mlp_xp.exactness import open_arithmetic
from mlp_xp.model import Model
from mlp_xp.network import Layer, NormalizedLayer, Parameters, map_parameters
from mlp_xp.reading import open_regular, read_bytes
from mlp_xp.run_folder import (
    CHECKPOINTS,
    CURVE,
    FORMAT,
    MOST_SEEDS,
    REPLICA,
    REPLICAS,
    RUN,
    STEPS,
    STEPS_HEADER,
    WEIGHTS,
    checkpoint_path,
    resume_command,
)
from mlp_xp.settings import Settings
from mlp_xp.tensor_files import read_tensor_file
from mlp_xp.trainer import make_objective

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS: dict[str, tuple[type, ...]] = {
    "epoch": (int,),
    "loss": (float,),
    "test_loss": (float,),
    "accuracy": (float, type(None)),
    "seconds": (float,),
    **{f"sha256_{name}": (str,) for name in Digests._fields},
}
"""What a line of ``curve.jsonl`` must have, and of which types."""
DIGEST = re.compile("[0-9a-f]{64}")
REMEDY = "restore the file from a copy, or train again"
MEND = "mend that, then try again"
"""What to do where a permission is lost, a disk does not answer, or too many files are open."""
MOST_OF_A_DESCRIPTION = 1 << 20
"""Bytes; ours has two thousand. What Python makes of any JSON has up to thirty times as many."""
MOST_OF_A_HEADER = 1 << 20
"""Bytes, of a file of tensors; ours have a hundred per tensor."""
MOST_OF_A_LINE = 1 << 16
"""Bytes; ours have five hundred."""
MOST_OF_A_MESSAGE = 500
"""Characters that are said of a file: it may itself be what an error quotes."""


@contextlib.contextmanager
def suggesting_resume(folder: Path) -> Iterator[None]:
    """Add to the errors about a run's files that going on with the run may mend them, unless they cannot be read now.

    Raises
    ------
    RunError
    """
    try:
        yield
    except RunError as error:
        raise_passing(error)
        if not _is_described(folder):
            raise
        raise RunError(f"{error}; if it was interrupted, go on with: {resume_command(folder)}") from error


def _is_described(folder: Path) -> bool:
    try:
        read_description(folder)
    except RunError:
        return False
    return True


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
        raise unusable(folder / RUN, f"not a run's description: {error} is missing") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise unusable(folder / RUN, f"not a run's description: {error}") from error
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
        return _read_description(folder / RUN)
    except NotADirectoryError:
        raise RunError(f"{folder} is not a run's folder, but a file; give the folder that train --out made") from None
    except FileNotFoundError:
        if replicas := sorted(path.parent.name for path in folder.glob(f"{REPLICA}*/{RUN}")):
            raise RunError(f"{folder} holds a run per seed; give one of them, such as {folder / replicas[0]}") from None
        raise RunError(
            f"{folder} holds no run ({RUN} is missing); make one with: mlp-xp train --out {shlex.quote(str(folder))}"
        ) from None


def read_replicas(folder: Path) -> dict[str, Any]:
    """Return what ``replicas.json`` holds, which must be there.

    Raises
    ------
    RunError
        If it is not a description of replicas.
    """
    description = _read_description(folder / REPLICAS)
    seeds = description.get("seeds")
    if not isinstance(seeds, list) or not seeds or any(type(seed) is not int for seed in seeds):
        raise unusable(folder / REPLICAS, f"'seeds' is {reprlib.repr(seeds)}, not a list of whole numbers")
    if any(after != before + 1 for before, after in pairwise(seeds)):
        raise unusable(folder / REPLICAS, f"'seeds' is {reprlib.repr(seeds)}, which do not follow each other")
    if len(seeds) > MOST_SEEDS:
        raise unusable(folder / REPLICAS, f"it has {len(seeds):,} seeds, more than {MOST_SEEDS:,}")
    return description


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(read_bytes(path, MOST_OF_A_DESCRIPTION).decode())
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, error) from error
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise unusable(path, f"not a run's description of format {FORMAT}")
    for name in ("settings", "data", "backend"):
        if not isinstance(found := description.get(name, {}), dict):
            raise unusable(path, f"not a run's description: {name!r} is {reprlib.repr(found)}, not an object")
    return description


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors of a safetensors file; raises as `read_safetensors`."""
    tensors, _ = read_safetensors(path)
    return tensors


def read_safetensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the tensors of a safetensors file, and its metadata.

    Raises
    ------
    RunError
        If it is missing or damaged.
    """
    try:
        return read_tensor_file(path, MOST_OF_A_HEADER)
    except FileNotFoundError:
        raise RunError(f"{path} is missing: no epoch of this run was finished, or it was removed; {REMEDY}") from None
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


@contextlib.contextmanager
def understanding(path: Path, kind: str) -> Iterator[None]:
    """Turn what a description raises that is not of the kind into the error that says so.

    Raises
    ------
    RunError
    """
    try:
        yield
    except KeyError as error:
        raise unusable(path, f"not the description of {kind}: {error} is missing") from error
    except RunError:
        raise
    except (TypeError, ValueError, OverflowError, AttributeError) as error:  # a SettingsError is a ValueError
        raise unusable(path, f"not a run's description: {error}") from error


def read_source(description: Mapping[str, Any]) -> DataSource | None:
    """Return where a run's data came from; None if they were arrays of a program's own."""
    source = description["data"]["source"]
    return None if source is None else DataSource.from_dict(source)


def known_source(folder: Path, source: DataSource | None, remedy: str) -> DataSource:
    """Return where a run's data came from.

    Raises
    ------
    RunError
        If it does not say.
    """
    if source is None:
        raise RunError(
            f"{folder}: the run does not say where its data are from, as it was trained on arrays of a program's own; "
            f"{remedy}"
        )
    return source


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
        names = {path.name for path in (folder / CHECKPOINTS).iterdir()}
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(folder / CHECKPOINTS, error) from error
    epochs = {int(number) for name in names for number in re.findall(r"^epoch-([0-9]+)\.safetensors$", name)}
    return sorted(epoch for epoch in epochs if checkpoint_path(folder, epoch).name in names)


def read_curve(folder: Path, n_epochs: int | None = None) -> list[dict[str, Any]]:
    """Return the lines of ``curve.jsonl``.

    Parameters
    ----------
    folder : path
    n_epochs : int, optional
        Look at so many lines alone: of a training that stopped at once, the last may be broken off.

    Raises
    ------
    RunError
        If it is missing, a line is not an epoch's record, or there are fewer.
    """
    rows: list[dict[str, Any]] = []
    if n_epochs == 0:
        return rows
    for number, line in _read_lines(folder / CURVE):
        rows.append(_read_row(line, f"{folder / CURVE}, line {number}"))
        if number == n_epochs:
            return rows
    if n_epochs is not None:
        raise unusable(folder / CURVE, f"it has {len(rows)} lines, fewer than the {n_epochs} epochs of a checkpoint")
    return rows


def _read_row(line: str, place: str) -> dict[str, Any]:
    """Return an epoch's record, with what is known to be in one."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:  # whose own text counts lines within this one
        raise unusable(place, f"cannot be read: {error.msg} (column {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise unreadable(place, error) from error
    if not isinstance(row, dict):
        raise unusable(place, "not an epoch's record")
    for name, types in COLUMNS.items():
        if name not in row:
            raise unusable(place, f"{name!r} is missing")
        value = row[name]
        is_of_kind = type(value) in types and (not isinstance(value, float) or math.isfinite(value))
        if not is_of_kind or (isinstance(value, int) and value.bit_length() > 63):
            wanted = {int: "a whole number", float: "a finite float", str: "a text"}[types[0]]
            raise unusable(place, f"{name!r} is {reprlib.repr(value)}, not {wanted}")
        if isinstance(value, str) and not DIGEST.fullmatch(value):
            raise unusable(place, f"{name!r} is {reprlib.repr(value)}, not 64 hexadecimal digits")
    return {name: row[name] for name in COLUMNS}  # with one text per name for all lines


class Steps(NamedTuple):
    """The lines of ``steps.csv``, each column of shape (n_steps,)."""

    epochs: NDArray[np.int32]
    numbers: NDArray[np.int32]
    losses: NDArray[np.float64]

    def of_epoch(self, epoch: int) -> NDArray[np.float64]:
        """Return an epoch's batch losses, if the epochs ascend."""
        first, end = np.searchsorted(self.epochs, [epoch, epoch + 1])
        return self.losses[first:end]


def read_steps(folder: Path, n_epochs: int | None = None) -> Steps:
    """Return the lines of ``steps.csv``.

    Parameters
    ----------
    folder : path
    n_epochs : int, optional
        Look at the lines of so many epochs alone, as in `read_curve`.

    Raises
    ------
    RunError
        If it is missing, or a line is not a step's record.
    """
    if n_epochs == 0:
        return Steps(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0))
    path, lines = folder / STEPS, _read_lines(folder / STEPS)
    _, header = next(lines, (1, ""))
    if header != STEPS_HEADER:
        raise unusable(f"{path}, line 1", f"{reprlib.repr(header)} is not {STEPS_HEADER!r}")
    epochs, numbers, losses = array("i"), array("i"), array("d")  # as small in memory as the shortest lines in the file
    for number, line in lines:
        try:
            if len(cells := line.split(",")) != 3:
                raise ValueError(f"{len(cells)} columns")
            epoch, step, loss = int(cells[0]), int(cells[1]), float(cells[2])
            if not math.isfinite(loss):
                raise ValueError(f"the loss is {loss}")
            if n_epochs is not None and epoch >= n_epochs:
                break
            if len(cells[2]) < 3:
                raise ValueError(f"the loss is {cells[2]!r}, not a float such as 1.0")
            epochs.append(epoch)
            numbers.append(step)
            losses.append(loss)
        except (ValueError, OverflowError) as error:
            raise unusable(f"{path}, line {number}", f"not a step's record: {error}") from error
    return Steps(np.asarray(epochs, np.int32), np.asarray(numbers, np.int32), np.asarray(losses, np.float64))


def unusable(place: object, problem: str) -> RunError:
    """Return the error to raise for a file, or a line of it, that is not as a training writes it."""
    if len(problem) > MOST_OF_A_MESSAGE:
        problem = f"{problem[:MOST_OF_A_MESSAGE]}…"
    return RunError(f"{place}: {problem}; {REMEDY}")


def unreadable(place: object, error: Exception) -> RunError:
    """Return the error to raise for a file that cannot be read, or a line of it."""
    problem = f"cannot be read: {(isinstance(error, OSError) and error.strerror) or error}"
    return RunError(f"{place}: {problem}; {MEND}") if _is_passing(error) else unusable(place, problem)


def _is_passing(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno not in (None, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)


def count_lines(path: Path) -> int:
    """Return how many whole lines a file has; 0 if it is missing.

    Raises
    ------
    RunError
        If it cannot be read.
    """
    try:
        with open_regular(path) as file:
            return sum(piece.count(b"\n") for piece in iter(lambda: file.read(1 << 16), b""))
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise unreadable(path, error) from error


def raise_passing(error: RunError) -> None:
    """Raise an error again if a file could not be read for a reason that is not in the file.

    Raises
    ------
    RunError
    """
    if _is_passing(error.__cause__):
        raise error


def _read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield a file's lines with their numbers from 1."""
    try:
        with open_regular(path) as file:
            number = 1
            while line := file.readline(MOST_OF_A_LINE + 1):
                if len(line) > MOST_OF_A_LINE:
                    problem = f"cannot be read: it has more than {MOST_OF_A_LINE:,} bytes"
                    raise unusable(f"{path}, line {number}", problem)
                yield number, line.decode().rstrip("\r\n")
                number += 1
    except FileNotFoundError:
        raise RunError(f"{path} is missing: no epoch of this run was finished, or it was removed; {REMEDY}") from None
    except RunError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from error
