"""``mlp-xp train``: the main job."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from mlp_xp.backend import Backend, open_backend
from mlp_xp.cli.options import (
    add_data_arguments,
    add_settings_arguments,
    describe,
    load_split,
    make_settings,
    make_source,
    path,
    replicas,
)
from mlp_xp.cli.progress import note, pretraining, progress, say
from mlp_xp.datasets import Split
from mlp_xp.datasets.source import DataSource
from mlp_xp.replica_runs import record_replicas
from mlp_xp.replicas import ReplicatedEpoch, train_replicas
from mlp_xp.runs import record
from mlp_xp.settings import Settings
from mlp_xp.training import Epoch, train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's options."""
    parser.add_argument("--backend", default="numpy", metavar="NAME", help="array library; default numpy")
    parser.add_argument("--device", metavar="NAME", help='such as "cpu" or "cuda:0"; default: the library\'s own')
    parser.add_argument("--out", type=path, metavar="RUN", help="folder to record the run in; default: nothing is kept")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is already there")
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
        metavar="N",
        help="keep a checkpoint after every N epochs, from which verify --epochs can start; 0 for none; "
        "default 1 in exact arithmetic, else 0",
    )
    add_data_arguments(parser)
    add_settings_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Train, printing the lab's line per epoch."""
    settings = make_settings(options)
    backend = open_backend(options.backend, options.device)
    source = make_source(options)
    data = load_split(source)
    result = "test loss" if data.train.n_classes is None else "test accuracy"
    of_seeds = "" if options.replicas is None else f"; mean ± standard deviation of {options.replicas} seeds"
    epochs = _train(options, settings, data, backend, source)
    note(describe(data))
    note(f"each line: epoch, mean loss of its batches, {result}{of_seeds}")
    for epoch in progress(epochs, settings.epochs, f"{data.train.name} on {backend.name}"):
        say(epoch.summary())
    kept = "nothing is kept; --out RUN records curve, weights and plot"
    note(kept if options.out is None else f"recorded in {options.out}")
    return 0


def _train(
    options: argparse.Namespace, settings: Settings, data: Split, backend: Backend, source: DataSource
) -> Iterator[Epoch | ReplicatedEpoch]:
    """Begin the training of one seed or of many, recorded if asked for."""
    out, how = options.out, {name: getattr(options, name) for name in ("checkpoint_every", "overwrite")}
    on_pretrained = pretraining(settings.n_pretraining_epochs)
    if (n := options.replicas) is None:
        epochs = train(settings, data, backend, on_pretrained=on_pretrained)
        return epochs if out is None else record(out, settings, data, backend, epochs, source=source, **how)
    many = train_replicas(settings, data, backend, n, on_pretrained=on_pretrained)
    return many if out is None else record_replicas(out, settings, data, backend, many, n, source=source, **how)


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of epochs such as 1, or 0 for none")
    return int(text)
