"""What ``run.json`` holds: made as a training begins, checked and brought up to date as it goes on."""

from __future__ import annotations

import copy
import math
import platform
import re
import reprlib
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

import mlp_xp
from mlp_xp.backend import Backend
from mlp_xp.checkpoint import BEGINNING, OPTIMIZER, Checkpoint
from mlp_xp.datasets.dataset import Split
from mlp_xp.datasets.source import DataSource
from mlp_xp.digests import first_link
from mlp_xp.divergence import LARGEST_GROWTH, is_growth
from mlp_xp.epochs import Epochs
from mlp_xp.errors import SettingsError
from mlp_xp.run_folder import FORMAT
from mlp_xp.settings import Settings, is_real
from mlp_xp.training import ON_DIVERGENCE

NEWEST = 3
"""Checkpoints that are kept besides the best, unless all are."""
MOST_RESUMED = 1000
"""Times that ``run.json`` tells of, the first besides; it would grow beyond what is read of it."""


_VERSION = re.compile(r"\d+\.\d")


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


def describe_run(
    settings: Settings,
    data: Split,
    backend: Backend,
    epochs: Epochs[Any],
    source: DataSource | None,
    checkpoint_every: int,
    keep_checkpoints: int | None,
) -> dict[str, Any]:
    """Return what ``run.json`` holds; the arguments are those of `mlp_xp.runs.record`, and so are the errors."""
    if keep_checkpoints is None:
        keep_checkpoints = 0 if settings.arithmetic == "exact" else NEWEST
    for name, value in (("checkpoint_every", checkpoint_every), ("keep_checkpoints", keep_checkpoints)):
        if value < 0:
            raise SettingsError(f"{name} = {value!r}: must be a whole number ≥ 0")
    if epochs.settings not in (None, settings):
        raise SettingsError("settings are not those that the epochs are trained with; give the same ones")
    if epochs.start is not None and (epoch := epochs.start[0].position.epoch) > 0:
        raise SettingsError(
            f"epochs begin with epoch {epoch}, but a run with epoch 0; go on with a recorded one by mlp_xp.resume"
        )
    about_data = describe_data(data)
    return {
        "format": FORMAT,
        "id": secrets.token_hex(8),
        **describe_work(backend),
        "settings": settings.to_dict(),
        "data": {
            "name": data.train.name,
            "source": None if source is None else source.to_dict(),
            **about_data,
        },
        "checkpoints": {"every": checkpoint_every, "newest": keep_checkpoints},
        "sha256_start": first_link(settings, about_data["sha256_train"], about_data["sha256_test"]),
        **epochs.watch(),
        "rollbacks": [],
        "resumed": [],
    }


def describe_work(backend: Backend) -> dict[str, Any]:
    """Return when, with which versions and on what a training is begun, or goes on."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "mlp_xp": mlp_xp.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "backend": {"name": backend.name, **backend.describe()},
    }


def versions(work: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions that decide the last bits of a training, by name, of what `describe_work` told."""
    found = {**work.get("versions", {}), **work["backend"]}
    return {name: str(found[name]) for name in found if name != "python" and _VERSION.match(str(found[name]))}


def describe_replica(description: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Return what a replica's own ``run.json`` says, given what ``replicas.json`` does and the replica's settings."""
    own = copy.deepcopy({name: value for name, value in description.items() if name != "seeds"})
    own["settings"] = settings.to_dict()
    # Trained beside each other: in native arithmetic, alone it has other last bits.
    own["replicas"] = len(description["seeds"])
    own["sha256_start"] = first_link(settings, own["data"]["sha256_train"], own["data"]["sha256_test"])
    return own


def check_description(description: dict[str, Any], **more: type) -> None:
    """See that what is written on, or above the picture, is there, and of its kind.

    Parameters
    ----------
    description : dict
    **more : type
        The kinds of what this one has besides.

    Raises
    ------
    KeyError, TypeError
    """
    kinds: dict[str, type] = {"id": str, "checkpoints": dict, "rollbacks": list, "resumed": list, **more}
    for name, kind in kinds.items():
        if not isinstance(found := description[name], kind):
            raise TypeError(f"{name!r} is {reprlib.repr(found)}")
    if not description["id"].isascii():  # it is in the checkpoints, too, as UTF-8, which not every text can be
        raise TypeError(f"'id' is {reprlib.repr(description['id'])}")
    on_divergence, growth = how_watched(description)
    if on_divergence not in ON_DIVERGENCE:
        raise TypeError(f"'on_divergence' is {reprlib.repr(on_divergence)}")
    if not is_growth(growth):
        raise TypeError(f"'largest_growth' is {reprlib.repr(growth)}")
    for name in ("every", "newest"):
        if type(found := description["checkpoints"][name]) is not int or found < 0:
            raise TypeError(f"{name!r} of 'checkpoints' is {reprlib.repr(found)}")
    works = [description, *description["resumed"]]
    for named, whose in [("data", description), *(("backend", work) for work in works)]:
        if not isinstance(found := whose[named].get("name"), str):
            raise TypeError(f"'name' of {named!r} is {reprlib.repr(found)}, not a text")
    for rollback in description["rollbacks"]:
        if type(rollback["epoch"]) is not int or not is_real(rollback["learning_rate"]):
            raise TypeError(f"'rollbacks' has {reprlib.repr(rollback)}")


def how_watched(description: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return what `mlp_xp.epochs.Epochs.watch` told, or what holds for a run that does not say."""
    growth = description.get("largest_growth", LARGEST_GROWTH)
    return description.get("on_divergence", "stop"), math.inf if growth is None else growth


def go_on(
    description: dict[str, Any],
    epochs: int,
    watch: dict[str, str | float | None],
    work: dict[str, Any] | None,
    checkpoint: Checkpoint | None,
) -> None:
    """Note in a description that the training goes on; ``work`` is None if nothing is left to do."""
    description["settings"]["epochs"] = epochs
    description.update(watch)
    description["rollbacks"] = [each for each in description["rollbacks"] if _is_behind(each, checkpoint)]
    if work is not None:
        description["resumed"].append(work)
    del description["resumed"][1:-MOST_RESUMED]


def _is_behind(rollback: dict[str, Any], checkpoint: Checkpoint | None) -> bool:
    """Tell whether a rollback came before a checkpoint; where it came after, it will happen again."""
    epoch, step, _ = BEGINNING if checkpoint is None else checkpoint.position
    if checkpoint is None or step == 0 or rollback["epoch"] != epoch:
        return bool(rollback["epoch"] < epoch)
    # Within the epoch that was begun again, the checkpoint's own learning rate tells how often it was by then.
    rate = checkpoint.tensors.get(f"{OPTIMIZER}.learning_rate", np.inf)
    return bool(np.all(rollback["learning_rate"] >= rate))
