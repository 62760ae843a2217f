"""Checkpoints in files: one safetensors file each, which is there whole and checked, or not at all.

``epoch-0000.safetensors``, …         the end of an epoch
``interrupted-0-50-0.safetensors``    a moment at which the training was asked to stop within an epoch: which, and after
                                      how many of its steps; or of how many epochs of a pre-training

A file holds parameters and optimiser's state under their names and, of a moment within an epoch, the losses of its
steps so far. Its metadata tell which run it is of, which step is next, and the SHA-256 digests of all these.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_xp import disk
from mlp_xp.checkpoint import LAYERS, OPTIMIZER, TOP, Checkpoint, Position, select
from mlp_xp.digests import digest_arrays
from mlp_xp.errors import RunError
from mlp_xp.files import write_atomically
from mlp_xp.recorded import list_checkpoints, read_safetensors
from mlp_xp.run_folder import CHECKPOINTS, checkpoint_path
from mlp_xp.tensor_files import tensor_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = "mlp_xp checkpoint 1"
LOSSES = "losses"
_INTERRUPTED = re.compile(r"interrupted-(0|[1-9][0-9]{0,8})-(0|[1-9][0-9]{0,8})-(0|[1-9][0-9]{0,8})\.safetensors")


class OfAnotherRunError(RunError):
    """A checkpoint was left by another run in the same folder."""


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
        **{name: str(number) for name, number in checkpoint.position._asdict().items()},
        "first_loss": "" if checkpoint.first_loss is None else repr(checkpoint.first_loss),
        "sha256_chain": checkpoint.chain,
        **_digests(tensors),
    }
    write_atomically(place(folder, checkpoint.position), tensor_bytes(tensors, metadata))


def read_checkpoint(folder: Path, position: Position, run: str) -> Checkpoint:
    """Read a run folder's checkpoint of a moment, and see that it is what was written.

    Raises
    ------
    OfAnotherRunError
        If it is another run's.
    RunError
        If the file cannot be read, or is damaged.
    """
    path = place(folder, position)
    tensors, metadata = read_safetensors(path)
    try:
        if (found := metadata["format"]) != FORMAT:
            raise ValueError(f"its format is {found!r}, not {FORMAT!r}")
        if metadata["run"] != run:
            raise OfAnotherRunError(f"{path}: not a checkpoint of this run, but of another one")
        for name, digest in _digests(tensors).items():
            if metadata[name] != digest:
                raise ValueError(f"{name} is not that of its tensors")
        losses = tensors.pop(LOSSES, np.empty(0))
        if (stated := Position(*(int(metadata[name]) for name in Position._fields))) != position:
            raise ValueError(f"it is of {stated}")
        if losses.shape != (position.step,) or losses.dtype != np.float64:
            raise ValueError(f"it has {losses.size} losses at {position}")
        first_loss = float(metadata["first_loss"]) if metadata["first_loss"] else None
        epoch, _, pretrained = position
        return Checkpoint(epoch - 1, metadata["sha256_chain"], tensors, losses, first_loss, pretrained)
    except ValueError as error:
        raise RunError(f"{path}: not a checkpoint of this run: {error}") from error
    except KeyError as error:
        raise RunError(f"{path}: not a checkpoint to go on from: {error} is missing in its metadata") from error


def place(folder: Path, position: Position) -> Path:
    """Return where the checkpoint of a moment is, if there is one."""
    if position.is_between_epochs:
        return checkpoint_path(folder, position.epoch - 1)
    epoch, step, pretrained = position
    return folder / CHECKPOINTS / f"interrupted-{epoch}-{step}-{pretrained}.safetensors"


def list_positions(folder: Path) -> list[Position]:
    """Return the moments of which there are checkpoints, in order; raises as `list_checkpoints`."""
    positions = [Position(epoch + 1, 0) for epoch in list_checkpoints(folder)]
    names = [path.name for path in (folder / CHECKPOINTS).glob("interrupted-*.safetensors")]
    found = [Position(*map(int, each.groups())) for each in map(_INTERRUPTED.fullmatch, names) if each]
    return sorted(positions + [each for each in found if place(folder, each).name in names])


def remove_all_but(folder: Path, positions: Collection[Position]) -> None:
    """Remove the checkpoints of other moments.

    Raises
    ------
    OSError
        If one cannot be removed.
    """
    for position in list_positions(folder):
        if position not in positions:
            disk.DISK.remove(place(folder, position))


def _digests(tensors: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    losses = {LOSSES: tensors[LOSSES]} if LOSSES in tensors else {}
    parts = {**{part: select(tensors, part) for part in (LAYERS, OPTIMIZER, TOP)}, LOSSES: losses}
    return {f"sha256_{name}": digest_arrays(part) for name, part in parts.items()}
