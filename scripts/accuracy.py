"""What exact arithmetic costs in accuracy: the same trainings in native float32, native float64 and exact arithmetic.

A seed decides the start and the order of the rows, and all three arithmetics are given the same seeds, so that their
scores can be compared seed by seed. The score is that of the test rows after the last epoch: the share of right labels,
or for a regression R², the share of the variance that is explained.

    python scripts/accuracy.py                                             # all; some 20 minutes
    python scripts/accuracy.py --tasks digits,wine --seeds 5 --json accuracy.json --plot accuracy.png
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from accuracy_tasks import TASKS, Task
from bench import machine
from mlp_xp.backend import Backend, list_backends, open_backend
from mlp_xp.cli.progress import progress, say
from mlp_xp.cli.table import format_table
from mlp_xp.datasets import Dataset, Split, mnist
from mlp_xp.errors import TrainingDiverged
from mlp_xp.files import make_folder, write_atomically
from mlp_xp.plots import png
from mlp_xp.training import Epoch, train

ARITHMETICS: dict[str, dict[str, Any]] = {
    "float32": {"arithmetic": "native", "dtype": "float32"},
    "float64": {"arithmetic": "native", "dtype": "float64"},
    "exact": {"arithmetic": "exact", "dtype": "float64"},
}
REFERENCE = "float32"
OTHERS = ("float64", "exact")


def score(epoch: Epoch, test: Dataset) -> float:
    """Return the accuracy, or R² = 1 - the squared errors / those of always predicting the test rows' mean."""
    if epoch.accuracy is not None:
        return epoch.accuracy
    return 1.0 - 2.0 * epoch.test_loss / float(test.targets.var(axis=0).sum())  # the loss is half the squared error


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over the seeds, and the number that is furthest from 0."""

    mean: float
    deviation: float
    furthest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Take at least two numbers."""
        return cls(statistics.fmean(values), statistics.stdev(values), max(values, key=abs))

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.deviation:.4f}"


@dataclass(frozen=True)
class Result:
    """What came out of a task.

    Attributes
    ----------
    name : str
    task : Task
    data : Split
    scores : dict
        Arithmetic -> the score of every seed.
    diverged : dict
        Arithmetic -> the seeds whose loss stopped being finite; their score is 0.
    """

    name: str
    task: Task
    data: Split
    scores: dict[str, list[float]]
    diverged: dict[str, list[int]]

    @property
    def measure(self) -> str:
        """What the score is."""
        return "R²" if self.data.test.n_classes is None else "accuracy"

    def differences(self, arithmetic: str) -> list[float]:
        """Return, seed by seed, by how much the score is above that of native float32."""
        pairs = zip(self.scores[arithmetic], self.scores[REFERENCE], strict=True)
        return [mine - other for mine, other in pairs]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON can hold it; the data are described, not included."""
        train_rows, test_rows = self.data
        varied = {"seed", *ARITHMETICS[REFERENCE]}
        return {
            "name": self.name,
            "about": self.task.about,
            "measure": self.measure,
            "train_rows": train_rows.n_samples,
            "test_rows": test_rows.n_samples,
            "features": train_rows.n_features,
            "settings": {key: value for key, value in self.task.settings.to_dict().items() if key not in varied},
            "scores": self.scores,
            "diverged": self.diverged,
            "difference_from_float32": {name: asdict(Spread.of(self.differences(name))) for name in OTHERS},
        }


def measure(name: str, task: Task, n_seeds: int, backend: Backend) -> Result:
    """Train a task from every seed in every arithmetic."""
    data = task.split()
    scores: dict[str, list[float]] = {arithmetic: [] for arithmetic in ARITHMETICS}
    diverged: dict[str, list[int]] = {arithmetic: [] for arithmetic in ARITHMETICS}

    def epochs() -> Iterator[None]:
        for seed in range(n_seeds):
            for arithmetic, choice in ARITHMETICS.items():
                result = 0.0
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", UserWarning)  # of erased columns: their cost is measured here
                        training = train(replace(task.settings, seed=seed, **choice), data, backend)
                    for epoch in training:
                        result = score(epoch, data.test)
                        yield
                except TrainingDiverged as error:
                    say(f"{name}, {arithmetic}, seed {seed}: diverged: {error}")
                    diverged[arithmetic].append(seed)
                    result = 0.0
                scores[arithmetic].append(result)

    for _ in progress(epochs(), n_seeds * len(ARITHMETICS) * task.settings.epochs, name):
        pass
    return Result(name, task, data, scores, diverged)


def table(results: Sequence[Result]) -> str:
    """Return the results for people."""
    differences = [text for name in OTHERS for text in (f"{name} - {REFERENCE}", "largest")]
    rows = []
    for result in results:
        spreads = (Spread.of(result.differences(name)) for name in OTHERS)
        rows.append(
            (
                result.name,
                str(len(result.scores[REFERENCE])),
                result.measure,
                *(str(Spread.of(values)) for values in result.scores.values()),
                *(text for spread in spreads for text in (str(spread), f"{spread.furthest:.4f}")),
            )
        )
    return format_table(("task", "seeds", "score", *ARITHMETICS, *differences), rows)


def plot(results: Sequence[Result]) -> bytes:
    """Return a picture: every seed's differences from native float32, on the spread of native float32's own scores."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 1.4 + 0.42 * len(results)), layout="constrained")
    axes = figure.subplots()
    for y, result in enumerate(results):
        deviation = Spread.of(result.scores[REFERENCE]).deviation
        axes.barh(y, 2 * deviation, left=-deviation, height=0.8, color="0.88")
        for name, color, offset in (("float64", "C1", -0.18), ("exact", "C0", 0.18)):
            values = result.differences(name)
            # Equal differences, such as 0, lie beside one another.
            heights = [y + offset + 0.2 * (i / len(values) - 0.5) for i in range(len(values))]
            axes.plot(values, heights, ".", markersize=4, color=color)
            axes.plot([statistics.fmean(values)], [y + offset], "|", markersize=12, color=color)
    axes.barh(0, 0.0, color="0.88", label="± standard deviation of float32")
    for name, color in (("float64", "C1"), ("exact", "C0")):
        axes.plot([], [], ".", color=color, label=f"{name} - {REFERENCE}, and the mean |")
    axes.set_xscale("symlog", linthresh=0.01)
    furthest = max(abs(value) for result in results for name in OTHERS for value in result.differences(name))
    axes.set_xlim(-1.5 * max(furthest, 0.05), 1.5 * max(furthest, 0.05))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.axvline(0.0, color="0.5", linewidth=0.8)
    axes.set_yticks(range(len(results)), [f"{r.name}\n{r.measure}, {r.task.about}" for r in results], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("difference of the test score, seed by seed (linear up to ±0.01, then logarithmic)", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return png(figure)


def main(arguments: Sequence[str]) -> None:
    """Train, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(TASKS), help="among these, which are the default: %(default)s")
    parser.add_argument("--seeds", type=int, help="of each task, from 0; default: 20, and 5 for mnist")
    parser.add_argument("--backend", default="numpy", choices=list_backends(), help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it as a PNG")
    options = parser.parse_args(arguments)
    names = options.tasks.split(",")
    for name in names:
        if name not in TASKS:
            parser.error(f"unknown {name!r}; there are {', '.join(TASKS)}")
    if options.seeds is not None and options.seeds < 2:
        parser.error("--seeds: at least 2, for a spread")
    for file in filter(None, (options.json, options.plot)):
        make_folder(file.parent)

    here, backend = machine(), open_backend(options.backend)
    print(f"{here['cpu']}, {here['cores']} cores, {options.backend}", flush=True)
    results = []
    for name in names:
        if name == "mnist" and not mnist.available():
            print(
                f"left out: mnist (its files are not on this machine; set {mnist.VARIABLE} to their folder)", flush=True
            )
            continue
        results.append(measure(name, TASKS[name], options.seeds or TASKS[name].seeds, backend))
    if not results:
        return
    print(table(results))
    print("Mean ± standard deviation over the seeds; differences are taken seed by seed, and the largest has its sign.")
    if options.json:
        content = {
            "command": shlex.join(["scripts/accuracy.py", *arguments]),
            "machine": here,
            "backend": backend.describe(),
            "tasks": [result.to_dict() for result in results],
        }
        write_atomically(options.json, f"{json.dumps(content, indent=1)}\n".encode())
    if options.plot:
        write_atomically(options.plot, plot(results))


if __name__ == "__main__":
    main(sys.argv[1:])
