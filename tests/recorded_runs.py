"""What the tests of recorded runs share: a small run in exact arithmetic, and ways to alter and to forge one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from mlp_xp.backend import Backend
from mlp_xp.checkpoint import select
from mlp_xp.datasets import Split
from mlp_xp.datasets.source import DataSource
from mlp_xp.digests import chain, digest_arrays, first_link
from mlp_xp.model import mean
from mlp_xp.recorded import list_checkpoints, read_steps
from mlp_xp.run_folder import checkpoint_path
from mlp_xp.runs import record
from mlp_xp.settings import Settings
from mlp_xp.training import NUMBERS, train

SETTINGS = Settings(hidden_layer_sizes=(8,), momentum=0.5, batch_size=200, epochs=3, arithmetic="exact")

OTHER_SETTINGS: dict[str, dict[str, Any]] = {
    "hidden_layer_sizes": {"hidden_layer_sizes": [9]},
    "activation": {"activation": "tanh"},
    "loss": {"loss": "squared_error"},
    "optimizer": {"optimizer": "adam", "momentum": 0.0},
    "learning_rate": {"learning_rate": 0.125},
    "momentum": {"momentum": 0.25},
    "nesterov": {"nesterov": True},
    "beta_1": {"beta_1": 0.8},
    "beta_2": {"beta_2": 0.9},
    "epsilon": {"epsilon": 1e-7},
    "l2": {"l2": 1e-9},
    "dropout": {"dropout": 0.25},
    "max_gradient_norm": {"max_gradient_norm": 2.0**-10},
    "residual": {"residual": True, "hidden_layer_sizes": [8, 8]},
    "batch_norm": {"batch_norm": True},
    "pretrain": {"pretrain": "layerwise"},
    "pretrain_epochs": {"pretrain_epochs": 2, "pretrain": "layerwise"},
    "batch_size": {"batch_size": 199},
    "epochs": {"epochs": 2},
    "init": {"init": "he"},
    "seed": {"seed": 1},
    "dtype": {"dtype": "float32", "arithmetic": "native"},
    "arithmetic": {"arithmetic": "native"},
}
"""Another value of every setting, with what must change with it."""
assert set(OTHER_SETTINGS) == {field.name for field in fields(Settings)}

Alteration = Callable[[Path], object]


def make_run(folder: Path, data: Split, backend: Backend, settings: Settings = SETTINGS, **options: Any) -> Path:
    """Record a training on digits."""
    epochs = train(settings, data, backend)
    for _ in record(folder, settings, data, backend, epochs, source=DataSource("digits"), **options):
        pass
    return folder


def edit_json(change: Callable[[dict[str, Any]], object]) -> Alteration:
    """Return a function that changes a folder's run.json."""

    def alter(folder: Path) -> None:
        description = json.loads((folder / "run.json").read_text())
        change(description)
        (folder / "run.json").write_text(json.dumps(description))

    return alter


def edit_settings(changes: Mapping[str, Any]) -> Alteration:
    """Return a function that changes settings in a folder's run.json."""
    return edit_json(lambda description: description["settings"].update(changes))


def edit_curve(change: Callable[[list[dict[str, Any]]], object]) -> Alteration:
    """Return a function that changes the lines of a folder's curve.jsonl."""

    def alter(folder: Path) -> None:
        rows = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
        change(rows)
        (folder / "curve.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    return alter


def edit_steps(change: Callable[[list[str]], object]) -> Alteration:
    """Return a function that changes the lines of a folder's steps.csv."""

    def alter(folder: Path) -> None:
        lines = (folder / "steps.csv").read_text().splitlines()
        change(lines)
        (folder / "steps.csv").write_text("".join(f"{line}\n" for line in lines))

    return alter


def edit_tensors(name: str, change: Callable[[dict[str, Any]], object]) -> Alteration:
    """Return a function that changes the tensors in one of a folder's files."""

    def alter(folder: Path) -> None:
        tensors = safetensors.numpy.load_file(folder / name)
        change(tensors)
        (folder / name).write_bytes(safetensors.numpy.save(tensors))

    return alter


def last_bit(name: str, *place: int) -> Callable[[dict[str, Any]], None]:
    """Return a change of the last bit of one number of a tensor of float64."""

    def change(tensors: dict[str, Any]) -> None:
        tensors[name].view(np.uint64)[place] ^= np.uint64(1)

    return change


def both(*alterations: Alteration) -> Alteration:
    """Return a function that makes several alterations."""

    def alter(folder: Path) -> None:
        for alteration in alterations:
            alteration(folder)

    return alter


def forge(folder: Path) -> None:
    """Make all digests of an altered run anew, and the losses of the curve from those of the steps.

    The parameters after an epoch without a checkpoint keep their digest, but for the last ones.
    """
    description = json.loads((folder / "run.json").read_text())
    data = description["data"]
    settings = Settings.from_dict(description["settings"])
    description["sha256_start"] = first_link(settings, data["sha256_train"], data["sha256_test"])
    (folder / "run.json").write_text(json.dumps(description))
    steps, checkpoints = read_steps(folder), list_checkpoints(folder)

    def renew(rows: list[dict[str, Any]]) -> None:
        previous = description["sha256_start"]
        for row in rows:
            losses = steps.of_epoch(row["epoch"])
            row["loss"] = mean(losses)
            row["sha256_losses"] = digest_arrays({"losses": losses})
            if row["epoch"] in checkpoints:
                tensors = safetensors.numpy.load_file(checkpoint_path(folder, row["epoch"]))
                for part in ("layers", "optimizer"):
                    row[f"sha256_{part}"] = digest_arrays(select(tensors, part))
            elif row is rows[-1]:
                row["sha256_layers"] = digest_arrays(safetensors.numpy.load_file(folder / "weights.safetensors"))
            parts = [row[f"sha256_{part}"] for part in ("losses", "layers", "optimizer")]
            previous = row["sha256_chain"] = chain(previous, {name: row[name] for name in NUMBERS}, parts)

    edit_curve(renew)(folder)
