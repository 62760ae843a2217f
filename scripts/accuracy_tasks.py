"""What `accuracy.py` trains: data sets, each with settings with which native float32 learns it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlp_xp.datasets import Dataset, Split, load
from mlp_xp.settings import PRESETS, Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Task:
    """Data to learn, and how."""

    about: str
    split: Callable[[], Split]
    settings: Settings
    seeds: int = 20


SPLIT = 2020
"""The random state of all splits, unless another is asked for; `Dataset.split` has the same."""


def halves(name: str, features: NDArray[Any], targets: NDArray[Any], *, random_state: int) -> Split:
    """Return one half of the rows to train on and the other to test on; floats are targets of a regression."""
    if targets.dtype.kind == "f":
        return Dataset(name, features, targets.reshape(-1, 1), None).split(0.5, random_state)
    return Dataset(name, features, targets, int(targets.max()) + 1).split(0.5, random_state)


def standardised(split: Split, noun: Literal["features", "targets"]) -> Split:
    """Return columns of mean 0 and standard deviation 1, both taken from the rows to train on."""
    values = getattr(split.train, noun)
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    train, test = (replace(part, **{noun: (getattr(part, noun) - mean) / deviation}) for part in split)
    return Split(train, test)


def breast_cancer(random_state: int = SPLIT) -> Split:
    """Return 30 columns with standard deviations from 0.003 to 570; the largest number is 4254."""
    from sklearn.datasets import load_breast_cancer

    return halves("breast_cancer", *load_breast_cancer(return_X_y=True), random_state=random_state)


def wine(random_state: int = SPLIT) -> Split:
    """Return 13 columns with standard deviations from 0.12 to 310."""
    from sklearn.datasets import load_wine

    return halves("wine", *load_wine(return_X_y=True), random_state=random_state)


def diabetes(random_state: int = SPLIT) -> Split:
    """Return 10 columns and a number to regress on, all standardised."""
    from sklearn.datasets import load_diabetes

    return standardised(
        standardised(halves("diabetes", *load_diabetes(return_X_y=True), random_state=random_state), "features"),
        "targets",
    )


def friedman(decades: int, random_state: int = SPLIT) -> Split:
    """Return ten columns, of which five matter, with magnitudes from 10**-decades to 10**decades."""
    from sklearn.datasets import make_friedman1

    features, targets = make_friedman1(2000, n_features=10, noise=1.0, random_state=0)
    # The columns that matter come first; magnitudes in a random order give them some of each.
    magnitudes = 10.0 ** np.random.RandomState(0).permutation(np.linspace(-decades, decades, 10))
    return standardised(
        halves(f"friedman1, 1e±{decades}", (features - 0.5) * magnitudes, targets, random_state=random_state), "targets"
    )


def classes(random_state: int = SPLIT) -> Split:
    """Return 50 columns, 20 of them informative, and six classes."""
    from sklearn.datasets import make_classification

    table = make_classification(4000, n_features=50, n_informative=20, n_redundant=10, n_classes=6, random_state=0)
    return halves("classes", *table, random_state=random_state)


def rare(exponent: int) -> Split:
    """Return 20 columns with deviations from 1 to 2.4, and one that is 2**exponent in one row of 100, else 0."""
    from sklearn.datasets import make_classification

    features, labels = make_classification(
        2000, n_features=20, n_informative=10, n_redundant=0, n_classes=4, class_sep=1.5, random_state=0
    )
    huge = np.where(np.random.RandomState(0).random_sample(2000) < 0.01, 2.0**exponent, 0.0)
    return halves(f"rare 2^{exponent}", np.column_stack([features, huge]), labels, random_state=SPLIT)


ADAM = Settings(hidden_layer_sizes=(32,), optimizer="adam", learning_rate=0.001, batch_size=16)
FRIEDMAN = replace(ADAM, hidden_layer_sizes=(32, 32), loss="squared_error", batch_size=50, epochs=100)
RARE = replace(ADAM, activation="tanh", learning_rate=0.003, batch_size=50, epochs=40)

TASKS: dict[str, Task] = {
    "digits": Task(
        "8 × 8 pixels",
        lambda: load("digits").split(),
        Settings(hidden_layer_sizes=(64,), learning_rate=0.2, epochs=20),
    ),
    "mnist": Task("28 × 28 pixels, the lab's settings", lambda: load("mnist").split(), PRESETS["lab"], seeds=5),
    "breast_cancer": Task(
        "unscaled: 1e-3 to 4e3", breast_cancer, replace(ADAM, loss="binary_cross_entropy", epochs=60)
    ),
    "breast_cancer-standardised": Task(
        "standardised",
        lambda: standardised(breast_cancer(), "features"),
        replace(ADAM, activation="sigmoid", loss="binary_cross_entropy", optimizer="sgd", learning_rate=0.1, epochs=60),
    ),
    "wine": Task("unscaled: 0.1 to 2e3", wine, replace(ADAM, epochs=200)),
    "diabetes": Task(
        "standardised",
        diabetes,
        replace(ADAM, activation="tanh", loss="squared_error", optimizer="sgd", learning_rate=0.01, epochs=40),
    ),
    "friedman1-4-decades": Task("unscaled: 1e-2 to 1e2", partial(friedman, 2), replace(FRIEDMAN, learning_rate=0.01)),
    "friedman1-12-decades": Task(
        "unscaled: 1e-6 to 1e6", partial(friedman, 6), replace(FRIEDMAN, activation="tanh", learning_rate=0.0003)
    ),
    "classes": Task(
        "50 columns, 6 classes",
        classes,
        Settings(hidden_layer_sizes=(64,), activation="sigmoid", learning_rate=0.3, epochs=30),
    ),
    **{
        f"rare-2^{exponent}": Task(f"21 columns, one row of 100 has 2^{exponent}", partial(rare, exponent), RARE)
        for exponent in (20, 22, 24, 26, 28)
    },
    "rare-2^28-standardised": Task("the same, standardised", lambda: standardised(rare(28), "features"), RARE),
}
