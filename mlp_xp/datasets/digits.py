"""The default data: scikit-learn's 1797 images of digits, 8 by 8, embedded there (no download)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mlp_xp.datasets.targets import Samples, by_sample


def read() -> Samples:
    """Return features of shape (1797, 64), uint8 from 0 to 16, scale 1/16, and labels of shape (1797,)."""
    # Read where scikit-learn keeps it: to import scikit-learn takes most of a second, all else a third of one.
    spec = find_spec("sklearn")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (file := Path(folder) / "datasets" / "data" / "digits.csv.gz").is_file():
            table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
            return Samples(table[:, :-1].copy(), table[:, -1].astype(np.int64), by_sample("digits"), scale=1 / 16)

    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return Samples(pixels.astype(np.uint8), labels, by_sample("digits"), scale=1 / 16)
