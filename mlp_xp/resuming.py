"""Going on with a recorded training, to the same end as if it had never stopped.

In exact arithmetic that is so to the last bit on any backend; in native arithmetic on the same backend, versions and
machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from mlp_xp.backend import Backend
from mlp_xp.checkpoint import BEGINNING, Checkpoint
from mlp_xp.checkpoint_files import OfAnotherRunError, list_positions, place, read_checkpoint
from mlp_xp.datasets.dataset import Split
from mlp_xp.datasets.source import DataSource
from mlp_xp.description import (
    check_description,
    describe_data,
    describe_replica,
    describe_work,
    go_on,
    how_watched,
    versions,
)
from mlp_xp.digests import Digests, chain, digest_arrays, first_link
from mlp_xp.errors import RunError, SettingsError
from mlp_xp.files import write_atomically, writing
from mlp_xp.lock import FolderLock
from mlp_xp.pretraining import Pretrained
from mlp_xp.recorded import (
    count_lines,
    known_source,
    raise_passing,
    read_curve,
    read_description,
    read_replicas,
    read_source,
    read_steps,
    understanding,
    unreadable,
    unusable,
)
from mlp_xp.replica_runs import ReplicasWriter
from mlp_xp.replicas import ReplicatedEpoch, settings_of_replicas, train_replicas
from mlp_xp.run_folder import CHECKPOINTS, CURVE, PICTURE, REPLICA, REPLICAS, RUN, STEPS, resume_command
from mlp_xp.run_writer import Past, RunWriter, json_bytes, recorded, remedy
from mlp_xp.runs import Alone
from mlp_xp.settings import Settings
from mlp_xp.training import NUMBERS, Epoch, check_is_split, never, train


def resume(
    folder: Path | str,
    backend: Backend,
    data: Split | None = None,
    *,
    epochs: int | None = None,
    on_pretrained: Callable[[Pretrained], None] | None = None,
    stop: Callable[[], bool] = never,
    on_divergence: str | None = None,
    largest_growth: float | None = None,
) -> Iterator[Epoch | ReplicatedEpoch]:
    """Go on with a recorded training from its last checkpoint, and hand on the epochs that are still missing.

    The folder is locked and made ready by this call itself, as by `mlp_xp.runs.record`. Without a checkpoint the
    training begins anew.

    Parameters
    ----------
    folder : path
        That `mlp_xp.runs.record` or `mlp_xp.replica_runs.record_replicas` made.
    backend : Backend
    data : Split, optional
        By default loaded from where they were.
    epochs : int, optional
        Of the whole training; by default as many as its settings say.
    on_pretrained, stop
        As of `mlp_xp.training.train`.
    on_divergence : str, optional
    largest_growth : float, optional
        Both as there; by default what the run says.

    Returns
    -------
    iterator of Epoch or of ReplicatedEpoch

    Raises
    ------
    RunError
        If there is no such run, another process is at work on it, its files are damaged or cannot be written, or the
        data are not those it was trained on.
    SettingsError
        If there are more epochs already.
    DataError, DownloadError
        If the data cannot be loaded.
    """
    run = RecordedTraining(folder)
    try:
        return run.resume(
            run.known_source().load() if data is None else data,
            backend,
            epochs=epochs,
            on_pretrained=on_pretrained,
            stop=stop,
            on_divergence=on_divergence,
            largest_growth=largest_growth,
        )
    except BaseException:
        run.release()
        raise


@dataclass
class _Network:
    """A run's own folder, and what is in it up to the checkpoint it goes on from.

    ``is_begun`` tells whether the folder is this run's already, not still that of a run that it replaces.
    """

    folder: Path
    description: dict[str, Any]
    settings: Settings
    is_begun: bool = True
    past: Past = field(default_factory=Past)


class RecordedTraining:
    """A recorded training, of one network or of replicas, that is to go on; its folder is locked until `release`.

    Parameters
    ----------
    folder : path

    Attributes
    ----------
    settings : Settings
        Of replicas, the first one's.
    source : DataSource or None
        Where the data came from.
    backend, device : str
        Those that trained last.
    versions : dict of str to str
        Of what it was trained with then.
    on_divergence : str
    largest_growth : float
        What to do if it diverges, and from when on it does.
    n_replicas : int or None
        None for one network alone.
    position : Position
        Where it goes on.
    remarks : list of str
        What was found on the way: checkpoints that are damaged.

    Raises
    ------
    RunError
        If there is no run, another process is at work on it, or its files are damaged.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.remarks: list[str] = []
        try:
            is_whole = (self.folder / REPLICAS).exists()
        except PermissionError as error:
            raise unreadable(self.folder, error) from error
        except OSError as error:  # of a name that no file can have
            raise RunError(f"{self.folder} cannot be read: {error.strerror}; give a run's folder") from error
        if not is_whole:
            read_description(self.folder)  # before anything is written: it may be no run at all
        elif (self.folder / RUN).exists():
            raise RunError(
                f"{self.folder} has {RUN} and {REPLICAS}: one run was interrupted while it replaced the other; "
                "begin it again, with --overwrite"
            )
        with writing(self.folder, remedy="it must be writable to go on"):
            self._lock = FolderLock(self.folder)
        try:
            self._read()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let others in."""
        self._lock.release()

    def _read(self) -> None:
        self._whole = read_replicas(self.folder) if (self.folder / REPLICAS).exists() else None
        self.n_replicas = None
        path = self.folder / (RUN if self._whole is None else REPLICAS)
        first = self._whole or read_description(self.folder)
        with understanding(path, "a run that can go on"):
            if self._whole is not None:
                self._networks = _replicas(self.folder, self._whole)
                self.n_replicas = len(self._networks)
            elif first.get("replicas", 1) != 1:
                around = self.folder.absolute().parent
                all_of_them = resume_command(around) if (around / REPLICAS).exists() else f"their {REPLICAS} is missing"
                raise RunError(
                    f"{self.folder} is one of {first['replicas']} replicas, which were trained in one computation; "
                    f"go on with all of them: {all_of_them}"
                )
            else:
                self._networks = [_Network(self.folder, first, Settings.from_dict(first["settings"]))]
            if self._whole is not None:
                check_description(self._whole)
            for network in self._networks:
                with understanding(network.folder / RUN if network.is_begun else path, "a run that can go on"):
                    check_description(network.description, sha256_start=str)
            self.source = read_source(first)
            work = (first["resumed"] or [first])[-1]
            self.backend, self.device = str(work["backend"]["name"]), str(work["backend"]["device"])
            self.versions = versions(work)
            self.on_divergence, self.largest_growth = how_watched(first)
        self.settings = self._networks[0].settings
        self._find_past()
        checkpoint = self._networks[0].past.checkpoint
        self.position = BEGINNING if checkpoint is None else checkpoint.position

    def _find_past(self) -> None:
        """Find the latest moment of which every network has a whole checkpoint, and what led to it."""
        positions, of_another = [list_positions(network.folder) for network in self._networks], False
        for position in sorted(set.intersection(*map(set, positions)), reverse=True):
            try:
                checkpoints = [
                    read_checkpoint(network.folder, position, network.description["id"]) for network in self._networks
                ]
            except OfAnotherRunError:  # which was about to be replaced, when this one had just begun
                of_another = True
                continue
            except RunError as error:
                raise_passing(error)  # to go on from an earlier one would remove this one
                self.remarks.append(str(error))
                continue
            # Lines were on the disk before it was: without them nothing goes on, lest whole checkpoints be removed.
            try:
                for network, checkpoint in zip(self._networks, checkpoints, strict=True):
                    network.past = _read_past(network, checkpoint)
            except RunError as error:
                raise_passing(error)
                raise RunError(
                    f"{error}; the checkpoint {place(self.folder, position).name} is whole: to go on from an earlier "
                    "one all the same, and lose what came after, remove it"
                ) from error
            if position == BEGINNING:
                self._refuse_to_lose()
            return
        if self.remarks:
            raise RunError(f"no checkpoint of {self.folder} can be used: {self.remarks[0]}")
        if not of_another:
            self._refuse_to_lose()

    def _refuse_to_lose(self) -> None:
        """Refuse to begin anew where epochs are recorded that were not to be without a checkpoint."""
        for network in (each for each in self._networks if each.is_begun):
            n, every = _count_epochs(network), network.description["checkpoints"]["every"]
            is_finished = n >= network.settings.epochs and (self.folder / PICTURE).exists()
            # A first checkpoint may have been about to be written; else there was one, or none was wanted.
            if n > every or is_finished:
                beside = "" if self.n_replicas is None else ", or a replica lacks the one that the others have"
                raise RunError(
                    f"{network.folder} has {n} epochs, but no checkpoint to go on from: {CHECKPOINTS}/ was removed, or "
                    f"none were kept (--checkpoint-every 0){beside}; to train again, and remove what is there, use "
                    "--overwrite"
                )

    def settings_for(self, epochs: int | None) -> Settings:
        """Return the settings, perhaps with other epochs of the whole training.

        Raises
        ------
        SettingsError
            If there are more already.
        """
        settings = self.settings if epochs is None else replace(self.settings, epochs=epochs)
        if settings.epochs < (done := self.position.epoch):
            raise SettingsError(f"epochs = {settings.epochs}: the run has {done} already; give that many at least")
        return settings

    def known_source(self) -> DataSource:
        """Return what the data are to be loaded from; raises as `mlp_xp.recorded.known_source`."""
        return known_source(self.folder, self.source, "go on there, with mlp_xp.resume(folder, backend, data)")

    def resume(
        self,
        data: Split,
        backend: Backend,
        *,
        epochs: int | None = None,
        on_pretrained: Callable[[Pretrained], None] | None = None,
        stop: Callable[[], bool] = never,
        on_divergence: str | None = None,
        largest_growth: float | None = None,
    ) -> Iterator[Epoch | ReplicatedEpoch]:
        """Go on as `resume` does; the lock is then the iterator's."""
        self._check(data)
        settings = self.settings_for(epochs)
        checkpoints = [network.past.checkpoint for network in self._networks if network.past.checkpoint is not None]
        how: dict[str, Any] = {
            "on_pretrained": on_pretrained,
            "stop": stop,
            "on_divergence": self.on_divergence if on_divergence is None else on_divergence,
            "largest_growth": self.largest_growth if largest_growth is None else largest_growth,
        }
        start = checkpoints or None
        # Before anything is written: the checkpoints may not fit the network.
        if self.n_replicas is None:
            single = train(settings, data, backend, start=start and start[0], **how)
            watch = single.watch()
        else:
            many = train_replicas(settings, data, backend, self.n_replicas, start=start, **how)
            watch = many.watch()
        is_over = settings.epochs == self.position.epoch
        work = None if is_over else {**self.position._asdict(), **describe_work(backend)}
        whole = None if self.n_replicas is None else self.folder
        for network in self._networks:
            go_on(network.description, settings.epochs, watch, work, network.past.checkpoint)
        writers = [
            RunWriter(network.folder, self._lock, network.description, network.past, whole=whole)
            for network in self._networks
        ]
        if self._whole is None:
            return recorded(self._lock, writers, Alone(writers[0]), single)
        go_on(self._whole, settings.epochs, watch, work, self._networks[0].past.checkpoint)
        with writing(self.folder, remedy=partial(remedy, self.folder)):
            self._lock.check()
            write_atomically(self.folder / REPLICAS, json_bytes(self._whole))
        replicas = ReplicasWriter(self.folder, self._lock, self._whole, writers)
        replicas.begin_again()
        return recorded(self._lock, writers, replicas, many)

    def _check(self, data: Split) -> None:
        """See that data and settings are those that the run has."""
        check_is_split(data)
        about_data = describe_data(data)
        for network in self._networks:
            path, recorded_data = network.folder / RUN, network.description["data"]
            for name, found in about_data.items():
                if recorded_data.get(name) != found:
                    raise RunError(
                        f"{self.folder}: the data are not those it was trained on: {name} is {found!r}, but {path} "
                        f"says {recorded_data.get(name)!r}; give those, or train a new run"
                    )
            digests = about_data["sha256_train"], about_data["sha256_test"]
            if first_link(network.settings, *digests) != network.description.get("sha256_start"):
                raise unusable(path, "its settings are not those it was begun with")


def _replicas(folder: Path, whole: dict[str, Any]) -> list[_Network]:
    """Return the replicas, those included that a training that stopped at once has not described yet."""
    networks = []
    for settings in settings_of_replicas(Settings.from_dict(whole["settings"]), len(whole["seeds"])):
        own = folder / f"{REPLICA}{settings.seed}"
        if own.is_symlink():
            raise RunError(f"{own} is a link to another place, which is not written to; replace it by what it leads to")
        description = read_description(own) if (own / RUN).exists() else {}
        if not (is_begun := description.get("id") == whole["id"]):
            description = describe_replica(whole, settings)
        networks.append(_Network(own, description, Settings.from_dict(description["settings"]), is_begun))
    return networks


def _count_epochs(network: _Network) -> int:
    """Return how many epochs of a run are recorded; those that another run has left in its folder are none of it."""
    if not (n := count_lines(network.folder / CURVE)):
        return 0
    (row,) = read_curve(network.folder, 1)
    *digests, last = (row[f"sha256_{name}"] for name in Digests._fields)
    first = chain(network.description["sha256_start"], {name: row[name] for name in NUMBERS}, digests)
    return n if first == last else 0


def _read_past(network: _Network, checkpoint: Checkpoint) -> Past:
    """Return what led to a checkpoint, which must be what it says."""
    folder, position = network.folder, checkpoint.position
    curve, steps = read_curve(folder, position.epoch), read_steps(folder, position.epoch)
    losses = [steps.of_epoch(epoch) for epoch in range(position.epoch)]
    for epoch, (row, of_steps) in enumerate(zip(curve, losses, strict=True)):
        if row["epoch"] != epoch:
            raise unusable(f"{folder / CURVE}, line {epoch + 1}", f"epoch {row['epoch']} where epoch {epoch} belongs")
        if row["sha256_losses"] != digest_arrays({"losses": of_steps}):
            raise unusable(folder / STEPS, f"the losses of epoch {epoch} are not those of {CURVE}")
    if (curve[-1]["sha256_chain"] if curve else network.description["sha256_start"]) != checkpoint.chain:
        raise unusable(folder / CURVE, f"it does not lead to the checkpoint {place(folder, position).name}")
    if position.step:
        checkpoint = replace(checkpoint, beginning=_read_beginning(network, checkpoint))
    return Past(checkpoint, curve, losses)


def _read_beginning(network: _Network, checkpoint: Checkpoint) -> Checkpoint | None:
    """Return the checkpoint of an epoch's beginning, if there is one that can be used."""
    epoch = checkpoint.position.epoch
    there = [each for each in list_positions(network.folder) if each.epoch == epoch and not each.step]
    try:
        found = read_checkpoint(network.folder, there[-1], network.description["id"]) if there else None
    except RunError as error:
        raise_passing(error)
        return None
    return found if found is not None and found.chain == checkpoint.chain else None
