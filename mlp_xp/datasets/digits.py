"""The default data: scikit-learn's 1797 images of digits, 8 by 8, embedded there (no download)."""

from __future__ import annotations

import numpy as np

from mlp_xp.datasets.targets import Samples, by_sample


def read() -> Samples:
    """Return features of shape (1797, 64), uint8 from 0 to 16, scale 1/16, and labels of shape (1797,)."""
    from sklearn.datasets import load_digits  # imported late: it takes most of a second

    pixels, labels = load_digits(return_X_y=True)
    return Samples(pixels.astype(np.uint8), labels, by_sample("digits"), scale=1 / 16)
