"""A run folder: what was trained, on what, and how it went, in files that need no mlp_xp to be read.

``run.json``            settings, versions, the backend, the data's source, shape and SHA-256
``curve.jsonl``         a line per epoch: epoch, loss, test_loss, accuracy, seconds, and a chain of SHA-256
``steps.csv``           every batch's loss: epoch, step, loss
``weights.safetensors`` the parameters after the last finished epoch: ``layers.0.weight``, ``layers.0.bias``, …
``loss.png``            the picture
``checkpoints/``        if asked for: parameters and optimiser's state after an epoch, ``epoch-0000.safetensors``, …

`mlp_xp.replica_runs` puts several such folders into one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy

import mlp_xp
from mlp_xp.backend import Backend
from mlp_xp.checkpoint import LAYERS, select
from mlp_xp.datasets.dataset import Split
from mlp_xp.datasets.source import DataSource
from mlp_xp.digests import first_link
from mlp_xp.errors import RunError, SettingsError
from mlp_xp.files import make_folder, write_atomically, writing
from mlp_xp.settings import Settings
from mlp_xp.training import Epoch

if TYPE_CHECKING:
    from numpy.typing import NDArray

RUN, CURVE, STEPS, WEIGHTS, PICTURE = (
    "run.json",
    "curve.jsonl",
    "steps.csv",
    "weights.safetensors",
    "loss.png",
)
CHECKPOINTS = "checkpoints"
REPLICAS, REPLICA = "replicas.json", "seed-"
"""Of a folder that holds a run per seed: the file that describes it, and how the runs' own folders begin."""
FILES = (RUN, CURVE, STEPS, WEIGHTS, PICTURE, REPLICAS)
"""All that a run folder or a folder of replicas may hold, but for folders."""
STEPS_HEADER = "epoch,step,loss"
FORMAT = 1


def checkpoint_path(folder: Path, epoch: int) -> Path:
    """Return where the checkpoint after an epoch is, if it was kept."""
    return folder / CHECKPOINTS / f"epoch-{epoch:04d}.safetensors"


def describe_data(data: Split) -> dict[str, Any]:
    """Return what ``run.json`` says of the data, wherever they lie."""
    train, test = data
    return {
        "n_train": train.n_samples,
        "n_test": test.n_samples,
        "n_features": train.n_features,
        "n_classes": train.n_classes,
        "scale": train.scale,
        "sha256_train": train.digest(),
        "sha256_test": test.digest(),
    }


def record(
    folder: Path | str,
    settings: Settings,
    data: Split,
    backend: Backend,
    epochs: Iterable[Epoch],
    *,
    source: DataSource | None = None,
    checkpoint_every: int | None = None,
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
    checkpoint_every : int, optional
        Keep a checkpoint after every so many epochs, from which `mlp_xp.verification.verify` can start; 0 for none.
        By default 1 in exact arithmetic, whose runs can be verified on other machines, and 0 otherwise.
    overwrite : bool
        Whether a run that is already there may be replaced. It is gone as soon as this call returns, not only when
        the new one has finished an epoch; if ``run.json`` cannot be written, it stays as it was.

    Raises
    ------
    RunError
        If the folder holds a run already, or cannot be written.
    SettingsError
        If ``checkpoint_every`` is negative.
    """
    folder, checkpoint_every = Path(folder), check_checkpoints(checkpoint_every, settings)
    check_free(folder, overwrite)
    writer = RunWriter(folder, describe_run(settings, data, backend, source), checkpoint_every)
    return _recorded(writer, epochs)


def _recorded(writer: RunWriter, epochs: Iterable[Epoch]) -> Iterator[Epoch]:
    try:
        for epoch in epochs:
            writer.write(epoch)
            yield epoch
    finally:
        writer.finish()


def check_checkpoints(every: int | None, settings: Settings) -> int:
    """Return how often a checkpoint is kept, as `record` says it.

    Raises
    ------
    SettingsError
        If that is negative.
    """
    if every is None:
        return 1 if settings.arithmetic == "exact" else 0
    if every < 0:
        raise SettingsError(f"checkpoint_every = {every!r}: must be a whole number ≥ 0")
    return every


def check_free(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that holds a run already, unless that may be replaced.

    Raises
    ------
    RunError
        If it does, or cannot be looked into.
    """
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a folder")
        taken = any((folder / name).exists() for name in (*FILES, CHECKPOINTS))
    if taken and not overwrite:
        raise RunError(f"{folder} already holds a run; choose another --out, or replace it with --overwrite")


def describe_run(settings: Settings, data: Split, backend: Backend, source: DataSource | None) -> dict[str, Any]:
    """Return what ``run.json`` holds; the arguments are those of `record`."""
    about_data = describe_data(data)
    return {
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
            "name": data.train.name,
            "source": None if source is None else source.to_dict(),
            **about_data,
        },
        "sha256_start": first_link(settings, about_data["sha256_train"], about_data["sha256_test"]),
    }


def title(description: Mapping[str, Any]) -> str:
    """Return what is written above the picture of a run that is described so."""
    return f"{description['data']['name']} on {description['backend']['name']}"


def begin_folder(folder: Path, name: str, description: Mapping[str, Any]) -> None:
    """Make a folder if need be, write its first file, and remove all other files of an old run.

    Raises
    ------
    OSError
        If the file cannot be written: an old run is then still whole.
    """
    make_folder(folder)
    replicas = [path for path in folder.glob(f"{REPLICA}*/") if re.fullmatch("[0-9]+", path.name[len(REPLICA) :])]
    replicas = replicas if (folder / REPLICAS).exists() else []
    write_atomically(folder / name, (json.dumps(description, indent=2) + "\n").encode())
    _clear(folder, [other for other in FILES if other != name])
    for replica in replicas:
        _clear(replica, FILES)
        with contextlib.suppress(OSError):
            replica.rmdir()


def _clear(folder: Path, names: Iterable[str]) -> None:
    """Remove files and checkpoints; what else the user keeps there stays."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
    for checkpoint in (folder / CHECKPOINTS).glob("epoch-*.safetensors"):
        checkpoint.unlink()
    with contextlib.suppress(OSError):
        (folder / CHECKPOINTS).rmdir()


class RunWriter:
    """Writes a run folder, epoch by epoch.

    Parameters
    ----------
    folder : path
        Made if need be; an old run in it is removed.
    description : mapping
        As `describe_run` gives it.
    checkpoint_every : int
        0 for none.
    picture : bool
        Whether `finish` draws one.

    Raises
    ------
    RunError
        If a file cannot be written; also by the methods.
    """

    def __init__(
        self, folder: Path, description: Mapping[str, Any], checkpoint_every: int, *, picture: bool = True
    ) -> None:
        self._folder, self._title, self._checkpoint_every = folder, title(description), checkpoint_every
        self._picture = picture
        self._curve: list[dict[str, Any]] = []
        self._step_losses: list[NDArray[np.float64]] = []
        with writing(folder):
            begin_folder(folder, RUN, description)
            if checkpoint_every:
                (folder / CHECKPOINTS).mkdir(exist_ok=True)
            (folder / STEPS).write_text(f"{STEPS_HEADER}\n", encoding="utf-8")

    def write(self, epoch: Epoch) -> None:
        """Add an epoch."""
        with writing(self._folder):
            _record_epoch(self._folder, epoch, self._checkpoint_every)
        self._curve.append(epoch.row())
        self._step_losses.append(epoch.step_losses)

    def finish(self) -> None:
        """Draw the picture, if there is anything to draw."""
        if self._curve and self._picture:
            from mlp_xp.plots import plot_run, png  # matplotlib is slow to import, and comes last

            figure = plot_run(np.concatenate(self._step_losses), self._curve, self._title)
            with writing(self._folder):
                write_atomically(self._folder / PICTURE, png(figure))


def _record_epoch(folder: Path, epoch: Epoch, checkpoint_every: int) -> None:
    tensors = epoch.checkpoint().tensors
    if checkpoint_every and (epoch.epoch + 1) % checkpoint_every == 0:
        write_atomically(checkpoint_path(folder, epoch.epoch), _safetensors(tensors))
    write_atomically(folder / WEIGHTS, _safetensors(select(tensors, LAYERS)))
    with (folder / STEPS).open("a", encoding="utf-8") as file:
        file.writelines(f"{epoch.epoch},{step},{loss!r}\n" for step, loss in enumerate(epoch.step_losses.tolist()))
    with (folder / CURVE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(epoch.row()) + "\n")


def _safetensors(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    # A strided array would be written wrongly, without a word.
    content: bytes = safetensors.numpy.save({name: np.array(tensor, order="C") for name, tensor in tensors.items()})
    return content
