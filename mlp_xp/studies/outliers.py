"""What outliers do to centres: means follow them, medians hardly do."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mlp_xp.studies.kmeans import Fitter

COUNTS = 1, 5, 15
"""Of 150 rows in three clusters."""
FARTHEST = 1000.0
NEAREST = 10.0
"""In standard deviations of a cluster: nearer rows are no outliers, and may move a median by as much as a mean."""


class Shift(NamedTuple):
    """How far centres moved.

    Attributes
    ----------
    metric : {"l2", "l1"}
    n_outliers : int
    distance : float
        Of the outliers from the middle of their cluster.
    shift : float
        The mean Euclidean distance between the centres without and with them.
    """

    metric: str
    n_outliers: int
    distance: float
    shift: float


def study_outliers(rows: NDArray[np.float64], middles: NDArray[np.float64], fitter: Fitter) -> list[Shift]:
    """Return how far the centres of rows in the plane move when outliers are added, from where they were without them.

    Parameters
    ----------
    rows : ndarray of shape (n, 2)
    middles : ndarray of shape (k, 2)
        Of their clusters, whose standard deviation is 1; outliers come to the last, on the side where no other is.
    fitter : Fitter
    """
    rng = np.random.default_rng(0)
    away = middles[-1] - middles.mean(axis=0)
    away = away / np.linalg.norm(away)
    found = []
    for metric in ("l2", "l1"):
        before = fitter.centers(fitter.fit(fitter.put(rows), middles, metric))
        for count in COUNTS:
            spread = rng.normal(size=(count, 2))
            for distance in np.geomspace(NEAREST, FARTHEST, 9):
                far = middles[-1] + distance * away + spread
                after = fitter.centers(fitter.fit(fitter.put(np.concatenate([rows, far])), before, metric))
                shift = float(np.linalg.norm(after - before, axis=1).mean())
                found.append(Shift(metric, count, float(distance), shift))
    return found
