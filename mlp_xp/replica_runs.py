"""A folder of replicas: an ordinary run folder per seed, and what they have in common, readable without mlp_xp.

``seed-0/``, …      a run folder each (see `mlp_xp.runs`), but for the picture: a network like any other
``replicas.json``   what ``run.json`` says, with the settings of the first seed, and the list of all seeds
``curve.jsonl``     a line per epoch: mean, standard_deviation, least and most of loss, test_loss and accuracy; seconds
``loss.png``        the mean curves with their bands
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp.backend import Backend
from mlp_xp.datasets.dataset import Split
from mlp_xp.datasets.source import DataSource
from mlp_xp.description import describe_replica, describe_run
from mlp_xp.epochs import as_epochs
from mlp_xp.errors import RunError
from mlp_xp.files import append, remove_leftovers, write_atomically, writing
from mlp_xp.lock import FolderLock
from mlp_xp.replicas import ReplicatedEpoch, settings_of_replicas, spread_of_rows
from mlp_xp.run_folder import CURVE, MOST_SEEDS, PICTURE, REPLICA, REPLICAS
from mlp_xp.run_writer import RunWriter, begin, begin_folder, line_bytes, recorded, remedy, title
from mlp_xp.runs import check_free, take_folder
from mlp_xp.settings import Settings


def record_replicas(
    folder: Path | str,
    settings: Settings,
    data: Split,
    backend: Backend,
    epochs: Iterable[ReplicatedEpoch],
    n: int,
    *,
    source: DataSource | None = None,
    checkpoint_every: int = 1,
    keep_checkpoints: int | None = None,
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
    folder, epochs = Path(folder), as_epochs(epochs)
    if n > MOST_SEEDS:
        raise RunError(f"{folder} cannot hold {n:,} seeds, but {MOST_SEEDS:,}; train fewer at once")
    each = settings_of_replicas(settings, n)
    description = describe_run(settings, data, backend, epochs, source, checkpoint_every, keep_checkpoints)
    for one in each:
        check_free(folder / f"{REPLICA}{one.seed}", overwrite, whole=folder)
    lock = take_folder(folder, overwrite)
    try:
        del description["sha256_start"]  # every replica has its own
        description["seeds"] = [one.seed for one in each]
        with writing(folder):
            lock.check()
            begin_folder(folder, REPLICAS, description)
        writers = [
            RunWriter(folder / f"{REPLICA}{one.seed}", lock, describe_replica(description, one), whole=folder)
            for one in each
        ]
        begin(writers, epochs)
    except BaseException:
        lock.release()
        raise
    return recorded(lock, writers, ReplicasWriter(folder, lock, description, writers), epochs)


class ReplicasWriter:
    """Writes what the replicas have in common, from what their own writers have.

    Parameters
    ----------
    folder : path
    lock : FolderLock
        Of it, held as long as this one writes.
    description : mapping
        What ``replicas.json`` says.
    writers : sequence of RunWriter
        One for each.

    Raises
    ------
    RunError
        If a file cannot be written, or the folder is no longer the one that is locked; by the methods.
    """

    def __init__(
        self, folder: Path, lock: FolderLock, description: Mapping[str, Any], writers: Sequence[RunWriter]
    ) -> None:
        self._folder, self._lock, self._writers = folder, lock, writers
        self._heading = f"{title(description)}, {len(writers)} seeds: mean, ± standard deviation, least to most"
        self._curve = [self._row(epoch) for epoch in range(len(writers[0].curve))]

    def _row(self, epoch: int) -> dict[str, Any]:
        return spread_of_rows([writer.curve[epoch] for writer in self._writers])

    def begin_again(self) -> None:
        """Write the lines of all epochs so far anew."""
        with self._writing():
            remove_leftovers(self._folder)
            write_atomically(self._folder / CURVE, b"".join(map(line_bytes, self._curve)))

    def write(self) -> None:
        """Add the epoch that all writers have."""
        self._curve.append(self._row(len(self._curve)))
        with self._writing():
            append(self._folder / CURVE, line_bytes(self._curve[-1]), durable=False)

    def finish(self) -> None:
        """Draw the mean curves with their bands, if there is anything to draw."""
        if self._curve:
            from mlp_xp.plots import plot_replicas, png  # matplotlib is slow to import, and comes last

            n_epochs = len(self._curve)  # some may have one more, if the disk is full
            losses = np.stack([np.concatenate(writer.losses[:n_epochs]) for writer in self._writers], axis=-1)
            with self._writing():
                write_atomically(self._folder / PICTURE, png(plot_replicas(losses, self._curve, self._heading)))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with writing(self._folder, remedy=partial(remedy, self._folder)):
            self._lock.check()
            yield
