"""A folder of replicas: an ordinary run folder per seed, and what they have in common, readable without mlp_xp.

``seed-0/``, …      a run folder each (see `mlp_xp.runs`), but for the picture: a network like any other
``replicas.json``   what ``run.json`` says, with the settings of the first seed, and the list of all seeds
``curve.jsonl``     a line per epoch: mean, standard_deviation, least and most of loss, test_loss and accuracy; seconds
``loss.png``        the mean curves with their bands
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_xp.backend import Backend
from mlp_xp.datasets.dataset import Split
from mlp_xp.datasets.source import DataSource
from mlp_xp.digests import first_link
from mlp_xp.files import write_atomically, writing
from mlp_xp.replicas import ReplicatedEpoch, settings_of_replicas
from mlp_xp.runs import (
    CURVE,
    PICTURE,
    REPLICA,
    REPLICAS,
    RunWriter,
    begin_folder,
    check_checkpoints,
    check_free,
    describe_run,
    title,
)
from mlp_xp.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray


def record_replicas(
    folder: Path | str,
    settings: Settings,
    data: Split,
    backend: Backend,
    epochs: Iterable[ReplicatedEpoch],
    n: int,
    *,
    source: DataSource | None = None,
    checkpoint_every: int | None = None,
    overwrite: bool = False,
) -> Iterator[ReplicatedEpoch]:
    """Write a folder of replicas while they are trained, and hand every epoch on.

    Parameters and errors are those of `mlp_xp.runs.record`, but for:

    Parameters
    ----------
    settings, data, backend, n
        What `mlp_xp.replicas.train_replicas` was given.
    epochs : iterable of ReplicatedEpoch
        What it returned.
    """
    folder, checkpoint_every = Path(folder), check_checkpoints(checkpoint_every, settings)
    each = settings_of_replicas(settings, n)
    folders = [folder / f"{REPLICA}{one.seed}" for one in each]
    for path in (folder, *folders):
        check_free(path, overwrite)
    description = describe_run(settings, data, backend, source)
    about_data = description["data"]
    del description["sha256_start"]  # every replica has its own
    with writing(folder):
        begin_folder(folder, REPLICAS, {**description, "seeds": [one.seed for one in each]})
    writers = [
        RunWriter(
            path,
            {
                **description,
                "settings": one.to_dict(),
                "replicas": n,  # trained beside each other: in native arithmetic, alone it has other last bits
                "sha256_start": first_link(one, about_data["sha256_train"], about_data["sha256_test"]),
            },
            checkpoint_every,
            picture=False,  # which takes longer to draw than many a training takes; there is one of all together
        )
        for path, one in zip(folders, each, strict=True)
    ]
    return _recorded(
        folder, f"{title(description)}, {n} seeds: mean, ± standard deviation, least to most", epochs, writers
    )


def _recorded(
    folder: Path, heading: str, epochs: Iterable[ReplicatedEpoch], writers: Sequence[RunWriter]
) -> Iterator[ReplicatedEpoch]:
    curve: list[Mapping[str, Any]] = []
    step_losses: list[NDArray[np.float64]] = []
    try:
        for epoch in epochs:
            for writer, replica in zip(writers, epoch.replicas, strict=True):
                writer.write(replica)
            curve.append(epoch.row())
            step_losses.append(epoch.step_losses)
            with writing(folder), (folder / CURVE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(curve[-1]) + "\n")
            yield epoch
    finally:
        if curve:
            from mlp_xp.plots import plot_replicas, png  # matplotlib is slow to import, and comes last

            with writing(folder):
                write_atomically(folder / PICTURE, png(plot_replicas(np.concatenate(step_losses), curve, heading)))
