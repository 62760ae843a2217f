"""Checkpoints in files: one safetensors file each, which is there whole and checked, or not at all.

``epoch-0000.safetensors``, …   the end of an epoch
``interrupted.safetensors``     a moment within an epoch or a pre-training, at which the training was asked to stop

A file holds parameters and optimiser's state under their names and, of a moment within an epoch, the losses of its
steps so far. Its metadata tell which run it is of, which step is next, and the SHA-256 digests of all these.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_xp import disk
from mlp_xp.checkpoint import LAYERS, OPTIMIZER, Checkpoint, Position, select
from mlp_xp.digests import digest_arrays
from mlp_xp.errors import RunError
from mlp_xp.files import write_atomically
from mlp_xp.recorded import list_checkpoints, read_safetensors
from mlp_xp.run_folder import CHECKPOINTS, INTERRUPTED, checkpoint_path
from mlp_xp.tensor_files import tensor_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "mlp_xp checkpoint 1"
LOSSES = "losses"


def write_checkpoint(folder: Path, checkpoint: Checkpoint, run: str) -> None:
    """Write a checkpoint into a run folder.

    Parameters
    ----------
    folder : path
    checkpoint : Checkpoint
    run : str
        What tells this run from any other one, as ``run.json`` has it.

    Raises
    ------
    OSError
        If it cannot be written; all others are then still whole.
    """
    tensors = dict(checkpoint.tensors)
    if checkpoint.position.step:
        tensors[LOSSES] = checkpoint.losses
    metadata = {
        "format": FORMAT,
        "run": run,
        "epoch": str(checkpoint.position.epoch),
        "step": str(checkpoint.position.step),
        "pretrained": str(checkpoint.pretrained),
        "first_loss": "" if checkpoint.first_loss is None else repr(checkpoint.first_loss),
        "sha256_chain": checkpoint.chain,
        **_digests(tensors),
    }
    is_between = checkpoint.is_between_epochs
    path = checkpoint_path(folder, checkpoint.epoch) if is_between else interrupted_path(folder)
    write_atomically(path, tensor_bytes(tensors, metadata))


def read_checkpoint(path: Path, run: str) -> Checkpoint:
    """Read a checkpoint and see that it is what was written.

    Raises
    ------
    RunError
        If the file cannot be read, is damaged, or is another run's.
    """
    tensors, metadata = read_safetensors(path)
    try:
        if (found := metadata["format"]) != FORMAT:
            raise ValueError(f"its format is {found!r}, not {FORMAT!r}")
        if metadata["run"] != run:
            raise ValueError("it is of another run")
        for name, digest in _digests(tensors).items():
            if metadata[name] != digest:
                raise ValueError(f"{name} is not that of its tensors")
        losses = tensors.pop(LOSSES, np.empty(0))
        position = Position(int(metadata["epoch"]), int(metadata["step"]))
        pretrained = int(metadata.get("pretrained", "0"))  # files from before it could be within a pre-training
        if losses.shape != (position.step,) or losses.dtype != np.float64 or position.epoch < 0:
            raise ValueError(f"it has {losses.size} losses at {position}")
        if pretrained < 0 or (pretrained and position != (0, 0)):
            raise ValueError(f"it has {pretrained} epochs of pre-training at {position}")
        first_loss = float(metadata["first_loss"]) if metadata["first_loss"] else None
        return Checkpoint(position.epoch - 1, metadata["sha256_chain"], tensors, losses, first_loss, pretrained)
    except ValueError as error:
        raise RunError(f"{path}: not a checkpoint of this run: {error}") from error
    except KeyError as error:
        raise RunError(f"{path}: not a checkpoint to go on from: {error} is missing in its metadata") from error


def interrupted_path(folder: Path) -> Path:
    """Return where the checkpoint within an epoch is, if there is one."""
    return folder / CHECKPOINTS / INTERRUPTED


def remove_all_but(folder: Path, epochs: set[int], *, interrupted: bool) -> None:
    """Remove the checkpoints of other epochs, and that within an epoch unless it is to stay.

    Raises
    ------
    OSError
        If one cannot be removed.
    """
    for epoch in list_checkpoints(folder):
        if epoch not in epochs:
            disk.DISK.remove(checkpoint_path(folder, epoch))
    if not interrupted:
        disk.DISK.remove(interrupted_path(folder))


def _digests(tensors: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    losses = {LOSSES: tensors[LOSSES]} if LOSSES in tensors else {}
    parts = {LAYERS: select(tensors, LAYERS), OPTIMIZER: select(tensors, OPTIMIZER), LOSSES: losses}
    return {f"sha256_{name}": digest_arrays(part) for name, part in parts.items()}
