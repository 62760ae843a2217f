"""k-means: what the sheet says of Lloyd's algorithm, measured in both of its half-steps.

Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28, 1982. J is the objective: the
sum of the rows' distances to the centres of their clusters, squared Euclidean ("l2") or of magnitudes ("l1"). It is
computed here on the host, in float64, from the centres and labels that the estimator returns.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from mlp_xp.backend import Backend
from mlp_xp.cluster import KMeans
from mlp_xp.clustering.deviations import Deviations
from mlp_xp.errors import SettingsError
from mlp_xp.studies.outliers import Shift, study_outliers
from mlp_xp.studies.rounding import distance_from_zero, rounding

if TYPE_CHECKING:
    from numpy.typing import NDArray

METRICS = "l2", "l1"
ROWS = 2000
"""At most so many are looked at: there are many fits."""
MAX_ITER = 300
WORKED_CENTERS = np.asarray([[0.0, 0.0], [7.0, 0.0], [3.5, 6.0]])
WORKED_SIZE = 50
"""Rows around each of them."""
EXACT_EPSILON = 2.0**-20
"""Exact arithmetic leaves rows at least 21 bits, relative to the largest of all."""


class Run(NamedTuple):
    """Lloyd's algorithm, half-step by half-step.

    Attributes
    ----------
    metric : {"l2", "l1"}
    objectives : list of float
        J after every half-step: after the first assignment, the first update, the second assignment, …
    path : ndarray of shape (n_updates + 1, k, d)
        The centres, from the first on.
    labels : ndarray of int, shape (n,)
        At the end.
    is_over : bool
        Whether the last assignment changed nothing.
    """

    metric: str
    objectives: list[float]
    path: NDArray[np.float64]
    labels: NDArray[np.int32]
    is_over: bool


class Nested(NamedTuple):
    """A fit that began at the centres of the one with a cluster less, and at one more row.

    Attributes
    ----------
    k : int
    objective : float
    deviations : Deviations
    n_iter : int
    is_over : bool
        Whether one more iteration changes no row's cluster.
    """

    k: int
    objective: float
    deviations: Deviations
    n_iter: int
    is_over: bool


@dataclass(frozen=True)
class Findings:
    """Everything that was measured.

    Attributes
    ----------
    where : str
        Data and backend.
    dtype, arithmetic : str
    n_rows, n_features : int
        Of those that were looked at.
    n_given : int
        Rows that there are.
    remoteness : float
        Of the rows: `mlp_xp.studies.rounding.distance_from_zero`.
    worked : tuple of (ndarray, sequence of Run)
        Rows in the plane, and a run of each metric.
    runs : sequence of Run
        On the data, one of each metric, from the same rows.
    nested : mapping of str to sequence of Nested
        Metric -> fits of 1, 2, … clusters.
    exact : Deviations
        Of a fit in exact arithmetic: fractions.
    shifts : sequence of Shift
        What outliers do to the centres of the worked rows.
    """

    where: str
    dtype: str
    arithmetic: str
    n_rows: int
    n_features: int
    n_given: int
    remoteness: float
    worked: tuple[NDArray[np.float64], Sequence[Run]]
    runs: Sequence[Run]
    nested: Mapping[str, Sequence[Nested]]
    exact: Deviations
    shifts: Sequence[Shift]

    @property
    def what(self) -> str:
        """The rows, for people."""
        first = "" if self.n_rows == self.n_given else f"the first {self.n_rows:,} of "
        return f"{first}{self.n_given:,} rows of {self.n_features} features: {self.where}"

    @property
    def tolerance(self) -> float:
        """What rounding may do to a sum over the rows, relative to it."""
        epsilon = EXACT_EPSILON if self.arithmetic == "exact" else float(np.finfo(self.dtype).eps)
        return rounding(self.n_rows, epsilon) * self.remoteness


class Fitter:
    """Fits on a backend what is on the host, and brings the results back.

    Parameters
    ----------
    backend : Backend
    dtype : {"float32", "float64"}
    arithmetic : {"native", "exact"}
    """

    def __init__(self, backend: Backend, dtype: str, arithmetic: str) -> None:
        self.backend, self.dtype, self.arithmetic = backend, dtype, arithmetic

    def put(self, rows: NDArray[np.float64]) -> Any:
        """Return rows on the backend."""
        return self.backend.asarray(rows, self.dtype)

    def fit(self, X: Any, begin: NDArray[np.float64], metric: str, max_iter: int = MAX_ITER) -> KMeans:
        """Return what is fitted from given centres, to the very end."""
        settings: dict[str, Any] = {"max_iter": max_iter, "metric": metric, "arithmetic": self.arithmetic}
        with warnings.catch_warnings():
            if max_iter == 1:  # a cluster may well be empty for an iteration
                warnings.simplefilter("ignore", ConvergenceWarning)
            return KMeans(len(begin), init=begin, tol=0.0, **settings).fit(X)

    def centers(self, kmeans: KMeans) -> NDArray[np.float64]:
        """Return the centres on the host, shape (k, d)."""
        centers: NDArray[Any] = self.backend.to_host(kmeans.cluster_centers_)
        return centers.astype(np.float64)

    def labels(self, kmeans: KMeans, X: Any) -> NDArray[np.int32]:
        """Return the clusters of rows on the backend, shape (n,), on the host; in ties those of the next iteration."""
        labels: NDArray[np.int32] = self.backend.to_host(kmeans.predict(X))
        return labels


def distances(rows: NDArray[np.float64], centers: NDArray[np.float64], metric: str) -> NDArray[np.float64]:
    """Return the distances of rows from as many centres, or all from one; of "l2" squared."""
    differences = rows - centers
    each: NDArray[np.float64] = (differences**2 if metric == "l2" else np.abs(differences)).sum(axis=-1)
    return each


def nearest(rows: NDArray[np.float64], centers: NDArray[np.float64], metric: str) -> NDArray[np.int32]:
    """Return the number of every row's nearest centre."""
    table = np.stack([distances(rows, center, metric) for center in centers])
    labels: NDArray[np.int32] = table.argmin(axis=0).astype(np.int32)
    return labels


def follow(rows: NDArray[np.float64], begin: NDArray[np.float64], metric: str, fitter: Fitter) -> Run:
    """Return a run of single iterations, with J after both of their half-steps."""
    X = fitter.put(rows)
    centers, labels, path = begin, nearest(rows, begin, metric), [begin]
    objectives = [float(distances(rows, centers[labels], metric).sum())]
    is_over = False
    while not is_over and len(path) <= MAX_ITER:
        step = fitter.fit(X, centers, metric, max_iter=1)
        moved, after = fitter.centers(step), fitter.labels(step, X)
        each = distances(rows, moved[labels], metric)
        for empty in set(range(len(begin))) - set(labels.tolist()):  # it is moved to a row, which goes with it
            each = np.minimum(each, distances(rows, moved[empty], metric))
        objectives += [float(each.sum()), float(distances(rows, moved[after], metric).sum())]
        is_over = bool(np.all(after == labels))
        centers, labels = moved, after
        path.append(moved)
    return Run(metric, objectives, np.stack(path), labels, is_over)


def study_nested(
    rows: NDArray[np.float64],
    begin: NDArray[np.float64],
    metric: str,
    fitter: Fitter,
    tick: Callable[[str], None],
) -> list[Nested]:
    """Return fits of 1, 2, … clusters, each from the centres of the one before and the next row of ``begin``."""
    X, centers = fitter.put(rows), begin[:0]
    found = []
    for k in range(1, len(begin) + 1):
        kmeans = fitter.fit(X, np.concatenate([centers, begin[k - 1 : k]]), metric)
        centers, labels = fitter.centers(kmeans), fitter.labels(kmeans, X)
        again = fitter.labels(fitter.fit(X, centers, metric, max_iter=1), X)
        objective = float(distances(rows, centers[labels], metric).sum())
        is_over = bool(np.all(again == labels))
        found.append(Nested(k, objective, kmeans.deviations(X), kmeans.n_iter_, is_over))
        tick(f"{k} clusters, {metric}")
    return found


def worked_rows() -> NDArray[np.float64]:
    """Return three clusters of rows in the plane, shape (150, 2)."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(center, 1.0, (WORKED_SIZE, 2)) for center in WORKED_CENTERS])


def study(
    rows: NDArray[np.float64],
    n_given: int,
    where: str,
    n_clusters: int,
    fitter: Fitter,
    seed: int,
    tick: Callable[[str], None] = lambda _: None,
) -> Findings:
    """Follow runs, fit ever more clusters, take deviations apart, and add outliers.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    n_given : int
        How many there are, of which these are the first.
    where : str
        Data and backend, for people.
    n_clusters : int
    fitter : Fitter
    seed : int
        Draws the rows to begin at.
    tick : callable
        Told of every step, `n_steps` in all.

    Raises
    ------
    SettingsError
        If there are fewer rows than clusters, or no cluster, or exact arithmetic has another type or leaves the rows no
        difference.
    """
    n, d = rows.shape
    if fitter.arithmetic == "exact" and fitter.dtype != "float64":
        raise SettingsError(f"dtype = {fitter.dtype!r}: must be float64 in exact arithmetic")
    if not 1 <= n_clusters <= n:
        raise SettingsError(f"clusters = {n_clusters}: must be from 1 to the number of rows that are looked at, {n}")
    worked = worked_rows()
    corner = worked[np.argsort(worked.sum(axis=1))[: len(WORKED_CENTERS)]]  # far from where they shall end
    on_worked = [follow(worked, corner, metric, fitter) for metric in METRICS]
    begin = rows[np.random.default_rng(seed).permutation(n)[:n_clusters]]
    runs = []
    for metric in METRICS:
        runs.append(follow(rows, begin, metric, fitter))
        tick(f"half-steps, {metric}")
    exactly = Fitter(fitter.backend, fitter.dtype, "exact")
    X = fitter.put(rows)
    exact = exactly.fit(X, begin, "l2").deviations(X)
    if fitter.arithmetic == "exact" and exact.total == 0:
        raise SettingsError(
            "arithmetic = 'exact': rounded to its bits, relative to the largest number of all, the rows are all the "
            "same; standardise the columns, or choose 'native'"
        )
    tick("exact arithmetic")
    nested = {metric: study_nested(rows, begin, metric, fitter, tick) for metric in METRICS}
    shifts = study_outliers(worked, WORKED_CENTERS, fitter)
    tick("outliers")
    how = where, fitter.dtype, fitter.arithmetic
    return Findings(*how, n, d, n_given, distance_from_zero(rows), (worked, on_worked), runs, nested, exact, shifts)


def n_steps(n_clusters: int) -> int:
    """Return how often `study` ticks."""
    return len(METRICS) * (1 + n_clusters) + 2
