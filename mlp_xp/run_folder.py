"""A run folder: what was trained, on what, and how it went, in files that need no mlp_xp to be read.

``run.json``            settings, versions, the backend, the data's source, shape and SHA-256; where it was resumed
``curve.jsonl``         a line per epoch: epoch, loss, test_loss, accuracy, seconds, and a chain of SHA-256
``steps.csv``           every batch's loss: epoch, step, loss
``weights.safetensors`` the parameters after the last finished epoch: ``layers.0.weight``, ``layers.0.bias``, …
``loss.png``            the picture
``checkpoints/``        where the training can go on: ``epoch-0000.safetensors``, … (see `mlp_xp.checkpoint_files`)

A folder of replicas has a run folder for each and files of its own (see `mlp_xp.replica_runs`).
"""

from __future__ import annotations

import shlex
from pathlib import Path

RUN, CURVE, STEPS, WEIGHTS, PICTURE = "run.json", "curve.jsonl", "steps.csv", "weights.safetensors", "loss.png"
CHECKPOINTS = "checkpoints"
REPLICAS, REPLICA = "replicas.json", "seed-"
"""Of a folder that holds a run per seed: the file that describes it, and how the runs' own folders begin."""
MOST_SEEDS = 1 << 12
"""That a folder of replicas has: each is described anew where its own folder is not there yet."""
FILES = (RUN, CURVE, STEPS, WEIGHTS, PICTURE, REPLICAS)
"""All that a run folder or a folder of replicas may hold, but for folders."""
STEPS_HEADER = "epoch,step,loss"
FORMAT = 1


def resume_command(folder: Path) -> str:
    """Return what to type to go on with a run."""
    return f"mlp-xp train --resume {shlex.quote(str(folder))}"


def how_to_go_on(folder: Path, when: str = "") -> str:
    """Return what to do about a run, or a folder of replicas, that had to stop; ``when`` says from when on."""
    try:
        is_kept, is_empty = _has_checkpoint(folder), _is_empty(folder)
    except FileNotFoundError:
        return f"the folder is gone; if it comes back, go on with: {resume_command(folder)}"
    except OSError:
        return f"what it has learnt may be kept; {when or 'once it can be read, '}go on with: {resume_command(folder)}"
    if is_kept:
        return f"what it has learnt is kept; {when}go on with: {resume_command(folder)}"
    if is_empty:
        return f"it has no checkpoint yet; {when}begin it again with: {resume_command(folder)}"
    return f"it has no checkpoint yet to go on from; {when}train again, with --overwrite"


def may_go_on(folder: Path) -> bool:
    """Tell whether a run, or the replicas, can go on from a checkpoint or their beginning, or cannot be looked into."""
    try:
        return _has_checkpoint(folder) or _is_empty(folder)
    except OSError:
        return True


def _runs(folder: Path) -> list[Path]:
    # Not by `Path.glob`, which finds nothing where it may not look.
    return [folder, *(path for path in folder.iterdir() if path.name.startswith(REPLICA))]


def _has_checkpoint(folder: Path) -> bool:
    return any(_holds_tensors(run / CHECKPOINTS) for run in _runs(folder))


def _is_empty(folder: Path) -> bool:
    """Tell whether a run, or replicas, are described, but have no epoch yet that could be lost."""
    if not any((folder / name).exists() for name in (RUN, REPLICAS)):
        return False
    curves = [run / CURVE for run in _runs(folder)]
    return not any(curve.exists() and curve.stat().st_size for curve in curves)


def _holds_tensors(folder: Path) -> bool:
    try:
        return any(path.suffix == ".safetensors" for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False


def checkpoint_path(folder: Path, epoch: int) -> Path:
    """Return where the checkpoint after an epoch is, if it was kept."""
    return folder / CHECKPOINTS / f"epoch-{epoch:04d}.safetensors"
