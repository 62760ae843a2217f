"""``mlp-xp train``: the main job, begun or gone on with."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mlp_xp.backend import Backend, open_backend
from mlp_xp.cli import drop_output
from mlp_xp.cli.options import (
    add_data_arguments,
    add_settings_arguments,
    describe,
    load_recorded,
    load_split,
    make_settings,
    make_source,
    path,
    replicas,
)
from mlp_xp.cli.progress import note, note_at_once, pretraining, progress, say
from mlp_xp.datasets import Split
from mlp_xp.description import NEWEST, describe_work, versions
from mlp_xp.divergence import LARGEST_GROWTH, is_growth
from mlp_xp.errors import MLPXPError, RunError, SettingsError, TrainingDiverged, TrainingInterrupted
from mlp_xp.replica_runs import record_replicas
from mlp_xp.replicas import ReplicatedEpoch, train_replicas
from mlp_xp.resuming import RecordedTraining
from mlp_xp.run_folder import how_to_go_on, may_go_on, resume_command
from mlp_xp.runs import record
from mlp_xp.stopping import Stop, stopping
from mlp_xp.training import MOST_ROLLBACKS, ON_DIVERGENCE, Epoch, train

DIVERGENCE = ("on_divergence", "largest_growth")
"""Options that say what to do when, and that a recorded run keeps to."""
WITH_RESUME = ("resume", "backend", "device", "data", "epochs", *DIVERGENCE)
"""Options that a run that goes on can be given; all else is as it was."""
_NOT_GIVEN = object()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's options."""
    parser.epilog = (
        "Ctrl-C (SIGINT) and SIGTERM finish the step, write a checkpoint and end with exit code 130 or 143; a second "
        "one ends at once. Whatever ends a recorded training, --resume RUN goes on with it."
    )
    parser.add_argument("--backend", metavar="NAME", help="array library; default numpy, or that of the run to resume")
    parser.add_argument("--device", metavar="NAME", help='such as "cpu" or "cuda:0"; default: the library\'s own')
    parser.add_argument("--out", type=path, metavar="RUN", help="folder to record the run in; default: nothing is kept")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is already there, at once")
    parser.add_argument(
        "--resume",
        type=path,
        metavar="RUN",
        help="go on with a recorded run from its last checkpoint, to the same bits as if it had never stopped; goes "
        "with --epochs (of the whole run), --backend, --device, --on-divergence, --largest-growth, and --data if that "
        "is elsewhere now",
    )
    parser.add_argument(
        "--replicas",
        type=replicas,
        metavar="N",
        help="train the network with N seeds, from --seed on, in one batched computation; each line has mean ± "
        "standard deviation, and RUN holds a run per seed",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=_count,
        default=1,
        metavar="N",
        help="write a checkpoint after every N epochs and after the last, from which --resume can go on and verify "
        "--epochs can start; 0 for none; default 1",
    )
    parser.add_argument(
        "--keep-checkpoints",
        type=_count,
        metavar="K",
        help=f"keep the newest K and the one with the least test loss; 0 for all; default {NEWEST}, and all in exact "
        "arithmetic",
    )
    parser.add_argument(
        "--on-divergence",
        choices=ON_DIVERGENCE,
        default="stop",
        help="if a loss or a gradient is not finite, or the loss explodes: stop (the default), or go back to the end "
        f"of the epoch before and on with half the learning rate, up to {MOST_ROLLBACKS} times; of replicas, all do",
    )
    parser.add_argument(
        "--largest-growth",
        type=_growth,
        default=LARGEST_GROWTH,
        metavar="F",
        help="the loss explodes if its mean over ten steps is more than F times what it is before anything is learnt; "
        f"inf for never; default {LARGEST_GROWTH:g}",
    )
    add_data_arguments(parser)
    add_settings_arguments(parser)
    # What the options are when none is given, beside values that nobody can give: so it can be told which were.
    defaults = vars(parser.parse_args([]))
    parser.set_defaults(**dict.fromkeys(defaults, _NOT_GIVEN), defaults=defaults)


class _Work(NamedTuple):
    """A training that is ready to run."""

    data: Split
    backend: Backend
    n_epochs: int
    n_done: int
    n_replicas: int | None
    folder: Path | None
    epochs: Iterator[Epoch | ReplicatedEpoch]


def run(options: argparse.Namespace) -> int:
    """Train, printing the lab's line per epoch; 128 + the signal's number if one came."""
    options.given = [name for name in options.defaults if getattr(options, name) is not _NOT_GIVEN]
    for name in options.defaults.keys() - options.given:
        setattr(options, name, options.defaults[name])
    stop = Stop()
    # A signal that comes before there is anything to save, perhaps while data are downloaded, ends it as any program.
    work = _begin(options, stop) if options.resume is None else _go_on(options, stop)
    with stopping(stop, _announce, lambda: note_at_once("stopped at once")):
        return _train(work, stop)


def _train(work: _Work, stop: Stop) -> int:
    result = "test loss" if work.data.train.n_classes is None else "test accuracy"
    of_seeds = f"; mean ± standard deviation of {work.n_replicas} seeds" if work.n_replicas else ""
    note(describe(work.data))
    note(f"each line: epoch, mean loss of its batches, {result}{of_seeds}")
    try:
        _watch(work, stop)
    except TrainingInterrupted as interruption:
        note(f"{interruption}; {_how_to_go_on(work)}")
        return stop.exit_code
    except RunError:
        raise  # says it
    except TrainingDiverged as error:
        _advise(error, work.folder)
        raise
    except (MLPXPError, MemoryError):
        note(_how_to_go_on(work))
        raise
    kept = "nothing is kept; --out RUN records curve, weights and plot"
    note(kept if work.folder is None else f"recorded in {work.folder}")
    return stop.exit_code


def _watch(work: _Work, stop: Stop) -> None:
    label = f"{work.data.train.name} on {work.backend.name}"
    for epoch in progress(work.epochs, work.n_epochs, label, n_done=work.n_done):
        for rollback in (epoch if isinstance(epoch, Epoch) else epoch.replicas[0]).rollbacks:
            note(str(rollback))
        try:
            say(epoch.summary())
        except BrokenPipeError:
            if not stop():
                raise
            drop_output()  # the same Ctrl-C has ended who reads this; the training is to be saved all the same


def _begin(options: argparse.Namespace, stop: Stop) -> _Work:
    """Begin the training of one seed or of many, recorded if asked for."""
    settings, source = make_settings(options), make_source(options)
    backend = open_backend(options.backend or "numpy", options.device)
    data, out, n = load_split(source), options.out, options.replicas
    how = _how(options, stop, settings.n_pretraining_epochs)
    recording = {name: getattr(options, name) for name in ("checkpoint_every", "keep_checkpoints", "overwrite")}
    epochs: Iterator[Epoch | ReplicatedEpoch]
    if n is None:
        epochs = single = train(settings, data, backend, **how)
        if out is not None:
            epochs = record(out, settings, data, backend, single, source=source, **recording)
    else:
        epochs = many = train_replicas(settings, data, backend, n, **how)
        if out is not None:
            epochs = record_replicas(out, settings, data, backend, many, n, source=source, **recording)
    return _Work(data, backend, settings.epochs, 0, n, out, epochs)


def _go_on(options: argparse.Namespace, stop: Stop) -> _Work:
    """Go on with a recorded training, of one seed or of many."""
    for name in options.given:
        if name not in WITH_RESUME:
            option = "hidden" if name == "hidden_layer_sizes" else name.replace("_", "-")
            raise SettingsError(
                f"--{option} does not go with --resume: {options.resume} says how it is trained and recorded; leave it "
                "out, or train a new run with --out"
            )
    recorded = RecordedTraining(options.resume)
    try:
        for remark in recorded.remarks:
            note(f"{remark}; an earlier checkpoint is taken")
        epoch, step, pretrained = recorded.position
        n_epochs = recorded.settings_for(options.epochs).epochs
        native = recorded.settings.arithmetic == "native"
        if options.backend is None:
            backend = open_backend(recorded.backend, options.device or recorded.device)
        else:
            backend = open_backend(options.backend, options.device)
        if native and backend.name != recorded.backend:
            note(
                f"the run was on {recorded.backend}; from here on the last bits are those of {backend.name}: only "
                "exact arithmetic has the same on all"
            )
        elif native and epoch < n_epochs:
            now = versions(describe_work(backend))
            if changed := [f"{name} {value}" for name, value in recorded.versions.items() if now.get(name) != value]:
                note(f"the run was with {', '.join(changed)}; from here on the last bits may be others")
        data = load_recorded(recorded.known_source(), options.data if "data" in options.given else None)
        n_pretraining = recorded.settings.n_pretraining_epochs
        if pretrained:
            where = f"goes on after {pretrained} of {n_pretraining} epochs of pre-training"
        elif (epoch, step) == (0, 0):
            where = "begins anew: no checkpoint"
        else:
            where = "is finished" if epoch >= n_epochs else f"goes on with epoch {epoch}, step {step}"
        note(f"{options.resume} {where}")
        epochs = recorded.resume(data, backend, epochs=options.epochs, **_how(options, stop, n_pretraining, pretrained))
    except BaseException:
        recorded.release()
        raise
    return _Work(data, backend, n_epochs, epoch, recorded.n_replicas, options.resume, epochs)


def _how(options: argparse.Namespace, stop: Stop, n_pretraining_epochs: int, n_pretrained: int = 0) -> dict[str, Any]:
    watch = {name: getattr(options, name) for name in DIVERGENCE if name in options.given}  # else as the run says
    return {"on_pretrained": pretraining(n_pretraining_epochs, n_pretrained), "stop": stop, **watch}


def _advise(error: TrainingDiverged, folder: Path | None) -> None:
    """Say which options there are for a training that diverged."""
    if folder is None:
        how = "train again, with"
    else:
        how = resume_command(folder) if may_go_on(folder) else "train again, with --overwrite and"
    if error.can_roll_back and folder is not None:
        note(f"to go on with half the learning rate: {how} --on-divergence rollback")
    if error.explodes:
        note(f"if such a loss is to be expected: {how} --largest-growth inf")


def _how_to_go_on(work: _Work) -> str:
    if work.folder is None:
        return "nothing is kept, for want of --out RUN"
    return how_to_go_on(work.folder)


def _announce(stop: Stop) -> None:
    name = "" if stop.signal is None else f"{stop.signal.name}: "
    note_at_once(f"{name}finishing the step, and saving if asked to; once more stops at once")


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number such as 1, or 0")
    return int(text)


def _growth(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not is_growth(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number > 1 such as 1000, or inf")
    return value
