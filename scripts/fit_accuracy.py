"""Whether the estimators learn as well as scikit-learn's: the same data and settings, the mean score over seeds.

A seed decides which rows are trained on, and it is the estimator's ``random_state``. Scikit-learn's learns in float64;
this project's in every arithmetic on every backend, with X on its device. The score is that of the other rows, accuracy
or, for a regression, of one output, R². The means must lie within one standard error (the standard deviation of
scikit-learn's scores / the square root of the number of seeds): otherwise the exit status is 1.

    python scripts/fit_accuracy.py                                         # all; some 10 minutes
    python scripts/fit_accuracy.py --data wine,diabetes --seeds 3 --backends numpy --json fit-accuracy.json
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sklearn
import sklearn.neural_network
from sklearn.exceptions import ConvergenceWarning

import accuracy_tasks
import mlp_xp.neural_network
from accuracy import ARITHMETICS, Spread
from bench import machine, names
from bench_fit import PEER
from mlp_xp.backend import Backend, list_backends, open_backend
from mlp_xp.cli.progress import progress
from mlp_xp.cli.table import format_table
from mlp_xp.datasets import Dataset, Split, load
from mlp_xp.errors import BackendUnavailable
from mlp_xp.files import make_folder, write_atomically

DATA: dict[str, Callable[[int], Split]] = {
    "digits": lambda seed: load("digits").split(random_state=seed),
    "breast_cancer": lambda seed: accuracy_tasks.standardised(accuracy_tasks.breast_cancer(seed), "features"),
    "wine": lambda seed: accuracy_tasks.standardised(accuracy_tasks.wine(seed), "features"),
    "classes": accuracy_tasks.classes,
    "diabetes": accuracy_tasks.diabetes,
    "friedman1": partial(accuracy_tasks.friedman, 0),
}
"""Name -> what splits the rows by a seed."""


@dataclass(frozen=True)
class Line:
    """An estimator of this project beside scikit-learn's.

    Attributes
    ----------
    data, solver, estimator : str
    theirs, ours : list of float
        The score of every seed.
    """

    data: str
    solver: str
    estimator: str
    theirs: list[float]
    ours: list[float]

    @property
    def standard_error(self) -> float:
        """That of the mean of scikit-learn's scores."""
        return Spread.of(self.theirs).deviation / math.sqrt(len(self.theirs))

    @property
    def difference(self) -> float:
        """By how many standard errors the mean of this project's scores is above that of scikit-learn's."""
        difference = Spread.of(self.ours).mean - Spread.of(self.theirs).mean
        if difference == 0.0 or self.standard_error == 0.0:
            return math.copysign(math.inf, difference) if difference else 0.0
        return difference / self.standard_error

    @property
    def is_within(self) -> bool:
        """Whether the difference is noise."""
        return abs(self.difference) < 1.0

    def cells(self) -> tuple[str, ...]:
        """Return what the table has of it."""
        theirs, ours = (f"{Spread.of(scores).mean:.4f}" for scores in (self.theirs, self.ours))
        numbers = theirs, f"{self.standard_error:.4f}", ours, f"{self.difference:+.2f}"
        return self.data, self.solver, self.estimator, *numbers, "yes" if self.is_within else "NO"


HEADER = ("data", "solver", "estimator", PEER, "standard error", "mlp_xp", "difference / standard error", "under one")


def score(module: Any, data: Split, place: Callable[[Any], Any], **settings: Any) -> float:
    """Return the score of a module's estimator, fitted where ``place`` moves the features."""
    is_regression = data.train.n_classes is None
    kind = module.MLPRegressor if is_regression else module.MLPClassifier

    def table(part: Dataset) -> tuple[Any, Any]:
        return place(part.features * part.scale), part.targets[:, 0] if is_regression else part.targets

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = kind(**settings).fit(*table(data.train))
    return float(fitted.score(*table(data.test)))


def measure(name: str, settings: dict[str, Any], n_seeds: int, backends: Sequence[Backend]) -> list[Line]:
    """Fit scikit-learn's estimator and this project's, in every arithmetic on every backend, from every seed."""
    theirs: list[float] = []
    ours: dict[str, list[float]] = {f"{each.name} {arithmetic}": [] for each in backends for arithmetic in ARITHMETICS}

    def fits() -> Iterator[None]:
        for seed in range(n_seeds):
            data, seeded = DATA[name](seed), {**settings, "random_state": seed}
            theirs.append(score(sklearn.neural_network, data, lambda X: X, **seeded))
            yield
            for backend in backends:
                for arithmetic, choice in ARITHMETICS.items():
                    place = partial(backend.asarray, dtype=choice["dtype"])
                    found = score(mlp_xp.neural_network, data, place, arithmetic=choice["arithmetic"], **seeded)
                    ours[f"{backend.name} {arithmetic}"].append(found)
                    yield

    for _ in progress(fits(), n_seeds * (1 + len(ours)), f"{name}, {settings['solver']}", "fit"):
        pass
    return [Line(name, settings["solver"], estimator, theirs, scores) for estimator, scores in ours.items()]


def installed() -> list[str]:
    """Return the backends that can be opened here."""
    found = []
    for name in list_backends():
        try:
            open_backend(name)
        except BackendUnavailable:
            continue
        found.append(name)
    return found


def main(arguments: Sequence[str]) -> bool:
    """Fit, print, write what was asked for, and return whether all differences are noise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=",".join(DATA), help="among these, which are the default: %(default)s")
    parser.add_argument("--seeds", type=int, default=10, help="from 0; default: %(default)s")
    parser.add_argument("--backends", help=f"among {', '.join(list_backends())}; default: those that are installed")
    parser.add_argument("--sgd-rate", type=float, default=0.01, help="sgd's learning rate; default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    options = parser.parse_args(arguments)
    chosen = names(options.data, list(DATA), parser)
    backends = [
        open_backend(each) for each in names(options.backends or ",".join(installed()), list_backends(), parser)
    ]
    if options.seeds < 2:
        parser.error("--seeds: at least 2, for a standard error")
    if options.json:
        make_folder(options.json.parent)

    here = machine()
    print(f"{here['cpu']}, {here['cores']} cores", flush=True)
    # Otherwise scikit-learn's defaults: 100 hidden units, batches of 200, at most 200 epochs, momentum 0.9.
    solvers = [{"solver": "adam"}, {"solver": "sgd", "learning_rate_init": options.sgd_rate}]
    lines = [line for name in chosen for each in solvers for line in measure(name, each, options.seeds, backends)]
    print(format_table(HEADER, [line.cells() for line in lines]))
    n_within = sum(line.is_within for line in lines)
    print(f"Means over {options.seeds} seeds: {n_within} of {len(lines)} differ by less than one standard error.")
    if options.json:
        content = {
            "command": shlex.join(["scripts/fit_accuracy.py", *arguments]),
            "machine": here,
            PEER: sklearn.__version__,
            "backends": {backend.name: backend.describe() for backend in backends},
            "settings": solvers,
            "lines": [
                {
                    **asdict(line),
                    "standard_error": line.standard_error,
                    "difference_in_standard_errors": line.difference,
                }
                for line in lines
            ],
        }
        write_atomically(options.json, f"{json.dumps(content, indent=1)}\n".encode())
    return n_within == len(lines)


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
