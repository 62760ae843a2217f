"""``mlp-xp predict``: labels and probabilities of new rows from a recorded run."""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from pathlib import Path

from mlp_xp.backend import open_backend
from mlp_xp.cli.options import path
from mlp_xp.datasets import load_features
from mlp_xp.errors import DataError
from mlp_xp.files import write_output, writing
from mlp_xp.model import Prediction
from mlp_xp.recorded import load_model, suggesting_resume


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's options."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a recorded run")
    parser.add_argument("--input", required=True, metavar="FILE", help="rows of features: CSV, NPY, NPZ or IDX images")
    parser.add_argument("--output", type=path, metavar="FILE", help="CSV file to write; default: standard output")
    parser.add_argument("--label-column", type=int, metavar="N", help="a column of the table that is not a feature")
    parser.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether a CSV's first line is names; default: looks",
    )
    parser.add_argument("--backend", default="numpy", metavar="NAME", help="whichever trained it; default numpy")
    parser.add_argument("--device", metavar="NAME", help='such as "cpu" or "cuda:0"; default: the library\'s own')


def run(options: argparse.Namespace) -> int:
    """Write a CSV of labels and probabilities, or of the numbers that a regression predicts."""
    if options.output is not None and os.path.realpath(options.output) == os.path.realpath(options.input):
        raise DataError(f"--output {options.output} would replace the --input; choose another name")
    backend = open_backend(options.backend, options.device)
    with suggesting_resume(options.run):
        model = load_model(options.run, backend)
    features = load_features(
        options.input,
        n_features=model.objective.network.layer_sizes[0],
        label_column=options.label_column,
        header=options.header,
    )
    text = _csv(model.predict(features))
    if options.output is None:
        sys.stdout.write(text)
        return 0
    with writing(options.output, "--output"):
        write_output(options.output, text.encode())
    return 0


def _csv(prediction: Prediction) -> str:
    labels, values = prediction
    rows = values.astype(str).tolist()  # the shortest digits that give the same number back in its own precision
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if labels is None:
        writer.writerow([f"value_{i}" for i in range(values.shape[1])])
        writer.writerows(rows)
    else:
        first_class = 1 if values.shape[1] == 1 else 0  # a single output is the probability of class 1
        writer.writerow(["label", *(f"probability_{i + first_class}" for i in range(values.shape[1]))])
        writer.writerows([label, *row] for label, row in zip(labels.tolist(), rows, strict=True))
    return buffer.getvalue()
