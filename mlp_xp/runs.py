"""A run folder: what was trained, on what, and how it went, in files that need no mlp_xp to be read.

``run.json``            settings, versions, the backend, the data's source, shape and SHA-256
``curve.jsonl``         a line per epoch: epoch, loss, test_loss, accuracy, seconds, and a chain of SHA-256
``steps.csv``           every batch's loss: epoch, step, loss
``weights.safetensors`` the parameters after the last finished epoch: ``layers.0.weight``, ``layers.0.bias``, …
``loss.png``            the picture
``checkpoints/``        if asked for: parameters and optimiser's state after an epoch, ``epoch-0000.safetensors``, …
"""

from __future__ import annotations

import contextlib
import json
import platform
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
    if checkpoint_every is None:
        checkpoint_every = 1 if settings.arithmetic == "exact" else 0
    if checkpoint_every < 0:
        raise SettingsError(f"checkpoint_every = {checkpoint_every!r}: must be a whole number ≥ 0")
    folder = Path(folder)
    with writing(folder):
        taken = any((folder / name).exists() for name in (RUN, CURVE, STEPS, WEIGHTS, PICTURE, CHECKPOINTS))
    if taken and not overwrite:
        raise RunError(f"{folder} already holds a run; choose another --out, or replace it with --overwrite")
    about_data = describe_data(data)
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
            "name": data.train.name,
            "source": None if source is None else source.to_dict(),
            **about_data,
        },
        "sha256_start": first_link(settings, about_data["sha256_train"], about_data["sha256_test"]),
    }
    with writing(folder):
        make_folder(folder)
        write_atomically(folder / RUN, (json.dumps(description, indent=2) + "\n").encode())
        for name in (CURVE, STEPS, WEIGHTS, PICTURE):  # only now: on a full disk, an old run is still whole
            (folder / name).unlink(missing_ok=True)
        for old in (folder / CHECKPOINTS).glob("epoch-*.safetensors"):
            old.unlink()
        with contextlib.suppress(OSError):  # what else the user keeps there stays
            (folder / CHECKPOINTS).rmdir()
        if checkpoint_every:
            (folder / CHECKPOINTS).mkdir(exist_ok=True)
        (folder / STEPS).write_text(f"{STEPS_HEADER}\n", encoding="utf-8")
    return _record_epochs(folder, f"{data.train.name} on {backend.name}", epochs, checkpoint_every)


def _record_epochs(folder: Path, title: str, epochs: Iterable[Epoch], checkpoint_every: int) -> Iterator[Epoch]:
    curve: list[dict[str, Any]] = []
    step_losses: list[NDArray[np.float64]] = []
    try:
        for epoch in epochs:
            with writing(folder):
                _record_epoch(folder, epoch, checkpoint_every)
            curve.append(epoch.row())
            step_losses.append(epoch.step_losses)
            yield epoch
    finally:
        if curve:
            from mlp_xp.plots import plot_run, png  # matplotlib is slow to import, and comes last

            with writing(folder):
                write_atomically(folder / PICTURE, png(plot_run(np.concatenate(step_losses), curve, title)))


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
