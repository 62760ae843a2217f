"""``mlp-xp certify``: the bits of every sum of a training in exact arithmetic."""

from __future__ import annotations

import argparse

from mlp_xp.arithmetic.bits import EXACT
from mlp_xp.arithmetic.certificate import certificate, certify
from mlp_xp.cli.options import add_data_arguments, add_settings_arguments, load_split, make_settings, make_source
from mlp_xp.cli.table import format_table
from mlp_xp.trainer import make_objective


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's options: those of ``train``, of which only what decides shapes and scale matters."""
    parser.epilog = (
        "Exact arithmetic gives the same bits everywhere because its sums never round: the numbers that are added are "
        "first shortened to so few bits that their sum always fits the 53 bits of a float64. For every sum of a "
        "training step the table has the bits of the factors of a term plus those that adding so many terms can take. "
        "Exit code: 0 if all fit, 2 if they do not; the message then says what to change."
    )
    add_data_arguments(parser)
    add_settings_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Print the certificate, or refuse."""
    settings = make_settings(options)
    data = load_split(make_source(options)).train
    sizes = make_objective(settings, data).network.layer_sizes
    certify(sizes, settings.batch_size, data.scale)
    rows = [
        (
            "loss" if entry.layer is None else f"layer {entry.layer}",
            entry.sum,
            f"{entry.terms:,}",
            " + ".join(str(bits) for bits in (entry.left, entry.right, entry.bits - entry.left - entry.right) if bits),
            str(entry.bits),
        )
        for entry in certificate(sizes, settings.batch_size)
    ]
    print(format_table(("where", "sum of", "terms", "bits of the factors + of adding", f"of {EXACT} bits"), rows))
    print(f"\nevery sum is an integer of at most {EXACT} bits times a power of two: none can round")
    return 0
