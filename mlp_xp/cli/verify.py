"""``mlp-xp verify``: whether a recorded model is what its data, seed and settings give."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from mlp_xp.backend import open_backend
from mlp_xp.cli.options import load_recorded
from mlp_xp.cli.progress import note, progress, say
from mlp_xp.errors import Disagreement
from mlp_xp.lock import refuse_busy
from mlp_xp.recorded import known_source, suggesting_resume
from mlp_xp.verification import RecordedRun, verify


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's options."""
    parser.epilog = (
        "First all files of the run are held against each other and against the data, then the training is done again: "
        "every loss, every parameter and the optimiser's state after every epoch must have the same bits. "
        "With --epochs, training goes on from the last checkpoint before the first of them; that checkpoint and the "
        "other epochs are then taken on trust. "
        "A run in exact arithmetic can be verified on any backend, one in native arithmetic on the backend, versions "
        "and machine that trained it. "
        "Exit code: 0 if all agrees, 1 if anything disagrees, 2 if the run or its data cannot be read."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that train --out made")
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help="array library to train on; default: numpy for exact arithmetic, else the one that trained, on its device",
    )
    parser.add_argument("--device", metavar="NAME", help='such as "cpu" or "cuda:0"; default: the library\'s own')
    parser.add_argument(
        "--epochs", type=_span, metavar="A-B", help="train only these again, such as 0-4, or 3 alone; default: all"
    )
    parser.add_argument("--data", metavar="NAME|FILE", help="where the data are now; default: where they were")


def run(options: argparse.Namespace) -> int:
    """Compare files with files, then files with a new training; 1 if anything disagrees."""
    for folder in (options.run, options.run.absolute().parent):  # who trains replicas holds the folder of all
        refuse_busy(folder)
    with suggesting_resume(options.run):
        recorded = RecordedRun(options.run)
    n_epochs, native = len(recorded.curve), recorded.settings.arithmetic != "exact"
    first, last = options.epochs or (0, n_epochs - 1)
    if native and options.backend is None:
        backend = open_backend(recorded.backend, options.device or recorded.device)
    else:
        backend = open_backend(options.backend or "numpy", options.device)
    source = known_source(recorded.folder, recorded.source, "verify it there, with mlp_xp.verification.verify")
    data = load_recorded(source, options.data)
    begin, steps = recorded.begin(first), 0
    try:
        epochs = verify(recorded, data, backend, first=first, last=last)
        note(f"the files agree: {n_epochs} epochs, chain {recorded.curve[-1]['sha256_chain']}")
        if n_epochs < recorded.settings.epochs:
            note(f"the run is unfinished: {n_epochs} of {recorded.settings.epochs} epochs are there")
        if native:
            note(
                f"native arithmetic promises nothing across libraries, versions or machines: elsewhere than where "
                f"{recorded.backend} trained this run, other bits may be rounding; --arithmetic exact promises the bits"
            )
        if native and len(recorded.backends) > 1:
            note(
                f"this run was trained on {' and then on '.join(recorded.backends)}; in native arithmetic the bits can "
                f"only be those of the epochs that {backend.name} trained: --epochs names some"
            )
        if native and recorded.replicas > 1:
            note(
                f"this is one of {recorded.replicas} replicas that were trained in one computation; trained alone, as "
                "here, it has other last bits in native arithmetic"
            )
        if begin:
            note(f"trained again from {recorded.checkpoint_name(begin - 1)}, which is taken on trust")
        for epoch in progress(epochs, last - begin + 1, f"{options.run} on {backend.name}"):
            steps += epoch.step_losses.size
            say(f"epoch {epoch.epoch}: {epoch.step_losses.size} steps agree, chain {epoch.digests.chain}")
    except Disagreement as error:
        print(f"mlp-xp: DISAGREES: {error}", file=sys.stderr)
        return 1
    which = f"all {n_epochs} epochs" if last - begin + 1 == n_epochs else f"epochs {begin}-{last} of 0-{n_epochs - 1}"
    say(f"verified: {which}, {steps} steps trained again on {backend.name}")
    return 0


def _span(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is neither an epoch nor a span of epochs such as 0-4")
    first, last = int(match[1]), int(match[2] or match[1])
    if first > last:
        raise argparse.ArgumentTypeError(f"{text!r} ends before it begins; did you mean {last}-{first}?")
    return first, last
