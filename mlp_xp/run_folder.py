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

import os
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


def has_checkpoint(folder: Path) -> bool:
    """Tell whether a run, or one of the replicas, has a checkpoint."""
    return any(any(folder.glob(f"{each}{CHECKPOINTS}/*.safetensors")) for each in ("", f"{REPLICA}*/"))


def how_to_go_on(folder: Path, when: str = "") -> str:
    """Return what to do about a run, or a folder of replicas, that had to stop; ``when`` says from when on."""
    if not os.path.exists(folder):  # noqa: PTH110 - the path's own method raises where it may not look
        return f"the folder is gone; if it comes back, go on with: {resume_command(folder)}"
    if has_checkpoint(folder):
        return f"what it has learnt is kept; {when}go on with: {resume_command(folder)}"
    return f"it has no checkpoint yet to go on from; {when}train again, with --overwrite"


def checkpoint_path(folder: Path, epoch: int) -> Path:
    """Return where the checkpoint after an epoch is, if it was kept."""
    return folder / CHECKPOINTS / f"epoch-{epoch:04d}.safetensors"
