"""``mlp-xp backends``: what is installed, on which devices, whether it computes rightly, and if not, what to do."""

from __future__ import annotations

import argparse
import json
from typing import Any

from mlp_xp.backend import list_backends, load_backend, open_backend
from mlp_xp.cli.table import format_table
from mlp_xp.errors import MLPXPError, TrainingDiverged
from mlp_xp.exactness import DIGEST, exact_digest
from mlp_xp.selftest import self_test

WRONG = "computes wrong numbers; do not use it here"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's options."""
    parser.add_argument("--json", action="store_true", help="for machines")


def run(options: argparse.Namespace) -> int:
    """Look at every registered backend."""
    reports = [examine(name) for name in list_backends()]
    if options.json:
        print(json.dumps(reports, indent=2))
        return 0
    header = ("backend", "installed", "version", "devices", "a small training on it", "exact")
    rows = [
        (
            report["name"],
            "yes" if report["installed"] else "no",
            report["version"] or "-",
            ", ".join(report["devices"]) or "-",
            report["check"] or "-",
            {None: "-", True: "same bits", False: "OTHER BITS"}[report["exact"]],
        )
        for report in reports
    ]
    print(format_table(header, rows))
    for report in reports:
        if report["reason"]:
            print(f"\n{report['reason']}")
    return 0


def examine(name: str) -> dict[str, Any]:
    """Return what there is to say of a backend, as JSON can hold it.

    Returns
    -------
    dict
        ``name``; ``installed``; ``ready``: it can be used here and computes rightly; ``version``; ``devices``;
        ``description``: see `mlp_xp.backend.Backend.describe`; ``check``: what a small training gave, in words;
        ``errors``: dtype -> its largest error; ``exact``: whether exact arithmetic has its bits here; ``reason``:
        why it is not ready and what to do. What is not known is None.
    """
    report: dict[str, Any] = {"name": name, "installed": False, "ready": False, "version": None, "devices": []}
    report |= dict.fromkeys(("description", "check", "errors", "exact", "reason"))
    try:
        backend_class = load_backend(name)
        report["installed"] = True
        report["devices"] = list(backend_class.devices())
        backend = open_backend(name)
        report["description"] = backend.describe()
        report["version"] = str(next(iter(report["description"].values())))
        test = self_test(backend)
    except TrainingDiverged:
        return {**report, "check": "WRONG (not finite)", "reason": f"backend {name!r} {WRONG}"}
    except MLPXPError as error:
        return {**report, "reason": str(error)}
    except Exception as error:  # whatever a broken library raises is what the user has to know
        return {**report, "reason": f"backend {name!r} does not work here: {type(error).__name__}: {error}"}
    errors = ", ".join(f"{error:.0e} off in {dtype}" for dtype, error in test.errors.items())
    report["errors"] = test.errors
    if not test.passed:
        return {**report, "check": f"WRONG ({errors})", "reason": f"backend {name!r} {WRONG}"}
    exact = exact_digest(backend) == DIGEST
    return {**report, "ready": True, "check": f"right ({errors})", "exact": exact}
