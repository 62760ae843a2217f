"""Fits without targets, of k-means and of principal components, beside scikit-learn's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import sklearn.cluster
import sklearn.decomposition

import mlp_xp.cluster
import mlp_xp.decomposition
from bench_fit import Case, beside_scikit_learn
from bench_report import Report, Request
from mlp_xp.datasets import Dataset
from mlp_xp.estimators.inputs import to_host

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_ITER = 10
"""Assignments of all rows to clusters; by ``tol=0`` nobody stops sooner, unless no row changes its cluster."""


def _features(data: Dataset, dtype: str) -> NDArray[Any]:
    features: NDArray[Any] = data.features.reshape(data.n_samples, -1).astype(dtype) * data.scale
    return features


def fit_kmeans(make: Callable[[], Dataset], n_clusters: tuple[int, ...], request: Request) -> Report:
    """Measure k-means, for everyone from the same rows of the data."""
    data = make()
    X = _features(data, request.dtype)

    def kmeans(module: Any, k: int) -> Any:
        return module.KMeans(k, init=X[:k], n_init=1, max_iter=MAX_ITER, tol=0)

    cases = {
        f"k={k}": Case(
            partial(kmeans, mlp_xp.cluster, k),
            partial(kmeans, sklearn.cluster, k),
            lambda fitted: float(fitted.inertia_),
        )
        for k in n_clusters
    }
    title = f"kmeans: {data.name}, {len(X)} rows of {X.shape[1]}, {MAX_ITER} iterations, {request.dtype}"
    return beside_scikit_learn("kmeans", title, cases, X, None, request, {"max_iter": MAX_ITER})


def fit_pca(make: Callable[[], Dataset], n_components: int, request: Request) -> Report:
    """Measure principal components, with the solver that either chooses itself."""
    data = make()
    X = _features(data, request.dtype)

    def result(fitted: Any) -> float:
        return float(abs(to_host(fitted.components_)).sum())

    cases = {
        f"{n_components} components": Case(
            partial(mlp_xp.decomposition.PCA, n_components), partial(sklearn.decomposition.PCA, n_components), result
        )
    }
    title = f"pca: {data.name}, {len(X)} rows of {X.shape[1]}, {n_components} components, {request.dtype}"
    return beside_scikit_learn("pca", title, cases, X, None, request, {"n_components": n_components})
