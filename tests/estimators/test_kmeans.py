"""k-means: scikit-learn's results on every library, the sheet's facts, and one set of bits in exact arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import array_api_compat
import array_api_strict
import numpy as np
import pytest
import scipy.sparse
import sklearn.cluster
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine, make_blobs
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.estimator_checks import check_estimator

from checks import as_integers, jax_says
from mlp_xp.arithmetic.bits import weight_bits
from mlp_xp.backend import Backend
from mlp_xp.cluster import KMeans
from mlp_xp.clustering import table as table_module
from mlp_xp.estimators.inputs import take_features

SETS: dict[str, tuple[Callable[[], Any], int]] = {
    "iris": (lambda: load_iris().data, 3),
    "digits": (lambda: load_digits().data[:600], 10),
    "wine": (lambda: load_wine().data, 3),
    "breast cancer": (lambda: load_breast_cancer().data, 4),
    "blobs": (lambda: 1e3 + make_blobs(500, 6, centers=5, random_state=0)[0], 5),
}
IRIS = load_iris().data
EPS = float(np.finfo(np.float64).eps)
WEIGHTS = "sample_weight is not equivalent to removing/repeating samples: other rows are drawn, as in scikit-learn's"


def host(array: Any, backend: Backend) -> NDArray[Any]:
    return np.asarray(array if isinstance(array, np.ndarray) else backend.to_host(array))


def objective(X: NDArray[Any], centers: NDArray[Any], labels: NDArray[Any], metric: str) -> float:
    residuals = X - centers[labels]
    return float((residuals**2).sum() if metric == "l2" else np.abs(residuals).sum())


@pytest.mark.parametrize("name", SETS)
def test_from_the_same_centres_labels_and_inertia_are_scikit_learns(backend: Backend, name: str) -> None:
    load, k = SETS[name]
    X = load()
    begin = X[:: len(X) // k][:k]
    theirs = sklearn.cluster.KMeans(k, init=begin, n_init=1).fit(X)
    place = backend.asarray(X, "float64")
    ours = KMeans(k, init=backend.asarray(begin, "float64")).fit(place)
    assert ours.labels_.dtype == backend.xp.int32
    for array in (ours.labels_, ours.cluster_centers_):
        assert type(array) is type(place)
        assert array.device == place.device
    assert ours.cluster_centers_.dtype == place.dtype
    assert host(ours.labels_, backend).tolist() == theirs.labels_.tolist()
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=len(X) * EPS)
    np.testing.assert_allclose(
        host(ours.cluster_centers_, backend), theirs.cluster_centers_, atol=len(X) * EPS * np.abs(X).max()
    )
    new = X[::7] + 0.1
    moved = backend.asarray(new, "float64")
    assert host(ours.predict(moved), backend).tolist() == theirs.predict(new).tolist()
    assert ours.predict(moved).dtype == backend.xp.int32
    distances = ours.transform(moved)
    assert distances.dtype == place.dtype
    assert distances.device == place.device
    np.testing.assert_allclose(host(distances, backend), theirs.transform(new), rtol=1e-9, atol=1e-5 * np.ptp(X) * 1e-3)
    assert ours.score(moved) == pytest.approx(theirs.score(new), rel=len(X) * EPS)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_of_ten_seeds_the_inertia_is_scikit_learns(name: str, init: Any) -> None:
    load, k = SETS[name]
    X = load()
    pairs = [
        [kind(k, init=init, n_init=1, random_state=seed).fit(X).inertia_ for kind in (sklearn.cluster.KMeans, KMeans)]
        for seed in range(10)
    ]
    theirs, ours = np.mean(pairs, axis=0)
    assert ours == pytest.approx(theirs, rel=0.01)
    assert sum(a == pytest.approx(b, rel=1e-9) for a, b in pairs) >= 9, "the same rows are drawn"


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_rows_to_begin_at_are_drawn_with_their_weights(init: Any) -> None:
    weights = np.random.default_rng(0).integers(0, 9, 150) ** 2.0
    for seed in range(10):
        settings: dict[str, Any] = {"init": init, "n_init": 1, "max_iter": 1, "random_state": seed}
        theirs, ours = (
            kind(6, **settings).fit(IRIS, sample_weight=weights) for kind in (sklearn.cluster.KMeans, KMeans)
        )
        np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, rtol=150 * EPS)


def test_the_last_row_is_drawn_where_rounding_leaves_none() -> None:
    class Highest(np.random.RandomState):
        def uniform(self, *_: Any, size: Any = None) -> Any:
            return np.full(size, np.nextafter(1.0, 0.0))

    for seed in range(20):  # in some of which a draw is above the sum of all distances
        X = np.random.default_rng(seed).normal(size=(50, 3))
        assert KMeans(5, random_state=Highest(0), max_iter=1).fit(X).inertia_ < np.inf


def test_float32_stays(backend: Backend) -> None:
    place = backend.asarray(IRIS, "float32")
    kmeans = KMeans(3, random_state=0).fit(place)
    assert kmeans.cluster_centers_.dtype == place.dtype
    assert kmeans.transform(place).dtype == place.dtype
    assert kmeans.inertia_ == pytest.approx(78.8557, rel=1e-4)


def test_no_distance_is_less_than_nothing(backend: Backend) -> None:
    for seed in range(20):
        X = np.random.default_rng(seed).normal(size=(2, 50))
        place = backend.asarray(X, "float32")
        kmeans = KMeans(2, init=X).fit(place)  # whose rows are their own centres
        assert kmeans.objective_curve_[0] >= 0.0
        distances = host(kmeans.transform(place), backend)
        assert (distances.diagonal() < 1e-2).all()  # and so none of them is NaN


@pytest.mark.parametrize("metric", ["l2", "l1"])
@pytest.mark.parametrize("arithmetic", ["native", "exact"])
def test_neither_step_ever_raises_the_objective(backend: Backend, metric: str, arithmetic: str) -> None:
    X = load_digits().data[:300]
    place = backend.asarray(X, "float64")
    centers, last = X[:8], np.inf
    curve = KMeans(8, init=centers, metric=metric, arithmetic=arithmetic, tol=0).fit(place).objective_curve_
    for expected in curve[:5]:
        labels = np.abs(X[:, None] - centers)
        labels = (labels**2 if metric == "l2" else labels).sum(axis=-1).argmin(axis=1)
        assigned = objective(X, centers, labels, metric)
        assert assigned <= last * (1 + 1e-12)
        assert expected == pytest.approx(assigned, rel=1e-6)
        step = KMeans(8, init=centers, metric=metric, arithmetic=arithmetic, tol=0, max_iter=1).fit(place)
        centers = host(step.cluster_centers_, backend)
        last = objective(X, centers, labels, metric)
        assert last <= assigned * (1 + 1e-6 if arithmetic == "exact" else 1 + 1e-12)
    assert all(after <= before * (1 + 1e-9) for before, after in pairwise(curve))


@pytest.mark.parametrize("metric", ["l2", "l1"])
@pytest.mark.parametrize("arithmetic", ["native", "exact"])
def test_it_ends_where_the_centres_hardly_move(backend: Backend, metric: str, arithmetic: str) -> None:
    X = load_digits().data[:300]
    place = backend.asarray(X, "float64")
    settings: dict[str, Any] = {"init": X[:8], "metric": metric, "arithmetic": arithmetic}
    fits = [KMeans(8, **settings, tol=0, max_iter=n).fit(place) for n in range(1, 6)]
    centers = [X[:8], *(host(fit.cluster_centers_, backend) for fit in fits)]
    moves = [((after - before) ** 2).sum() for before, after in pairwise(centers)]
    assert moves[2] < moves[1]
    for limit in (1.01 * moves[1], 0.99 * moves[1], 0.99 * min(moves)):
        n_iter = next((i for i, move in enumerate(moves, 1) if move <= limit), 5)
        kmeans = KMeans(8, **settings, tol=limit / X.var(axis=0).mean(), max_iter=5).fit(place)
        assert kmeans.n_iter_ == n_iter == len(kmeans.objective_curve_)
        # The last iteration moves the centres, and labels and inertia are of where they are then.
        assert host(kmeans.labels_, backend).tolist() == host(fits[n_iter - 1].predict(place), backend).tolist()
        assert kmeans.score(place) == -kmeans.inertia_


def test_it_stops_and_does_not_grow_with_k_from_nested_starts(backend: Backend) -> None:
    place = backend.asarray(IRIS, "float64")
    last, centers = np.inf, IRIS[:0]
    for k in range(1, 8):
        centers = np.concatenate([centers, IRIS[k * 20 : k * 20 + 1]])
        kmeans = KMeans(k, init=centers, tol=0, max_iter=1000).fit(place)
        assert kmeans.n_iter_ < 1000
        assert kmeans.inertia_ <= last
        last, centers = kmeans.inertia_, host(kmeans.cluster_centers_, backend)


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 40),
    k=st.integers(1, 4),
    spread=st.sampled_from([0, 3, 1000]),
)
def test_medians_are_those_of_numpy(seed: int, n: int, k: int, spread: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.integers(-spread, spread + 1, (n, 3)).astype(float)
    k = min(k, n)
    kmeans = KMeans(k, init=X[rng.permutation(n)[:k]], metric="l1", max_iter=1)
    begin = np.asarray(kmeans.init)
    labels = np.abs(X[:, None] - begin).sum(axis=-1).argmin(axis=1)
    if len(np.unique(labels)) < k:
        return  # empty clusters are another test's
    with pytest.warns(ConvergenceWarning) if len(np.unique(X, axis=0)) < k else _nothing():
        kmeans.fit(X)
    expected = np.stack([np.median(X[labels == j], axis=0) for j in range(k)])
    assert kmeans.cluster_centers_.tolist() == expected.tolist()


class _nothing:  # noqa: N801 - stands where `pytest.warns` does
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize("metric", ["l2", "l1"])
def test_weights_are_repetitions(backend: Backend, metric: str) -> None:
    counts = np.arange(150) % 4
    place = backend.asarray(IRIS, "float64")
    settings: dict[str, Any] = {"init": IRIS[[0, 60, 120]], "metric": metric, "tol": 0}
    weighted = KMeans(3, **settings).fit(place, sample_weight=counts)
    repeated = KMeans(3, **settings).fit(backend.asarray(np.repeat(IRIS, counts, axis=0), "float64"))
    np.testing.assert_allclose(
        host(weighted.cluster_centers_, backend), host(repeated.cluster_centers_, backend), rtol=1e-12
    )
    assert weighted.inertia_ == pytest.approx(repeated.inertia_, rel=1e-12)
    assert weighted.objective_curve_ == pytest.approx(repeated.objective_curve_, rel=1e-12)
    assert weighted.score(place, sample_weight=counts) == pytest.approx(-repeated.inertia_, rel=1e-12)


def test_rows_far_from_zero_keep_their_digits(backend: Backend) -> None:
    X = 1e7 + IRIS
    place = backend.asarray(X, "float64")
    kmeans = KMeans(3, random_state=0).fit(place)
    expected = np.sqrt(((X[:, None] - host(kmeans.cluster_centers_, backend)) ** 2).sum(axis=-1))
    np.testing.assert_allclose(host(kmeans.transform(place), backend), expected, atol=1e7 * 16 * EPS)


def test_l1_distances_are_sums_of_magnitudes(backend: Backend) -> None:
    place = backend.asarray(IRIS, "float64")
    kmeans = KMeans(3, random_state=0, metric="l1").fit(place)
    expected = np.abs(IRIS[:, None] - host(kmeans.cluster_centers_, backend)).sum(axis=-1)
    np.testing.assert_allclose(host(kmeans.transform(place), backend), expected, rtol=8 * EPS, atol=8 * EPS)
    assert kmeans.inertia_ == -kmeans.score(place) == pytest.approx(expected.min(axis=1).sum(), rel=1e-12)


def test_l1_centres_move_less_when_outliers_come(backend: Backend) -> None:
    X = make_blobs(200, 2, centers=[[0, 0], [20, 0]], random_state=0)[0]
    far = np.concatenate([X, [[0, 300.0], [20, 300.0]]])
    moves = {}
    for metric in ("l2", "l1"):
        before, after = (
            host(KMeans(2, init=[[0, 0], [20, 0]], metric=metric).fit(backend.asarray(rows)).cluster_centers_, backend)
            for rows in (X, far)
        )
        moves[metric] = np.abs(after - before).max()
    assert moves["l1"] < 0.1 * moves["l2"]


@pytest.mark.parametrize("metric", ["l2", "l1"])
def test_empty_clusters_get_the_rows_that_are_worst_off(backend: Backend, metric: str) -> None:
    X = np.asarray([[0.0], [1.0], [10.0], [11.0], [100.0]])
    begin = [[0.0], [50.0], [1000.0], [2000.0]]
    ours = KMeans(4, init=begin, metric=metric).fit(backend.asarray(X))
    assert len(np.unique(host(ours.labels_, backend))) == 4
    if metric == "l2":
        theirs = sklearn.cluster.KMeans(4, init=np.asarray(begin), n_init=1).fit(X)
        assert ours.inertia_ == pytest.approx(theirs.inertia_)
        assert np.sort(host(ours.cluster_centers_, backend)[:, 0]).tolist() == pytest.approx(
            np.sort(theirs.cluster_centers_[:, 0]).tolist()
        )


@pytest.mark.parametrize("metric", ["l2", "l1"])
def test_a_centre_whose_rows_weigh_nothing_stays(backend: Backend, metric: str) -> None:
    place = backend.asarray(np.asarray([[0.0], [1.0], [100.0]]))
    kmeans = KMeans(2, init=[[0.0], [1000.0]], metric=metric, max_iter=1)
    with pytest.warns(ConvergenceWarning, match=r"distinct clusters \(1\)"):
        kmeans.fit(place, sample_weight=[1.0, 1.0, 0.0])
    np.testing.assert_allclose(host(kmeans.cluster_centers_, backend), [[0.5], [1000.0]], rtol=8 * EPS)


@pytest.mark.parametrize("metric", ["l2", "l1"])
@pytest.mark.parametrize("name", SETS)
def test_exact_arithmetic_has_the_same_bits_everywhere(backend: Backend, name: str, metric: str) -> None:
    load, k = SETS[name]
    X = load()[:200]
    settings: dict[str, Any] = {"random_state": 1, "metric": metric, "arithmetic": "exact", "max_iter": 6}
    reference, place = KMeans(k, **settings).fit(X), backend.asarray(X, "float64")
    ours = KMeans(k, **settings).fit(place)
    assert host(ours.labels_, backend).tolist() == reference.labels_.tolist()
    assert (host(ours.cluster_centers_, backend) + 0.0).tobytes() == (reference.cluster_centers_ + 0.0).tobytes()
    assert (ours.inertia_, ours.objective_curve_) == (reference.inertia_, reference.objective_curve_)
    assert ours.deviations(place) == reference.deviations(X)
    assert host(ours.predict(place), backend).tolist() == reference.labels_.tolist()
    assert ours.score(place) == -ours.inertia_


@pytest.mark.parametrize("metric", ["l2", "l1"])
def test_exact_bits_are_not_a_matter_of_how_many_rows_a_library_likes_at_once(
    monkeypatch: pytest.MonkeyPatch, backend: Backend, metric: str
) -> None:
    X, weights = np.random.default_rng(0).normal(size=(1500, 3)), np.arange(1500) / 7.0
    settings: dict[str, Any] = {"init": X[:3], "metric": metric, "arithmetic": "exact", "max_iter": 4}
    reference = KMeans(3, **settings).fit(X, sample_weight=weights)
    monkeypatch.setattr(type(backend), "rows_at_once", 41)
    ours = KMeans(3, **settings).fit(backend.asarray(X, "float64"), sample_weight=weights)
    assert (host(ours.cluster_centers_, backend) + 0.0).tobytes() == (reference.cluster_centers_ + 0.0).tobytes()
    assert (ours.inertia_, ours.objective_curve_) == (reference.inertia_, reference.objective_curve_)


@pytest.mark.parametrize("metric", ["l2", "l1"])
def test_exact_rows_are_rounded_as_those_that_were_fitted(backend: Backend, metric: str) -> None:
    X = np.random.default_rng(0).normal(size=(60, 3)) * np.where(np.arange(60) < 20, 1e-3, 1.0)[:, None]
    place = backend.asarray(X, "float64")
    kmeans = KMeans(3, init=X[[0, 30, 40]], metric=metric, arithmetic="exact").fit(place)
    some, all_ = (host(kmeans.transform(rows), backend) for rows in (place[:20, :], place))
    assert some.tobytes() == np.ascontiguousarray(all_[:20]).tobytes()


@pytest.mark.parametrize("metric", ["l2", "l1"])
def test_exact_arithmetic_rounds_rows_weights_and_centres(metric: str) -> None:
    X, weights = load_digits().data[:200], np.arange(200) % 5 + 1.0
    noise = np.random.default_rng(0).uniform(-(2.0**-40), 2.0**-40, X.shape) * (X.std(axis=0) > 0.0)
    settings: dict[str, Any] = {"init": X[:7], "metric": metric, "arithmetic": "exact", "max_iter": 6}
    plain, noisy = (
        KMeans(7, **settings).fit(X + part, sample_weight=weights + part.max(axis=1))
        for part in (np.zeros_like(X), noise)
    )
    assert noisy.cluster_centers_.tobytes() == plain.cluster_centers_.tobytes()
    assert noisy.objective_curve_ == plain.objective_curve_
    assert as_integers(plain.cluster_centers_) <= 2 ** weight_bits(X.shape[1], 7)


@pytest.mark.parametrize(("arithmetic", "tolerance"), [("native", 1e-12), ("exact", 1e-6)])
@pytest.mark.parametrize("metric", ["l2", "l1"])
def test_deviations_are_those_within_and_those_between(
    backend: Backend, metric: str, arithmetic: str, tolerance: float
) -> None:
    place = backend.asarray(IRIS, "float64")
    kmeans = KMeans(4, random_state=0, metric=metric, arithmetic=arithmetic).fit(place)
    total, within, between = kmeans.deviations(place)
    labels = host(kmeans.labels_, backend)
    means = np.stack([IRIS[labels == j].mean(axis=0) for j in range(4)])
    assert float(total) == pytest.approx(IRIS.var(axis=0).sum(), rel=tolerance)
    assert float(within) == pytest.approx(((IRIS - means[labels]) ** 2).sum() / 150, rel=tolerance)
    if arithmetic == "exact":
        assert all(type(part) is Fraction for part in (total, within, between))
        assert total == within + between
    else:
        assert total == pytest.approx(within + between, rel=8 * EPS)


def test_exact_deviations_are_of_what_rounding_leaves(backend: Backend) -> None:
    X = np.asarray([[1 - 2.0**-30], [2.0**-24], [0.5 + 3 * 2.0**-24]])  # the first becomes 1, the largest of 25 bits
    rows = [Fraction(1), Fraction(1, 2**24), Fraction(1, 2) + Fraction(3, 2**24)]
    kmeans = KMeans(3, init=X, arithmetic="exact").fit(backend.asarray(X))
    total, within, _ = kmeans.deviations(backend.asarray(X))
    assert total == sum((row - sum(rows) / 3) ** 2 for row in rows) / 3
    assert within == 0


@pytest.mark.parametrize("metric", ["l2", "l1"])
def test_the_size_of_blocks_does_not_matter(monkeypatch: pytest.MonkeyPatch, backend: Backend, metric: str) -> None:
    place = backend.asarray(IRIS, "float64")
    whole = KMeans(3, random_state=0, metric=metric).fit(place)
    expected = host(whole.transform(place), backend), whole.deviations(place)
    monkeypatch.setattr(type(backend), "rows_at_once", 41)  # blocks of 38, and two rows that fill up
    monkeypatch.setattr(table_module, "MOST_DIFFERENCES", 41 * 12)
    parts = KMeans(3, random_state=0, metric=metric).fit(place)
    assert host(parts.labels_, backend).tolist() == host(whole.labels_, backend).tolist()
    for name in ("inertia_", "objective_curve_", "n_iter_"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-12)
    distances = host(parts.transform(place), backend)
    np.testing.assert_allclose(distances, expected[0], rtol=1e-9, atol=1e-6)
    assert distances.shape == (150, 3)
    assert parts.deviations(place) == pytest.approx(expected[1], rel=1e-12)


def test_what_comes_out_has_names() -> None:
    assert KMeans(3, random_state=0).fit(IRIS).get_feature_names_out().tolist() == ["kmeans0", "kmeans1", "kmeans2"]


def test_the_best_of_several_runs_is_kept() -> None:
    runs = [KMeans(6, n_init=n, random_state=3, init="random").fit(IRIS).inertia_ for n in (1, 10, "auto")]
    assert runs[1] < runs[0]
    assert runs[2] == runs[1]


def test_init_may_be_a_function(backend: Backend) -> None:
    def middle(X: Any, n_clusters: int, random_state: np.random.RandomState) -> Any:
        assert X.shape == (150, 4)
        assert isinstance(random_state, np.random.RandomState)
        return X[50 : 50 + n_clusters, :]

    place = backend.asarray(IRIS, "float64")
    given_, same = KMeans(3, init=middle, n_init=1).fit(place), KMeans(3, init=IRIS[50:53]).fit(place)
    assert host(given_.labels_, backend).tolist() == host(same.labels_, backend).tolist()


def of_two(X: Any, n_clusters: int, **_: Any) -> Any:
    return X[: n_clusters - 1, :]


@pytest.mark.parametrize(
    ("settings", "X", "text"),
    [
        ({"n_clusters": 151}, IRIS, "n_samples=150 should be >= n_clusters=151"),
        ({"n_clusters": 0}, IRIS, "'n_clusters' parameter"),
        ({"metric": "cosine"}, IRIS, "'metric' parameter"),
        ({"algorithm": "elkan"}, IRIS, "'algorithm' parameter"),
        ({"init": IRIS[:2]}, IRIS, r"initial centers \(2, 4\) does not match the number of clusters 3"),
        ({"init": IRIS[:3, :2]}, IRIS, r"initial centers \(3, 2\) does not match the number of features of the data 4"),
        ({"init": IRIS[:3] * np.nan}, IRIS, "init contains NaN, infinity"),
        ({"init": IRIS[:3] * np.inf}, IRIS, "init contains NaN, infinity"),
        ({"init": IRIS[0]}, IRIS, r"initial centers \(4,\) does not match the number of clusters 3"),
        ({"init": of_two}, IRIS, r"initial centers \(2, 4\) does not match the number of clusters 3"),
        ({"init": "best"}, IRIS, "'init' parameter"),
        ({"arithmetic": "exact", "n_clusters": 151}, IRIS, "n_samples=150 should be >= n_clusters=151"),
        ({}, np.where(IRIS[7] == IRIS, np.inf, IRIS), "Input X contains infinity"),
        ({}, IRIS.astype(np.complex128), "Complex data not supported"),
        ({}, IRIS[:, :0], "Found array with 0 feature"),
        ({}, IRIS * np.nan, "Input X contains NaN"),
        ({}, IRIS[:0], "Found array with 0 sample"),
        ({}, IRIS[0], "Expected 2D array, got 1D"),
    ],
)
def test_what_is_wrong_is_said(backend: Backend, settings: dict[str, Any], X: Any, text: str) -> None:
    wrong = backend.asarray(X, None if np.iscomplexobj(X) else "float64")
    kmeans = KMeans(**{"n_clusters": 3, **settings})
    for _ in range(2):  # before a fit, and after one
        before = dict(kmeans.__dict__)
        with pytest.raises(ValueError, match=text):
            kmeans.fit(wrong)
        assert kmeans.__dict__.keys() == before.keys()
        assert all(kmeans.__dict__[name] is before[name] for name in before)
        kmeans.set_params(**KMeans(3, random_state=0).get_params()).fit(backend.asarray(IRIS[:, :2], "float64"))
        kmeans.set_params(**{"n_clusters": 3, **settings})


def test_finite_rows_are_taken_even_if_their_sum_is_not(backend: Backend) -> None:
    place = backend.asarray(np.full((4, 2), 3e38), "float32")
    taken, _ = take_features(KMeans(2), place, reset=True)
    assert taken is place


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        (np.ones(149), r"sample_weight.shape == \(149,\), expected \(150,\)"),
        (-np.ones(150), "Negative values in data passed to `sample_weight`"),
        (np.full(150, np.nan), "Input sample_weight contains NaN"),
        (np.zeros(150), "must contain at least one non-zero number"),
    ],
)
def test_wrong_weights_are_refused(backend: Backend, weights: Any, text: str) -> None:
    place = backend.asarray(IRIS, "float64")
    kmeans = KMeans(3, random_state=0)
    for given_ in (weights, backend.asarray(weights, "float64")):
        with pytest.raises(ValueError, match=text):
            kmeans.fit(place, sample_weight=given_)
        assert not hasattr(kmeans, "n_features_in_")
    kmeans.fit(place)
    with pytest.raises(ValueError, match=text):
        kmeans.score(place, sample_weight=weights)


def test_a_refused_fit_takes_nothing_from_a_random_state() -> None:
    given_, same = np.random.RandomState(0), np.random.RandomState(0)
    calls: list[int] = []

    def refuses_later(X: Any, n_clusters: int, random_state: np.random.RandomState) -> Any:
        calls.append(int(random_state.randint(100)))
        return X[: n_clusters - (len(calls) > 1), :]

    with pytest.raises(ValueError, match="does not match the number of clusters"):
        KMeans(3, init=refuses_later, random_state=given_).fit(IRIS)
    assert len(calls) == 2
    assert given_.randint(2**31) == same.randint(2**31)


def test_what_does_not_fit_into_the_fitted_type_is_refused(backend: Backend) -> None:
    with pytest.raises(ValueError, match=r"init contains NaN, infinity or a value too large for .*float32"):
        KMeans(3, init=IRIS[:3] * 1e300).fit(backend.asarray(IRIS, "float32"))
    kmeans = KMeans(3, random_state=0).fit(backend.asarray(IRIS, "float32"))
    with pytest.raises(ValueError, match=r"too large for .*float32, in which this KMeans was fitted"):
        kmeans.predict(backend.asarray(IRIS * 1e300, "float64"))


def test_sparse_tables_are_refused() -> None:
    with pytest.raises(TypeError, match="Sparse data was passed for X, but dense data is required"):
        KMeans(3).fit(scipy.sparse.csr_array(IRIS))


def test_rows_on_another_device_are_refused_and_centres_and_weights_follow() -> None:
    here, there = (
        array_api_strict.asarray(IRIS, device=array_api_strict.Device(name)) for name in ("CPU_DEVICE", "device1")
    )
    kmeans = KMeans(3, init=there[50:53, :]).fit(here)
    assert kmeans.labels_.device == here.device
    assert kmeans.score(here, sample_weight=array_api_strict.ones(150, device=there.device)) == -kmeans.inertia_
    for method in ("predict", "transform", "score", "deviations"):
        with pytest.raises(ValueError, match=rf"KMeans.{method}\(\) must use the same namespace and the same device"):
            getattr(kmeans, method)(there)


def test_rows_on_another_device_of_jax_are_refused() -> None:
    pytest.importorskip("jax", reason="JAX is not installed")
    said = jax_says(
        "from mlp_xp.cluster import KMeans\n"
        "one, other = (jax.device_put(np.eye(4, dtype='float32'), device) for device in jax.devices())\n"
        "kmeans = KMeans(2, random_state=0).fit(one)\n"
        "try: kmeans.predict(other)\n"
        "except ValueError as error: print(error)\n"
        "print(kmeans.fit(other).labels_.devices() == {jax.devices()[1]})\n"
    )
    assert "that was jax on cpu, and now it is jax on cpu:1" in said
    assert said.endswith("True\n")


def test_other_features_other_places_and_nothing_fitted(backend: Backend) -> None:
    place = backend.asarray(IRIS, "float64")
    for method in ("predict", "transform", "score", "deviations"):
        with pytest.raises(NotFittedError):
            getattr(KMeans(3), method)(place)
        kmeans = KMeans(3, random_state=0).fit(place)
        with pytest.raises(ValueError, match="X has 3 features, but KMeans is expecting 4"):
            getattr(kmeans, method)(place[:, :3])
        if not isinstance(place, np.ndarray):
            with pytest.raises(ValueError, match=rf"Inputs passed to KMeans.{method}\(\) must use the same namespace"):
                getattr(kmeans, method)(IRIS)


def test_warnings_are_scikit_learns() -> None:
    with pytest.warns(RuntimeWarning, match="performing only one init in KMeans instead of n_init=3") as found:
        KMeans(3, init=IRIS[:3], n_init=3).fit(IRIS)
    assert found[0].filename == __file__
    with pytest.warns(
        ConvergenceWarning, match=r"distinct clusters \(1\) found smaller than n_clusters \(3\)"
    ) as found:
        KMeans(3, random_state=0).fit(np.ones((5, 2)))
    assert found[0].filename == __file__


def test_verbose_tells_every_iteration(capsys: pytest.CaptureFixture[str]) -> None:
    kmeans = KMeans(3, random_state=0, verbose=1).fit(IRIS)
    assert capsys.readouterr().out.count("objective") == kmeans.n_iter_ == len(kmeans.objective_curve_)


@pytest.mark.parametrize("metric", ["l2", "l1"])
def test_check_estimator_passes(metric: str) -> None:
    results = check_estimator(
        KMeans(3, metric=metric),
        on_skip=None,
        expected_failed_checks={"check_sample_weight_equivalence_on_dense_data": WEIGHTS},
    )
    assert {result["status"] for result in results} <= {"passed", "skipped", "xfail"}
    assert [result["check_name"] for result in results if result["status"] == "xfail"] == [
        "check_sample_weight_equivalence_on_dense_data"
    ]


def test_rows_whose_squares_are_too_large_are_refused(backend: Backend) -> None:
    rows = np.random.default_rng(0).normal(size=(20, 3)) * 1e25
    with pytest.raises(ValueError, match=r"the squares of X's values are too large for .*float32.*: scale X"):
        KMeans(2, random_state=0).fit(backend.asarray(rows, "float32"))


@pytest.mark.parametrize("arithmetic", ["native", "exact"])
def test_what_was_fitted_moves_to_another_library(backend: Backend, arithmetic: str) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 3))
    here = KMeans(3, random_state=0, arithmetic=arithmetic).fit(rows)
    place = backend.asarray(rows, "float64")
    there = KMeans(3, random_state=0, arithmetic=arithmetic).fit(rows).move_to(place)
    assert type(there.cluster_centers_) is type(there.labels_) is type(place)
    assert array_api_compat.device(there.cluster_centers_) == array_api_compat.device(place)
    np.testing.assert_array_equal(backend.to_host(there.predict(place)), here.predict(rows))
    np.testing.assert_array_equal(there.move_to(rows).predict(rows), here.predict(rows))
