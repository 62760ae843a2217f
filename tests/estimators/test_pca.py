"""Principal components: scikit-learn's results on every library, and the sheet's facts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sklearn.decomposition
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from checks import DTYPES
from mlp_xp import components as components_module
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend
from mlp_xp.decomposition import PCA
from mlp_xp.namespaces import backend_of
from mlp_xp.neural_network import MLPClassifier


def separated(n: int, d: int, mean: float = 0.0) -> NDArray[np.float64]:
    """Return rows whose variances along their axes differ by a factor of at least 1.3, as far as rows go."""
    rng = np.random.default_rng(0)
    m = min(n, d)
    left, _ = np.linalg.qr(rng.normal(size=(n, m + 1)) if n > d else rng.normal(size=(n, m)))
    right, _ = np.linalg.qr(rng.normal(size=(d, m)))
    rows: NDArray[np.float64] = left[:, :m] * 1.25 ** -np.arange(m) * 10.0 @ right.T + mean * rng.normal(size=d)
    return rows


SETS: dict[str, Callable[[], Any]] = {
    "iris": lambda: load_iris().data,  # n > d
    "wine": lambda: load_wine().data,
    "digits": lambda: load_digits().data[:500, load_digits().data.std(axis=0) > 1.0],
    "many rows": lambda: separated(900, 12),
    "far from 0": lambda: separated(900, 12, mean=1e3),
    "few rows": lambda: separated(12, 40, mean=1.0),
    "as many": lambda: separated(20, 20),
}
SOLVERS = ("auto", "full", "covariance_eigh", "randomized")
ATTRIBUTES = ("explained_variance_", "explained_variance_ratio_", "singular_values_", "mean_", "components_")
IRIS = load_iris().data
EPS = float(np.finfo(np.float64).eps)


def host(array: Any, backend: Backend) -> NDArray[Any]:
    return np.asarray(array if isinstance(array, np.ndarray) else backend.to_host(array))


def assert_follows(array: Array, like: Array, shape: tuple[int, ...]) -> None:
    assert type(array) is type(like)
    assert array.dtype == like.dtype
    assert array.device == like.device
    assert array.shape == shape


def assert_agrees(array: Array, expected: Any, backend: Backend, tol: float = 1e-10) -> None:
    found, expected = host(array, backend), np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tol * max(1.0, float(np.abs(expected).max(initial=0.0))))


def fitted_alike(backend: Backend, name: str, **settings: Any) -> tuple[PCA, Any, Array]:
    """Return both estimators, fitted to the same rows in float64, and these."""
    X = SETS[name]()
    place = backend.asarray(X, "float64")
    theirs = dict(settings)
    if theirs.get("svd_solver") == "randomized":  # no array API library has scikit-learn's default, "LU"
        theirs["power_iteration_normalizer"] = "QR"
    elif name == "far from 0":  # where scikit-learn's covariance has lost half of the digits
        theirs["svd_solver"] = "full"
    return PCA(**settings).fit(place), sklearn.decomposition.PCA(**theirs).fit(X), place


@pytest.mark.parametrize(("solver", "whiten"), [*((solver, False) for solver in SOLVERS), ("auto", True)])
@pytest.mark.parametrize("name", SETS)
def test_everything_is_scikit_learns(backend: Backend, name: str, solver: str, whiten: bool) -> None:
    X = SETS[name]()
    settings: dict[str, Any] = {"n_components": 3, "svd_solver": solver, "whiten": whiten, "random_state": 0}
    ours, theirs, place = fitted_alike(backend, name, **settings)
    for attribute in ATTRIBUTES:
        array, expected = getattr(ours, attribute), getattr(theirs, attribute)
        assert_follows(array, place, expected.shape)
        assert_agrees(array, expected, backend)
    assert (ours.n_components_, ours.n_samples_, ours.n_features_in_) == (3, *X.shape)
    assert type(ours.noise_variance_) is float
    assert ours.noise_variance_ == pytest.approx(theirs.noise_variance_, rel=1e-9)
    new = X[::5] + 0.1
    moved = backend.asarray(new, "float64")
    scale = float(np.abs(X).max() / theirs.explained_variance_[2] ** 0.5) if whiten else 1.0
    along = ours.transform(moved)
    assert_follows(along, place, (len(new), 3))
    assert_agrees(along, theirs.transform(new), backend, 1e-10 * max(scale, 1.0))
    assert_agrees(clone(ours).fit_transform(place), theirs.transform(X), backend, 1e-10 * max(scale, 1.0))
    back = ours.inverse_transform(along)
    assert_follows(back, place, new.shape)
    assert_agrees(back, theirs.inverse_transform(theirs.transform(new)), backend)
    theirs.set_params(whiten=False)  # scikit-learn#13898
    for method in ("get_covariance", "get_precision"):
        matrix = getattr(ours, method)()
        assert_follows(matrix, place, (X.shape[1],) * 2)
        assert_agrees(matrix, getattr(theirs, method)(), backend, 1e-9)
    scores = ours.score_samples(moved)
    assert_follows(scores, place, (len(new),))
    np.testing.assert_allclose(host(scores, backend), theirs.score_samples(new), rtol=1e-8)
    assert ours.score(moved) == pytest.approx(theirs.score(new), rel=1e-8)


@pytest.mark.parametrize("solver", ["full", "covariance_eigh"])
@pytest.mark.parametrize("name", ["wine", "many rows", "few rows", "as many"])
@pytest.mark.parametrize("n_components", [None, 0.5, 0.99999, 1, 0])
def test_any_number_of_components(backend: Backend, name: str, solver: str, n_components: Any) -> None:
    X = SETS[name]()
    ours, theirs, place = fitted_alike(backend, name, n_components=n_components, svd_solver=solver)
    assert type(ours.n_components_) is int
    assert ours.n_components_ == theirs.n_components_
    k = ours.n_components_
    if n_components is None and X.shape[0] <= X.shape[1]:
        k -= 1  # rows less their mean do not vary along the last one
    for attribute in ATTRIBUTES:
        rows = slice(None) if attribute == "mean_" else slice(k)
        found, expected = getattr(ours, attribute), getattr(theirs, attribute)
        assert_follows(found, place, expected.shape)
        assert_agrees(host(found, backend)[rows], expected[rows], backend)
    assert ours.noise_variance_ == pytest.approx(theirs.noise_variance_, rel=1e-9, abs=1e-12)
    along = ours.transform(place)
    assert_agrees(host(along, backend)[:, :k], theirs.transform(X)[:, :k], backend)
    if k == 0:  # no table has no column
        return
    assert_agrees(ours.inverse_transform(along), theirs.inverse_transform(theirs.transform(X)), backend)


def test_shares_must_be_exceeded(backend: Backend) -> None:
    cross = backend.asarray(np.asarray([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
    assert PCA(0.5, svd_solver="covariance_eigh").fit(cross).n_components_ == 2
    assert PCA(0.49, svd_solver="covariance_eigh").fit(cross).n_components_ == 1
    assert PCA(0.9).fit(backend.asarray(np.ones((5, 3)))).n_components_ == 3  # no share at all is


def test_noise_may_be_more_than_what_was_found(backend: Backend) -> None:
    X = np.random.default_rng(0).normal(size=(300, 40))
    settings: dict[str, Any] = {"svd_solver": "randomized", "iterated_power": 0, "n_oversamples": 1, "random_state": 0}
    place = backend.asarray(X, "float64")
    pca, theirs = PCA(8, **settings).fit(place), sklearn.decomposition.PCA(8, **settings).fit(X)
    assert theirs.explained_variance_[-1] < theirs.noise_variance_ < theirs.explained_variance_[0]
    assert_agrees(pca.get_covariance(), theirs.get_covariance(), backend)
    inverse = np.linalg.inv(theirs.get_covariance())
    assert_agrees(pca.get_precision(), inverse, backend)
    centred = X - X.mean(axis=0)
    expected = -0.5 * (
        np.sum(centred @ inverse * centred, axis=1) + 40 * np.log(2 * np.pi) - np.linalg.slogdet(inverse)[1]
    )
    assert_agrees(pca.score_samples(place), expected, backend)


def test_the_solver_is_chosen_as_in_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for n, d, k in [(100, 10, None), (99, 10, 2), (501, 60, 10), (501, 60, 48), (501, 60, 47), (40, 501, 0.5)]:
        X = rng.normal(size=(n, d))
        theirs = sklearn.decomposition.PCA(k, random_state=0).fit(X)
        assert PCA(k)._choose_solver(n, d) == theirs._fit_svd_solver


@pytest.mark.parametrize("settings", [{}, {"iterated_power": 1}, {"iterated_power": 9}, {"n_oversamples": 40}])
@pytest.mark.parametrize("name", ["digits", "few rows"])
def test_random_directions_are_scikit_learns(backend: Backend, name: str, settings: dict[str, Any]) -> None:
    X = SETS[name]()
    place = backend.asarray(X, "float64")
    settings = {"n_components": 4, "svd_solver": "randomized", "random_state": 3, **settings}
    assert_agrees(
        PCA(**settings).fit(place).components_,
        sklearn.decomposition.PCA(**settings).fit(X).components_,  # of the same draws, although normalised by LU
        backend,
    )
    generator = np.random.RandomState(3)
    drawn = [PCA(**{**settings, "random_state": generator, "n_components": 3}).fit(place) for _ in range(2)]
    assert_agrees(drawn[0].components_, host(drawn[1].components_, backend), backend, 0.1)


def test_without_normalisation_and_with(backend: Backend) -> None:
    place = backend.asarray(SETS["digits"](), "float64")
    few: dict[str, Any] = {"svd_solver": "randomized", "random_state": 0, "iterated_power": 3, "n_oversamples": 2}
    a, b, c = (
        host(PCA(4, power_iteration_normalizer=name, **few).fit(place).components_, backend)
        for name in ("none", "auto", "QR")
    )
    np.testing.assert_allclose(a, c, atol=1e-9)
    np.testing.assert_allclose(b, c, atol=1e-9)
    assert a.tolist() != b.tolist() != c.tolist()
    few["iterated_power"] = 2
    a, b = (
        host(PCA(4, power_iteration_normalizer=name, **few).fit(place).components_, backend)
        for name in ("none", "auto")
    )
    assert a.tolist() == b.tolist()


@pytest.mark.parametrize(("normalizer", "least"), [("QR", 1e-10), ("auto", 1e-6)])
def test_normalisation_keeps_what_varies_little(backend: Backend, normalizer: str, least: float) -> None:
    """Down to eps times the largest, or to its square root."""
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.normal(size=(30, 30)))
    X = np.linalg.qr(rng.normal(size=(200, 5)))[0] * [1.0, 0.9, 0.8, least, 0.5 * least] @ axes[:5]
    X = X - X.mean(axis=0)
    X += 0.05 * least / 200**0.5 * rng.normal(size=(200, 30))
    settings: dict[str, Any] = {"svd_solver": "randomized", "random_state": 0, "iterated_power": 7, "n_oversamples": 1}
    place = backend.asarray(X, "float64")
    full = sklearn.decomposition.PCA(5, svd_solver="full").fit(X)
    good, bad = (
        host(PCA(5, power_iteration_normalizer=name, **settings).fit(place).components_, backend)
        for name in (normalizer, "none")
    )
    cosines = [np.abs(np.sum(found * full.components_, axis=1)) for found in (good, bad)]
    assert cosines[0].min() > 0.999
    assert cosines[1].min() < 0.999


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_type_stays(backend: Backend, solver: str, dtype: str) -> None:
    X = SETS["many rows"]()
    place = backend.asarray(X, dtype)
    pca = PCA(5, svd_solver=solver, random_state=0).fit(place)
    theirs = sklearn.decomposition.PCA(5, svd_solver="full").fit(X)
    for attribute in ATTRIBUTES:
        assert_follows(getattr(pca, attribute), place, getattr(theirs, attribute).shape)
    # An axis moves by about eps × the largest variance / the gap to the next one.
    gap = np.abs(np.diff(theirs.explained_variance_)).min() / theirs.explained_variance_[0]
    assert_agrees(pca.components_, theirs.components_, backend, 4.0 * float(np.finfo(dtype).eps) / gap)
    assert_follows(pca.transform(place), place, (len(X), 5))
    assert_follows(pca.transform(backend.asarray(X)), place, (len(X), 5))
    assert_follows(pca.inverse_transform(pca.transform(place)), place, X.shape)
    along = host(pca.transform(place), backend)
    assert_follows(pca.inverse_transform(backend.asarray(along, "float64")), place, X.shape)
    assert_follows(pca.score_samples(place), place, (len(X),))


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_mean_far_from_0_costs_few_digits(backend: Backend, solver: str) -> None:
    """In float32 the squares of these values leave no digit of their variances, and their sum few of their mean."""
    X = (separated(6000, 6) * 30 + 1e5).astype(np.float32)
    centred = X.astype(np.float64) - X.mean(axis=0, dtype=np.float64)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    place = backend.asarray(X)
    pca = PCA(4, svd_solver=solver, random_state=0).fit(place)
    found = host(pca.components_, backend)
    assert np.abs(np.abs(np.sum(found * axes[:4], axis=1)) - 1.0).max() < 1e-5
    variances = host(pca.explained_variance_, backend)
    np.testing.assert_allclose(variances, values[:4] ** 2 / 5999, rtol=1e-4)
    scores = host(pca.transform(place), backend)
    expected = centred @ (axes[:4] * np.sign(np.sum(found * axes[:4], axis=1))[:, None]).T
    # What the mean itself is rounded to moves all rows alike.
    assert np.max(np.abs(scores - expected)) < 1e5 * 4 * float(np.finfo(np.float32).eps)


def test_the_size_of_blocks_does_not_matter(monkeypatch: pytest.MonkeyPatch, backend: Backend) -> None:
    place = backend.asarray(IRIS, "float64")
    whole = PCA(svd_solver="covariance_eigh").fit(place)
    monkeypatch.setattr(components_module, "BLOCK", 37)
    parts = PCA(svd_solver="covariance_eigh").fit(place)
    for attribute in ATTRIBUTES:
        assert_agrees(getattr(parts, attribute), host(getattr(whole, attribute), backend), backend, 1e-12)


def test_the_sheets_three_points(backend: Backend) -> None:
    place = backend.asarray(np.asarray([[-1.0, 1.0], [0.0, -2.0], [1.0, 1.0]]))
    for solver in SOLVERS:
        pca = PCA(1, svd_solver=solver, random_state=0).fit(place)
        assert_agrees(pca.components_, [[0.0, 1.0]], backend, 4 * EPS)
        assert_agrees(pca.explained_variance_, [3.0], backend, 4 * EPS)


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(30, 4), (200, 4), (5, 9), (9, 9)]),
    scale=st.floats(-3, 3).map(lambda exponent: 10.0**exponent),
    solver=st.sampled_from(["full", "covariance_eigh"]),
)
def test_translations_and_scalings_leave_the_axes_and_rotations_turn_them(
    seed: int, shape: tuple[int, int], scale: float, solver: str
) -> None:
    rng = np.random.default_rng(seed)
    X = separated(*shape) + 1e-3 * rng.normal(size=shape)
    rotation, _ = np.linalg.qr(rng.normal(size=(shape[1], shape[1])))
    pca = PCA(3, svd_solver=solver).fit(X)
    shift = 10.0 * rng.normal(size=shape[1])
    moved = clone(pca).fit(scale * (X + shift))
    np.testing.assert_allclose(moved.components_, pca.components_, atol=1e-10)
    np.testing.assert_allclose(moved.explained_variance_, scale**2 * pca.explained_variance_, rtol=1e-10)
    np.testing.assert_allclose(moved.explained_variance_ratio_, pca.explained_variance_ratio_, rtol=1e-10)
    turned = clone(pca).fit(X @ rotation.T)
    expected = pca.components_ @ rotation.T
    signs = np.sign(np.sum(turned.components_ * expected, axis=1, keepdims=True))
    np.testing.assert_allclose(turned.components_, signs * expected, atol=1e-10)
    np.testing.assert_allclose(turned.transform(X @ rotation.T), pca.transform(X) * signs.T, atol=1e-9)


def test_the_invariances_on_every_library(backend: Backend) -> None:
    X = SETS["many rows"]()
    rng = np.random.default_rng(1)
    rotation, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    axes, moved, turned = (
        host(PCA(4).fit(backend.asarray(rows, "float64")).components_, backend)
        for rows in (X, 7.0 * (X + rng.normal(size=12)), X @ rotation.T)
    )
    np.testing.assert_allclose(moved, axes, atol=1e-10)
    np.testing.assert_allclose(np.abs(np.sum(turned * (axes @ rotation.T), axis=1)), np.ones(4), rtol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", SETS)
def test_axes_are_perpendicular_and_have_signs(backend: Backend, name: str, solver: str) -> None:
    X = SETS[name]()
    pca = PCA(svd_solver=solver, random_state=0).fit(backend.asarray(X, "float64"))
    axes = host(pca.components_, backend)
    np.testing.assert_allclose(axes @ axes.T, np.eye(min(X.shape)), atol=1e-12)
    assert np.all(np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1) > 0)
    assert np.all(np.diff(host(pca.explained_variance_, backend)) <= 0)
    assert np.all(host(pca.explained_variance_, backend) >= 0)
    back = pca.inverse_transform(pca.transform(backend.asarray(X, "float64")))
    np.testing.assert_allclose(host(back, backend), X, atol=1e-12 * np.abs(X).max())


def test_errors_fall_with_the_components_and_no_other_axes_do_better(backend: Backend) -> None:
    X = load_wine().data
    X = X / X.std(axis=0)
    place = backend.asarray(X, "float64")
    rng = np.random.default_rng(0)
    last = np.inf
    for k in range(1, 14):
        pca = PCA(k).fit(place)
        error = float(((host(pca.inverse_transform(pca.transform(place)), backend) - X) ** 2).sum())
        assert error < last
        assert error == pytest.approx((13 - k) * pca.noise_variance_ * (len(X) - 1), rel=1e-9, abs=1e-9)
        others, _ = np.linalg.qr(rng.normal(size=(13, 13)))
        centred = X - X.mean(axis=0)
        assert error <= ((centred - centred @ others[:, :k] @ others[:, :k].T) ** 2).sum() + 1e-9
        last = error


@pytest.mark.parametrize("name", ["iris", "many rows"])
def test_whitened_rows_have_unit_variance_and_the_covariance_is_that_of_x(backend: Backend, name: str) -> None:
    X = SETS[name]()
    place = backend.asarray(X, "float64")
    pca = PCA(whiten=True).fit(place)
    along = host(pca.transform(place), backend)
    np.testing.assert_allclose(np.cov(along.T), np.eye(X.shape[1]), atol=1e-9)
    np.testing.assert_allclose(host(pca.get_covariance(), backend), np.cov(X.T), atol=1e-12 * np.cov(X.T).max())
    np.testing.assert_allclose(host(pca.get_precision(), backend) @ np.cov(X.T), np.eye(X.shape[1]), atol=1e-9)


@pytest.mark.parametrize("solver", ["full", "covariance_eigh"])
def test_rows_that_vary_along_too_few_axes_have_a_score(backend: Backend, solver: str) -> None:
    """What their variance is along the last axis is rounding's, and either solver's is taken for the same."""
    rows = np.random.default_rng(0).normal(size=(40, 3))
    place = backend.asarray(np.concatenate([rows, rows[:, :1] + rows[:, 1:2]], axis=1))
    pca = PCA(svd_solver=solver).fit(place)
    values = np.linalg.eigvalsh(np.cov(host(place, backend).T))[::-1]
    values[-1] = values[0] * EPS
    expected = -0.5 * (4 * np.log(2 * np.pi) + np.log(values).sum() + 3 * 39 / 40)
    assert pca.score(place) == pytest.approx(expected, abs=1e-6)


def test_rows_that_do_not_vary(backend: Backend) -> None:
    place = backend.asarray(np.ones((40, 3)))
    for solver in SOLVERS:
        pca = PCA(2, svd_solver=solver, whiten=True, random_state=0).fit(place)
        for attribute in ("explained_variance_", "explained_variance_ratio_", "singular_values_"):
            assert host(getattr(pca, attribute), backend).tolist() == [0.0, 0.0]
        assert host(pca.transform(place), backend).tolist() == [[0.0, 0.0]] * 40
        for call in (pca.get_precision, lambda pca=pca: pca.score(place)):
            with pytest.raises(ValueError, match=r"needs a covariance that has an inverse.*n_components_=2"):
                call()


@pytest.mark.parametrize("largest", [1e30, 3e38])
@pytest.mark.parametrize("solver", SOLVERS)
def test_variances_that_are_too_large(backend: Backend, solver: str, largest: float) -> None:
    place = backend.asarray(IRIS[::-1] / 7.9 * largest, "float32")
    pca = PCA(2, svd_solver=solver, random_state=0)
    with pytest.raises(ValueError, match=r"the rows' variances are too large for .*float32: scale X"):
        pca.fit(place)
    assert not hasattr(pca, "n_features_in_")


@pytest.mark.parametrize(
    ("settings", "X", "text"),
    [
        ({"n_components": 5}, IRIS, r"n_components=5 must be between 0 and min\(n_samples, n_features\)=4 with"),
        ({"n_components": 4}, IRIS[:3], r"between 0 and min\(n_samples, n_features\)=3 with svd_solver='full'"),
        ({"n_components": 0, "svd_solver": "randomized"}, IRIS, "n_components=0 must be between 1 and"),
        ({"n_components": 0.5, "svd_solver": "randomized"}, IRIS, "n_components=0.5 must be between 1 and"),
        ({"n_components": 1.5}, IRIS, "'n_components' parameter"),
        ({"n_components": 0.0}, IRIS, "'n_components' parameter"),
        ({"n_components": -1}, IRIS, "'n_components' parameter"),
        ({"n_components": "mle"}, IRIS, "'n_components' parameter"),
        ({"svd_solver": "arpack"}, IRIS, "'svd_solver' parameter"),
        ({"power_iteration_normalizer": "LU"}, IRIS, "'power_iteration_normalizer' parameter"),
        ({}, IRIS * np.nan, "Input X contains NaN"),
        ({}, np.full((5, 2), np.inf), "Input X contains infinity"),
        ({}, IRIS[:0], "Found array with 0 sample"),
        ({}, IRIS[:, :0], "Found array with 0 feature"),
        ({}, IRIS[:1], r"Found array with 1 sample\(s\) \(shape=\(1, 4\)\) while a minimum of 2 is required by PCA"),
        ({}, IRIS[0], "Expected 2D array, got 1D"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_changes(
    backend: Backend, settings: dict[str, Any], X: Any, text: str
) -> None:
    pca = PCA(2).fit(backend.asarray(IRIS[:, :3], "float64"))
    before = dict(pca.__dict__)
    pca.set_params(**settings)
    with pytest.raises(ValueError, match=text):
        pca.fit(backend.asarray(X, "float64"))
    pca.set_params(**{name: before[name] for name in settings})
    assert pca.__dict__.keys() == before.keys()
    assert all(pca.__dict__[name] is before[name] for name in before)


def test_other_features_other_places_and_nothing_fitted(backend: Backend) -> None:
    place = backend.asarray(IRIS, "float64")
    pca = PCA(2).fit(place)
    for method in ("transform", "score", "score_samples", "inverse_transform"):
        with pytest.raises(NotFittedError):
            getattr(PCA(), method)(place)
        text = "X has 3 features, but PCA is expecting 4"
        if method == "inverse_transform":
            text = "X has 3 columns, but PCA.inverse_transform expects the 2"
        before = dict(pca.__dict__)
        with pytest.raises(ValueError, match=text):
            getattr(pca, method)(place[:, :3])
        with pytest.raises(ValueError, match="Input X contains NaN"):
            getattr(pca, method)(place * float("nan"))
        if not isinstance(place, np.ndarray):
            with pytest.raises(ValueError, match=rf"Inputs passed to PCA.{method}\(\) must use the same namespace"):
                getattr(pca, method)(IRIS if method != "inverse_transform" else IRIS[:, :2])
        assert pca.__dict__ == before
    for method in ("get_covariance", "get_precision", "get_feature_names_out"):
        with pytest.raises(NotFittedError):
            getattr(PCA(), method)()
    with pytest.raises(NotFittedError):
        PCA().move_to(place)


def test_it_moves(backend: Backend) -> None:
    place = backend.asarray(IRIS, "float64")
    pca = PCA(2).fit(IRIS)
    components, expected = pca.components_, pca.transform(IRIS)
    along = pca.move_to(place).transform(place)
    assert_follows(along, place, (150, 2))
    assert_agrees(along, expected, backend)
    assert pca.move_to(IRIS).components_.tolist() == components.tolist()
    assert_follows(pca.transform(IRIS), IRIS, (150, 2))


def test_in_a_pipeline_and_with_names(backend: Backend) -> None:
    place = backend.asarray(IRIS, "float64")
    labels = load_iris().target
    pipeline = make_pipeline(PCA(2), MLPClassifier((6,), solver="lbfgs", random_state=0)).fit(place, labels)
    assert type(pipeline.predict(place)) is type(place)
    assert pipeline.score(place, labels) > 0.9
    assert pipeline[0].get_feature_names_out().tolist() == ["pca0", "pca1"]
    assert backend_of(pipeline[0].components_) is backend_of(place)


def test_frames_in_and_frames_out() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(IRIS, columns=["a", "b", "c", "d"])
    pca = PCA(2).set_output(transform="pandas")
    along = pca.fit_transform(frame)
    assert along.columns.tolist() == ["pca0", "pca1"]
    assert pca.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="The feature names should match those that were passed during fit"):
        pca.transform(frame[["b", "a", "c", "d"]])


@pytest.mark.parametrize("solver", SOLVERS)
def test_check_estimator_passes(solver: str) -> None:
    results = check_estimator(PCA(svd_solver=solver), on_skip=None)
    assert {result["status"] for result in results} <= {"passed", "skipped"}
    assert [result["status"] for result in results].count("passed") > 40
