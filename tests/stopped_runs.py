"""What the tests of trainings that stop and go on share: such trainings, and what they decide."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from mlp_xp.backend import Backend
from mlp_xp.datasets import Split
from mlp_xp.errors import TrainingInterrupted
from mlp_xp.replica_runs import record_replicas
from mlp_xp.replicas import ReplicatedEpoch, train_replicas
from mlp_xp.runs import record
from mlp_xp.settings import Settings
from mlp_xp.training import Epoch, train

NATIVE = Settings(hidden_layer_sizes=(8, 8), batch_size=100, epochs=4, momentum=0.9, dropout=0.1, batch_norm=True)
SETTINGS = {
    "native": NATIVE,
    "exact": replace(NATIVE, arithmetic="exact", dtype="float64", optimizer="adam", momentum=0.0, learning_rate=0.01),
}
N = 2


class After:
    """Wants to stop when it is asked for the n-th time."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self) -> bool:
        self.n -= 1
        return self.n < 0


def start(
    folder: Path, settings: Settings, data: Split, backend: Backend, n: int | None, **how: Any
) -> Iterator[Epoch | ReplicatedEpoch]:
    """Return a recorded training of one network, or of n."""
    recording = {name: how.pop(name) for name in ("checkpoint_every", "source", "overwrite") if name in how}
    if n is None:
        epochs = train(settings, data, backend, **how)
        return record(folder, settings, data, backend, epochs, **recording)
    many = train_replicas(settings, data, backend, n, **how)
    return record_replicas(folder, settings, data, backend, many, n, **recording)


def stop_early(folder: Path, settings: Settings, data: Split, backend: Backend, after: int, **how: Any) -> str:
    """Record a training that stops, and return what is said of it."""
    with pytest.raises(TrainingInterrupted) as caught:
        list(start(folder, settings, data, backend, how.pop("n", None), stop=After(after), **how))
    return str(caught.value)


def contents(folder: Path) -> dict[str, Any]:
    """Return all that a training decides: not when and how fast it was."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            found[name] = {key: tensor.tobytes() for key, tensor in safetensors.numpy.load_file(path).items()}
        elif path.name == "curve.jsonl":
            lines = map(json.loads, path.read_text().splitlines())
            found[name] = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
        elif path.name in ("run.json", "replicas.json"):
            run = json.loads(path.read_text())
            found[name] = {key: run[key] for key in run if key not in ("id", "created", "resumed")}
        elif path.name == "loss.png":
            found[name] = b""
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def digests(epoch: Epoch | ReplicatedEpoch) -> list[Any]:
    """Return the digests of one network, or of each."""
    each = epoch.replicas if isinstance(epoch, ReplicatedEpoch) else (epoch,)
    return [one.digests for one in each]


def leave_killed(run: Path, data: Split, backend: Backend) -> Path:
    """Record three epochs, and what the fourth would have left if the process had been killed in it."""
    stop_early(run, NATIVE, data, backend, 9)
    with (run / "curve.jsonl").open("a") as file:
        file.write('{"epoch": 3, "loss": 0.')
    with (run / "steps.csv").open("a") as file:
        file.write("3,0,0.5\n3,1,")
    for name in ("checkpoints/.epoch-0003.safetensors", ".weights.safetensors", ".probe"):
        (run / f"{name}.0123456789abcdef.mlp_xp").write_bytes(b"half")
    return run


def damage(path: Path) -> None:
    """Change the last bit of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
