"""``mlp-xp compare``: one training on several backends, one table, one picture."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tqdm import tqdm

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
from mlp_xp.cli.progress import note
from mlp_xp.cli.table import format_table
from mlp_xp.comparison import Comparison, Difference, Training, compare
from mlp_xp.errors import BackendUnavailable
from mlp_xp.files import make_folder, write_atomically, writing
from mlp_xp.replicas import ReplicatedEpoch
from mlp_xp.training import Epoch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's options."""
    parser.add_argument(
        "--backends",
        required=True,
        type=_names,
        metavar="NAME,NAME,…",
        help='the first is the reference; a name may have a device: "torch:cpu,torch:cuda"',
    )
    parser.add_argument("--available", action="store_true", help="leave out backends that cannot be opened here")
    parser.add_argument(
        "--replicas",
        type=replicas,
        metavar="N",
        help="also train N seeds, from --seed on, on the reference, and say whether the backends differ by more",
    )
    parser.add_argument("--out", type=path, metavar="DIR", help="folder for compare.json and compare.png")
    add_data_arguments(parser)
    add_settings_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Train on every backend, print the table, and return 1 if a backend leaves the tolerance."""
    settings = make_settings(options)
    backends = _open(options.backends, skip_unavailable=options.available)
    if options.out is not None:
        with writing(options.out):
            make_folder(options.out)
    data = load_split(make_source(options))
    note(describe(data))
    total = settings.epochs * (len(backends) + (options.replicas is not None))
    with tqdm(total=total, desc=backends[0].name, unit="epoch", disable=None, leave=False) as bar:

        def on_epoch(backend: Backend, _: Epoch | ReplicatedEpoch) -> None:
            bar.set_description(backend.name, refresh=False)
            bar.update()

        comparison = compare(settings, data, backends, on_epoch, options.replicas)
    print(_table(comparison))
    if comparison.seeds is not None:
        print(comparison.beside_seeds())
    if options.out is not None:
        _write(options.out, comparison)
        note(f"compare.json and compare.png are in {options.out}")
    if not comparison.within_tolerance and settings.arithmetic == "exact":
        note(
            "exact arithmetic gives every backend the same bits: one of them, or this project, has a fault; "
            "please report it"
        )
        return 1
    if not comparison.within_tolerance:
        note(
            "a backend leaves the tolerance or diverges: it computes something else, or this training amplifies "
            "rounding; try --dtype float64, where rounding is 1e9 times smaller and a mistake as large as before, "
            "or a smaller --learning-rate"
        )
        return 1
    return 0


def _open(names: list[str], *, skip_unavailable: bool) -> list[Backend]:
    backends = []
    for name, _, device in (name.partition(":") for name in names):
        try:
            backends.append(open_backend(name, device or None))
        except BackendUnavailable as error:
            if not skip_unavailable:
                raise BackendUnavailable(f"{error} (--available leaves such backends out)") from error
            note(f"left out: {error}")
    if not backends:
        raise BackendUnavailable(f"none of the backends {', '.join(names)} can be opened here")
    if len(backends) == 1:
        raise BackendUnavailable(f"only {backends[0].name!r} of {', '.join(names)} can be opened: nothing to compare")
    return backends


def _table(comparison: Comparison) -> str:
    header = ("backend", "device", "final loss", "test accuracy", "seconds", "largest difference", "at", "")
    rows = []
    for i, training in enumerate(comparison.trainings):
        last = training.curve[-1] if training.curve else {"loss": None, "accuracy": None}
        difference = comparison.difference(training)
        rows.append(
            (
                training.name,
                training.device,
                _cell(last["loss"], ".6g"),
                _cell(last["accuracy"], ".2%"),
                f"{training.seconds:.2f}",
                "-" if i == 0 else _cell(difference.value, ".2e"),
                "-" if i == 0 else _cell(difference.at),
                "reference" if i == 0 else _verdict(training, difference),
            )
        )
    return format_table(header, rows)


def _cell(value: object, form: str = "") -> str:
    return "-" if value is None else format(value, form)


def _verdict(training: Training, difference: Difference) -> str:
    verdicts = []
    if training.diverged is not None:
        verdicts.append(f"DIVERGED ({training.diverged})")
    if difference.first_outside is not None:
        verdicts.append(f"OUTSIDE TOLERANCE from {difference.first_outside}")
    if not verdicts and not difference.within_tolerance:
        verdicts.append("OTHER BITS in the parameters")
    return ", ".join(verdicts) or ("same bits" if difference.same_bits else "ok")


def _write(folder: Path, comparison: Comparison) -> None:
    from mlp_xp.plots import plot_comparison, png  # matplotlib is slow to import, and comes last

    with writing(folder):
        write_atomically(folder / "compare.json", (json.dumps(comparison.to_dict()) + "\n").encode())
        write_atomically(folder / "compare.png", png(plot_comparison(comparison)))


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if len(names) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} does not name two backends to compare")
    return names
