"""``mlp-xp study``: what holds of gradients, of principal components and of k-means: a table, a picture, and JSON."""

from __future__ import annotations

import argparse
import json
import warnings
from importlib import import_module
from pathlib import Path

from mlp_xp.cli.options import path
from mlp_xp.cli.progress import note
from mlp_xp.files import make_folder, write_atomically, writing

STUDIES = {
    "gradients": "how gradients vanish in deep networks, and what helps",
    "kmeans": "how k-means falls, ends and depends on k, and what outliers do to means and medians",
    "pca": "what principal components are, and what leaves them as they are",
}
"""Name -> what it shows; each has a module ``mlp_xp.cli.study_NAME``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a subcommand per study."""
    subparsers = parser.add_subparsers(dest="study", required=True, metavar="STUDY")
    for name, summary in STUDIES.items():
        subparser = subparsers.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        subparser.add_argument("--backend", default="numpy", metavar="NAME", help="array library; default numpy")
        subparser.add_argument("--device", metavar="NAME", help="default: the library's own")
        subparser.add_argument(
            "--out",
            type=path,
            metavar="DIR",
            help=f"folder for {name}.png, {name}.txt and {name}.json; default: only the table is shown",
        )
        import_module(f"mlp_xp.cli.study_{name}").add_arguments(subparser)


def run(options: argparse.Namespace) -> int:
    """Do a study, print its table, and return 1 if a claim does not hold."""
    if options.out is not None:
        with writing(options.out):
            make_folder(options.out)
    study = import_module(f"mlp_xp.cli.study_{options.study}")
    with warnings.catch_warnings(record=True) as caught:  # of many fits, each of which would say the same
        warnings.simplefilter("always")
        report, draw = study.run(options)
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        note(message)
    print(report.text())
    if options.out is not None:
        from mlp_xp.plots import png  # matplotlib is slow to import, and comes last

        files = {
            "txt": f"{report.text()}\n".encode(errors="backslashreplace"),  # a file's name may be no text
            "json": (json.dumps(report.to_dict(), indent=1) + "\n").encode(),
            "png": png(draw()),
        }
        _write(options.out, report.name, files)
        note(f"{report.name}.png, {report.name}.txt and {report.name}.json are in {options.out}")
    return 0 if report.holds else 1


def _write(folder: Path, name: str, files: dict[str, bytes]) -> None:
    with writing(folder):
        for kind, content in files.items():
            write_atomically(folder / f"{name}.{kind}", content)
