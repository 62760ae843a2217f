"""k-means with scikit-learn's interface, computed where the data lives."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from mlp_xp.arithmetic import ARITHMETICS
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend
from mlp_xp.clustering.deviations import Deviations, decompose, decompose_exactly
from mlp_xp.clustering.distances import METRICS
from mlp_xp.clustering.fitting import Clustering, find_labels, find_labels_and_distances, iterate, weigh
from mlp_xp.clustering.lloyd import RowsStep, find_distances
from mlp_xp.clustering.seeding import choose_any, choose_far_apart
from mlp_xp.clustering.table import Table, make_table
from mlp_xp.estimators.inputs import (
    destination,
    follow,
    narrow,
    require_same_place,
    take_features,
    take_weights,
    to_host,
    told,
    warn_of_erased,
)
from mlp_xp.estimators.state import unchanged_if_refused
from mlp_xp.estimators.user_warnings import warn
from mlp_xp.exactness import open_arithmetic

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_ROWS = 2048
"""Of a block: more of them do not stay in a processor's cache between the two steps."""
EXACT_ROWS = 1024
"""Rows that are rounded together in exact arithmetic, wherever that is."""


class KMeans(TransformerMixin, ClusterMixin, ClassNamePrefixFeaturesOutMixin, BaseEstimator):  # type: ignore[misc]
    """k-means clustering that is fitted and applied where X lives: NumPy, CuPy, JAX, PyTorch or any other library.

    Lloyd's algorithm, from centres that are far apart. With the same ``random_state`` it begins where scikit-learn's
    does.

    Parameters
    ----------
    n_clusters : int, default=8
    init : {"k-means++", "random"}, callable or array-like of shape (n_clusters, n_features), default="k-means++"
        Where to begin: at rows that are far apart (with ``metric="l1"`` in that one), at any rows, at what
        ``init(X, n_clusters, random_state=...)`` returns, or there.
    n_init : "auto" or int, default="auto"
        How often to begin; the best end is kept. "auto" is 10 for "random" and a callable, else 1.
    max_iter : int, default=300
        Most iterations of a run.
    tol : float, default=1e-4
        A run ends where the squares of the centres' moves sum to no more than this times the mean variance of the
        features, or no row changes its cluster.
    verbose : int, default=0
        Whether to print a line per iteration.
    random_state : int, RandomState or None, default=None
        Draws the beginning.
    copy_x : bool, default=True
        Of no consequence: X is never written to.
    algorithm : {"lloyd"}, default="lloyd"
    metric : {"l2", "l1"}, default="l2"
        "l2" adds up squared Euclidean distances, and a centre is the mean of its rows; "l1" adds up the magnitudes of
        the differences, and a centre is their median, feature by feature, which far rows hardly move.
    arithmetic : {"native", "exact"}, default="native"
        In exact arithmetic labels, centres and inertia are the same to the last bit on every library and machine. It
        rounds X to at most 24 bits (21 of 784 features) relative to the largest magnitude.

    Attributes
    ----------
    cluster_centers_ : array of shape (n_clusters, n_features)
    labels_ : array of int32, shape (n_samples,)
        Clusters of the rows that were fitted.
    inertia_ : float
        The objective: the weighted sum of the rows' distances (of "l2", squared) to their centres.
    objective_curve_ : list of float
        The objective after every assignment to clusters; it never rises but by rounding.
    n_iter_ : int
    n_features_in_ : int
    feature_names_in_ : ndarray of str, shape (n_features_in_,)
        If all columns of X have names.

    Notes
    -----
    Memory is that of a copy of X and of a block of rows × clusters (on NumPy, one per thread of BLAS). What differs
    from scikit-learn's: sparse tables, negative weights and ``algorithm="elkan"`` are refused, and a callable ``init``
    is given X itself, not X less its mean. What it does not have: ``metric``, ``arithmetic``, ``objective_curve_``,
    `deviations`, and X elsewhere.

    References
    ----------
    Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28, 1982.

    Examples
    --------
    >>> from mlp_xp.cluster import KMeans
    >>> kmeans = KMeans(2, random_state=0).fit([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
    >>> kmeans.labels_
    array([1, 1, 1, 0, 0, 0], dtype=int32)
    >>> kmeans.predict([[0, 0], [12, 3]])
    array([1, 0], dtype=int32)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "init": [StrOptions({"k-means++", "random"}), callable, "array-like"],
        "n_init": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
        "copy_x": ["boolean"],
        "algorithm": [StrOptions({"lloyd"})],
        "metric": [StrOptions(set(METRICS))],
        "arithmetic": [StrOptions(set(ARITHMETICS))],
    }

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "k-means++",
        n_init: Any = "auto",
        max_iter: int = 300,
        tol: float = 1e-4,
        verbose: Any = 0,
        random_state: Any = None,
        copy_x: bool = True,
        algorithm: str = "lloyd",
        metric: str = "l2",
        arithmetic: str = "native",
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.verbose = verbose
        self.random_state = random_state
        self.copy_x = copy_x
        self.algorithm = algorithm
        self.metric = metric
        self.arithmetic = arithmetic

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> KMeans:  # noqa: ARG002 - scikit-learn's signature
        """Find the clusters of rows.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
        y : ignored
        sample_weight : array of shape (n_samples,), optional

        Returns
        -------
        self
        """
        self._validate_params()
        with destination(X).working(), unchanged_if_refused(self):
            self._fit(X, sample_weight)
        n_found = len(np.unique(to_host(self.labels_)))
        if n_found < self.n_clusters:
            warn(
                f"Number of distinct clusters ({n_found}) found smaller than n_clusters ({self.n_clusters}). Possibly "
                "due to duplicate points in X.",
                ConvergenceWarning,
            )
        return self

    @told
    def predict(self, X: Any) -> Array:
        """Return the number of the nearest centre of every row, int32 of shape (n_samples,)."""
        table, centers = self._table_of(X, None, "predict")
        return find_labels(table, centers)

    @told
    def transform(self, X: Any) -> Array:
        """Return the distances of every row from all centres, shape (n_samples, n_clusters); of "l2" not squared."""
        table, centers = self._table_of(X, None, "transform")
        step = RowsStep(find_distances, table.metric, table.arithmetic)
        _, (distances,) = table.map_reduce(step, (), table.norms, constants=centers)
        return table.arithmetic.sqrt(distances) if table.metric.has_means else distances

    @told
    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:  # noqa: ARG002 - as above
        """Return the objective of rows, negated: the larger, the better."""
        table, centers = self._table_of(X, sample_weight, "score")
        _, distances = find_labels_and_distances(table, centers)
        return -weigh(distances, table)

    def move_to(self, X: Any) -> KMeans:
        """Move what was fitted to where an array is.

        Parameters
        ----------
        X : array
            Of any library, on any device; what is not an array means NumPy.

        Returns
        -------
        self
        """
        check_is_fitted(self)
        backend = destination(X)
        # Exact arithmetic has float64 alone, and needs all of its bits wherever it goes.
        move = backend.asarray if self.arithmetic == "exact" else partial(follow, backend=backend)
        for name in ("cluster_centers_", "labels_", "_offset"):
            setattr(self, name, move(to_host(getattr(self, name))))
        return self

    @told
    def deviations(self, X: Any) -> Deviations:
        """Return the mean squared distance of rows from their mean, and its parts within and between the clusters.

        Returns
        -------
        total, within, between : float
            total = within + between, to rounding. In exact arithmetic they are fractions, and equal.
        """
        table, centers = self._table_of(X, None, "deviations")
        labels = find_labels(table, centers)
        table = replace(table, metric=METRICS["l2"])
        if self.arithmetic == "exact":
            return decompose_exactly(table, labels, self.n_clusters)
        return decompose(table, labels, self.n_clusters)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _fit(self, X: Any, sample_weight: Any) -> None:
        X, backend = take_features(self, X, reset=True)
        if X.shape[0] < self.n_clusters:
            raise ValueError(f"n_samples={X.shape[0]} should be >= n_clusters={self.n_clusters}.")
        weights = take_weights(sample_weight, X)
        random_state = check_random_state(self.random_state)
        n_runs = self._n_runs()
        xp = backend.xp
        # Differences of small numbers are more precise; exact arithmetic takes X as it is.
        is_centred = METRICS[self.metric].has_means and self.arithmetic == "native"
        dtype = "float64" if self.arithmetic == "exact" or X.dtype == xp.float64 else "float32"
        offset = xp.mean(X, axis=0) if is_centred else backend.asarray(np.zeros(X.shape[1]), dtype)
        table = self._tabulate(X, weights, offset, None, backend)
        if not np.isfinite(table.on_host(table.norms)).all():
            raise ValueError(f"the squares of X's values are too large for {X.dtype}: scale X")
        if self.arithmetic == "exact":
            warn_of_erased(X, xp.reshape(table.features, (-1, X.shape[1])), backend)
        # Of rows less their mean, norms are squares of deviations: there is no need for a second look at X.
        variance = np.mean(table.on_host(table.norms)) / X.shape[1] if is_centred else float(xp.mean(xp.var(X, axis=0)))
        tol = float(self.tol * variance)
        best = iterate(table, self._begin(X, table, random_state), self.max_iter, tol, self._say)
        for _ in range(1, n_runs):
            found = iterate(table, self._begin(X, table, random_state), self.max_iter, tol, self._say)
            if found.objective < best.objective and not _is_same(found, best, backend):
                best = found
        self.cluster_centers_ = best.centers + table.offset
        self.labels_ = best.labels
        self.inertia_ = best.objective
        self.objective_curve_ = best.objective_curve
        self.n_iter_ = best.n_iter
        self._offset = offset
        self._largest = float(xp.max(xp.abs(X))) if self.arithmetic == "exact" else None
        self._n_features_out = self.n_clusters

    def _say(self, text: str) -> None:
        if self.verbose:
            print(text)  # noqa: T201 - scikit-learn's users expect it there

    def _n_runs(self) -> int:
        """Return how often to begin."""
        if not isinstance(self.init, str) and not callable(self.init):
            if self.n_init not in ("auto", 1):
                warn(
                    "Explicit initial center position passed: performing only one init in KMeans instead of "
                    f"n_init={self.n_init}.",
                    RuntimeWarning,
                )
            return 1
        if self.n_init == "auto":
            return 1 if self.init == "k-means++" else 10
        return int(self.n_init)

    def _begin(self, X: Array, table: Table, random_state: np.random.RandomState) -> Array:
        """Return the centres to begin at, less the table's offset."""
        if isinstance(self.init, str):
            choose = choose_far_apart if self.init == "k-means++" else choose_any
            return table.rows(choose(table, self.n_clusters, random_state))
        init = self.init(X, self.n_clusters, random_state=random_state) if callable(self.init) else self.init
        return self._place(init, table)

    def _place(self, init: Any, table: Table) -> Array:
        """Return given centres, less the table's offset, where the table is."""
        host = np.asarray(to_host(init), dtype=np.float64)
        n_features = table.features.shape[-1]
        if host.ndim != 2 or host.shape[0] != self.n_clusters:
            raise ValueError(
                f"The shape of the initial centers {host.shape} does not match the number of clusters "
                f"{self.n_clusters}."
            )
        if host.shape[1] != n_features:
            raise ValueError(
                f"The shape of the initial centers {host.shape} does not match the number of features of the data "
                f"{n_features}."
            )
        xp = table.backend.xp
        with np.errstate(over="ignore"):
            centers = table.asarray(host)
        if not bool(xp.all(xp.isfinite(centers))):
            raise ValueError(f"init contains NaN, infinity or a value too large for {centers.dtype}")
        return table.round_centers(centers - table.offset)

    def _tabulate(
        self, X: Array, weights: NDArray[np.float64] | None, offset: Array, largest: float | None, backend: Backend
    ) -> Table:
        """Return rows less an offset; rounded, if ``largest`` is given, to the multiples that such a number leaves."""
        xp = backend.xp
        dtype = "float64" if offset.dtype == xp.float64 else "float32"
        arithmetic = open_arithmetic(self.arithmetic, backend, dtype)
        most_rows = EXACT_ROWS if self.arithmetic == "exact" else min(backend.rows_at_once, MOST_ROWS)
        X = narrow(self, X, arithmetic.dtype, xp)
        weights = np.ones(X.shape[0]) if weights is None else weights
        if largest is not None:
            X = xp.concat([X, xp.full((1, X.shape[1]), largest, dtype=X.dtype, device=backend.device)])
        return make_table(X, weights, offset, METRICS[self.metric], self.n_clusters, most_rows, backend, arithmetic)

    def _table_of(self, X: Any, sample_weight: Any, method: str) -> tuple[Table, Array]:
        """Return rows as a table like that which was fitted, and the fitted centres less its offset."""
        check_is_fitted(self)
        X, backend = take_features(self, X, reset=False)
        require_same_place(self, backend, self.cluster_centers_, method)
        table = self._tabulate(X, take_weights(sample_weight, X), self._offset, self._largest, backend)
        return table, self.cluster_centers_ - self._offset


def _is_same(one: Clustering, other: Clustering, backend: Backend) -> bool:
    """Whether two clusterings differ in the numbers of their clusters alone."""
    labels = [backend.to_host(clustering.labels) for clustering in (one, other)]
    pairs = np.unique(np.stack(labels), axis=1)
    return all(len(np.unique(row)) == pairs.shape[1] for row in pairs)
