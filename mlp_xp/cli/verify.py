"""``mlp-xp verify``: whether a recorded model is what its data, seed and settings give."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from mlp_xp.backend import open_backend
from mlp_xp.cli.options import load_split
from mlp_xp.cli.progress import note, progress, say
from mlp_xp.errors import Disagreement, RunError
from mlp_xp.verification import RecordedRun, check_files, verify


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's options."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that train --out made")
    parser.add_argument("--backend", default="numpy", metavar="NAME", help="array library; default numpy")
    parser.add_argument("--device", metavar="NAME", help='such as "cpu" or "cuda:0"; default: the library\'s own')
    parser.add_argument("--epochs", type=_span, metavar="A-B", help="train these again, from 0; default: all")
    parser.add_argument("--data", metavar="NAME|FILE", help="where the data are now; default: where they were")


def run(options: argparse.Namespace) -> int:
    """Compare files with files, then files with a new training; 1 if anything disagrees."""
    recorded = RecordedRun(options.run)
    if recorded.source is None:
        raise RunError(f"{options.run}: trained on arrays of a program's own; verify it there: mlp_xp.verification")
    source = recorded.source if options.data is None else replace(recorded.source, name=options.data)
    first, last = options.epochs or (0, len(recorded.curve) - 1)
    steps = 0
    try:
        data = load_split(source)
        check_files(recorded, data)
        note(f"the files agree: {len(recorded.curve)} epochs, chain {recorded.curve[-1]['sha256_chain']}")
        if recorded.settings.arithmetic != "exact":
            note("native arithmetic: another library, version or processor may round differently; exact promises bits")
        backend = open_backend(options.backend, options.device)
        epochs = verify(recorded, data, backend, first=first, last=last)
        for epoch in progress(epochs, last - first + 1, f"{options.run} on {backend.name}"):
            steps += epoch.step_losses.size
            say(f"epoch {epoch.epoch}: {epoch.step_losses.size} steps agree, chain {epoch.digests.chain}")
    except Disagreement as error:
        print(f"mlp-xp: DISAGREES: {error}", file=sys.stderr)
        return 1
    say(f"verified: epochs {first}-{last} of {len(recorded.curve)}, {steps} steps trained again on {backend.name}")
    return 0


def _span(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    try:
        return int(first), int(last or first)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither an epoch nor a span of epochs such as 0-4") from None
