"""Principal component analysis with scikit-learn's interface, computed where the data lives."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, RealNotInt, StrOptions
from sklearn.utils.validation import check_is_fitted

from mlp_xp.array_types import Array
from mlp_xp.backend import Backend
from mlp_xp.components import Axes, by_covariance, by_projection, by_singular_values, orient
from mlp_xp.estimators.inputs import (
    destination,
    follow,
    narrow,
    require_same_place,
    take_features,
    take_table,
    to_host,
    told,
)
from mlp_xp.estimators.state import unchanged_if_refused
from mlp_xp.namespaces import backend_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PCA(TransformerMixin, ClassNamePrefixFeaturesOutMixin, BaseEstimator):  # type: ignore[misc]
    """Principal component analysis that is fitted and applied where X lives: NumPy, CuPy, JAX, PyTorch or any other.

    Parameters
    ----------
    n_components : int, float or None, default=None
        How many axes to keep; or, between 0 and 1, what share of the variance they must have more than; None keeps
        min(n_samples, n_features).
    copy : bool, default=True
        Of no consequence: X is never written to.
    whiten : bool, default=False
        Whether `transform` divides by the standard deviation along each axis.
    svd_solver : {"auto", "full", "covariance_eigh", "randomized"}, default="auto"
        "full": singular values of the rows less their mean; "covariance_eigh": eigenvalues of the covariance, for many
        more rows than features; "randomized": the first axes alone, nearly. "auto" is "covariance_eigh" for up to 1000
        features and at least 10 times as many rows; else "full" if no side of X is longer than 500; else "randomized"
        if ``n_components`` is less than 80 % of the shorter side, else "full".
    tol : float, default=0.0
        Of no consequence: no solver here stops by it.
    iterated_power : int or "auto", default="auto"
        Of "randomized": how often random directions are turned towards the axes; "auto" is 7 if ``n_components`` is
        less than 10 % of the shorter side of X, else 4.
    n_oversamples : int, default=10
        Of "randomized": how many more directions than ``n_components``.
    power_iteration_normalizer : {"auto", "QR", "none"}, default="auto"
        Of "randomized": whether they are kept perpendicular meanwhile, after every product ("QR"); "auto" does so once
        a turn, and not at all up to 2 turns.
    random_state : int, RandomState or None, default=None
        Of "randomized": draws the directions; the same ones as in scikit-learn.

    Attributes
    ----------
    components_ : array of shape (n_components_, n_features)
        The axes, of length 1, that of the largest variance first. In each the number of the largest magnitude is
        positive.
    explained_variance_ : array of shape (n_components_,)
        The variance along each, with n_samples - 1 in the denominator.
    explained_variance_ratio_ : array of shape (n_components_,)
        Its share of the whole variance; 0 if there is none.
    singular_values_ : array of shape (n_components_,)
        Of the rows less their mean.
    mean_ : array of shape (n_features,)
    n_components_ : int
    n_samples_ : int
    noise_variance_ : float
        The mean variance along the axes that are not kept: that of the noise in Tipping's and Bishop's model.
    n_features_in_ : int
    feature_names_in_ : ndarray of str, shape (n_features_in_,)
        If all columns of X have names.

    Notes
    -----
    What differs from scikit-learn's: sparse tables, ``n_components="mle"``, ``svd_solver="arpack"``, the normalizer
    "LU" and a single row are refused; later rows are taken in the type of those that were fitted; the mean is taken
    off before products are summed up, which is more precise far from 0; and with ``whiten=True`` the covariance is
    that of X all the same (`scikit-learn#13898 <https://github.com/scikit-learn/scikit-learn/issues/13898>`_). What it
    does not have: JAX, every solver on every library, `move_to`.

    References
    ----------
    Tipping and Bishop, "Mixtures of probabilistic principal component analysers", Neural Computation 11, 1999. Those
    of the solvers are in `mlp_xp.components`.

    Examples
    --------
    >>> from mlp_xp.decomposition import PCA
    >>> pca = PCA(1).fit([[-1.0, 1.0], [0.0, -2.0], [1.0, 1.0]])
    >>> pca.components_.round(6) + 0.0
    array([[0., 1.]])
    >>> pca.explained_variance_ratio_
    array([0.75])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [
            Interval(Integral, 0, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="neither"),
            None,
        ],
        "copy": ["boolean"],
        "whiten": ["boolean"],
        "svd_solver": [StrOptions({"auto", "full", "covariance_eigh", "randomized"})],
        "tol": [Interval(Real, 0, None, closed="left")],
        "iterated_power": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
        "n_oversamples": [Interval(Integral, 1, None, closed="left")],
        "power_iteration_normalizer": [StrOptions({"auto", "QR", "none"})],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components: Any = None,
        *,
        copy: bool = True,
        whiten: bool = False,
        svd_solver: str = "auto",
        tol: float = 0.0,
        iterated_power: Any = "auto",
        n_oversamples: int = 10,
        power_iteration_normalizer: str = "auto",
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.copy = copy
        self.whiten = whiten
        self.svd_solver = svd_solver
        self.tol = tol
        self.iterated_power = iterated_power
        self.n_oversamples = n_oversamples
        self.power_iteration_normalizer = power_iteration_normalizer
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> PCA:  # noqa: ARG002 - scikit-learn's signature
        """Find the axes.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter is out of its range or ``n_components`` larger than min(n_samples, n_features), or if X is
            no table of finite numbers or has a single row. The estimator then stays as it was.
        """
        self._fit(X)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Array:  # noqa: ARG002 - as above
        """Find the axes and return the rows along them, shape (n_samples, n_components_)."""
        return self._project(self._fit(X))

    def transform(self, X: Any) -> Array:
        """Return rows, less the mean, along the axes, shape (n_samples, n_components_).

        Raises
        ------
        NotFittedError
            If no axes were found before.
        ValueError
            If X is no table of finite numbers, has other features than what was fitted, or is elsewhere.
        """
        return self._project(self._take(X, "transform"))

    @told
    def inverse_transform(self, X: Any) -> Array:
        """Return the rows that have these numbers along the axes, and none along others, shape (n_samples, n_features).

        Raises
        ------
        ValueError
            If X has another number of columns than n_components_, besides what `transform` raises.
        """
        check_is_fitted(self)
        X, backend = take_table(self, X)
        require_same_place(self, backend, self.components_, "inverse_transform")
        if X.shape[1] != self.n_components_:
            raise ValueError(
                f"X has {X.shape[1]} columns, but PCA.inverse_transform expects the {self.n_components_} that "
                "transform returns."
            )
        xp = backend.xp
        X = narrow(self, X, self.components_.dtype, xp)
        return xp.matmul(X * xp.sqrt(self.explained_variance_) if self.whiten else X, self.components_) + self.mean_

    def score_samples(self, X: Any) -> Array:
        """Return the logarithm of every row's likelihood in the model of `get_covariance`, shape (n_samples,).

        Raises
        ------
        ValueError
            If that covariance is singular, besides what `transform` raises.
        """
        return self._log_likelihoods(X, "score_samples")

    def score(self, X: Any, y: Any = None) -> float:  # noqa: ARG002 - as above
        """Return the mean of `score_samples`."""
        scores = self._log_likelihoods(X, "score")
        return float(backend_of(scores).xp.mean(scores))

    def get_covariance(self) -> Array:
        """Return the covariance of the model, shape (n_features, n_features).

        That is the variance along each kept axis, and ``noise_variance_`` in every direction perpendicular to them.
        """
        check_is_fitted(self)
        xp = backend_of(self.components_).xp
        above = self.explained_variance_ - self.noise_variance_
        return self._spread(xp.maximum(above, xp.zeros_like(above)), self.noise_variance_)

    def get_precision(self) -> Array:
        """Return the inverse of `get_covariance`, shape (n_features, n_features).

        Raises
        ------
        ValueError
            If it has none.
        """
        check_is_fitted(self)
        precisions = 1.0 / self._model_variances("get_precision")
        if self.n_components_ == self.n_features_in_:
            return self._spread(precisions, 0.0)
        return self._spread(precisions - 1.0 / self.noise_variance_, 1.0 / self.noise_variance_)

    def move_to(self, X: Any) -> PCA:
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
        names = "components_", "explained_variance_", "explained_variance_ratio_", "singular_values_", "mean_"
        moved = {name: follow(to_host(getattr(self, name)), backend) for name in names}
        self.__dict__.update(moved)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        return int(self.n_components_)

    def _fit(self, X: Any) -> Array:
        """Find the axes and return X as a floating array where it is."""
        self._validate_params()
        with destination(X).working(), unchanged_if_refused(self):
            X, backend = take_features(self, X, reset=True)
            n, d = X.shape
            if n == 1:
                raise ValueError(
                    f"Found array with 1 sample(s) (shape={tuple(X.shape)}) while a minimum of 2 is required by PCA."
                )
            solver = self._choose_solver(n, d)
            least, most = 1 if solver == "randomized" else 0, min(n, d)
            wanted = most if self.n_components is None else self.n_components
            if not least <= wanted <= most:
                raise ValueError(
                    f"n_components={wanted!r} must be between {least} and min(n_samples, n_features)={most} with "
                    f"svd_solver={solver!r}"
                )
            with np.errstate(over="ignore", invalid="ignore"):  # it shows in the results, which are looked at
                mean, variances, components = self._solve(solver, X, wanted, backend)
            xp = backend.xp
            total = xp.sum(variances)
            ratios = variances / xp.where(total > 0.0, total, xp.ones_like(total))
            k = wanted if isinstance(wanted, Integral) else _count(backend.to_host(ratios), wanted, most)
            self.n_samples_, self.n_components_, self.mean_ = n, int(k), mean
            self.components_ = orient(components[:k, :], xp)
            self.explained_variance_, self.explained_variance_ratio_ = variances[:k], ratios[:k]
            self.singular_values_ = xp.sqrt(self.explained_variance_ * (n - 1))
            self.noise_variance_ = float(xp.mean(variances[k:])) if k < most else 0.0
        return X

    def _choose_solver(self, n: int, d: int) -> str:
        if self.svd_solver != "auto":
            return self.svd_solver
        if d <= 1000 and n >= 10 * d:
            return "covariance_eigh"
        few = self.n_components is not None and 1 <= self.n_components < 0.8 * min(n, d)
        return "randomized" if few and max(n, d) > 500 else "full"

    def _solve(self, solver: str, X: Array, n_components: Any, backend: Backend) -> Axes:
        if solver != "randomized":
            return (by_covariance if solver == "covariance_eigh" else by_singular_values)(X, backend.xp)
        shorter = min(X.shape)
        n_turns = self.iterated_power
        if n_turns == "auto":
            n_turns = 7 if n_components < 0.1 * shorter else 4
        n_normalizations = {"none": 0, "QR": 2, "auto": 0 if n_turns <= 2 else 1}[self.power_iteration_normalizer]
        drawn = check_random_state(self.random_state).normal(size=(shorter, n_components + self.n_oversamples))
        directions = backend.asarray(drawn, str(X.dtype).rpartition(".")[2])
        return by_projection(X, n_components, directions, n_turns, n_normalizations, backend.xp)

    @told
    def _take(self, X: Any, method: str) -> Array:
        """Return rows like those that were fitted."""
        check_is_fitted(self)
        X, backend = take_features(self, X, reset=False)
        require_same_place(self, backend, self.components_, method)
        return narrow(self, X, self.components_.dtype, backend.xp)

    @told
    def _project(self, X: Array) -> Array:
        """Return rows along the axes."""
        xp = backend_of(X).xp
        along = xp.matmul(X - self.mean_, xp.matrix_transpose(self.components_))
        if not self.whiten:
            return along
        deviations = xp.sqrt(self.explained_variance_)
        return along / xp.maximum(deviations, xp.full_like(deviations, xp.finfo(deviations.dtype).eps))

    @told
    def _log_likelihoods(self, X: Any, method: str) -> Array:
        X = self._take(X, method)
        xp, d = backend_of(X).xp, X.shape[1]
        variances = self._model_variances(method)
        centred = X - self.mean_
        along = xp.matmul(centred, xp.matrix_transpose(self.components_))
        distances = xp.sum(along * along / variances, axis=1)
        logarithm = float(xp.sum(xp.log(variances)))
        if n_others := d - self.n_components_:
            beside = centred - xp.matmul(along, self.components_)
            distances = distances + xp.sum(beside * beside, axis=1) / self.noise_variance_
            logarithm += n_others * math.log(self.noise_variance_)
        return -0.5 * (distances + (d * math.log(2.0 * math.pi) + logarithm))

    def _model_variances(self, method: str) -> Array:
        """Return the model's variance along every kept axis, none of them 0."""
        xp = backend_of(self.components_).xp
        variances = self.explained_variance_
        variances = xp.maximum(variances, xp.full_like(variances, self.noise_variance_))
        # What is smaller is rounding's: 0 by one solver, and by another one whatever it left.
        variances = xp.maximum(variances, xp.max(variances) * xp.finfo(variances.dtype).eps)
        is_whole = self.n_components_ == self.n_features_in_
        if not (is_whole or self.noise_variance_ > 0.0) or not bool(xp.all(variances > 0.0)):
            raise ValueError(
                f"PCA.{method}() needs a covariance that has an inverse, but rows do not vary along every axis, and "
                f"n_components_={self.n_components_} leaves no noise: keep fewer components."
            )
        return variances

    def _spread(self, along: Array, everywhere: float) -> Array:
        """Return the matrix that multiplies by ``along + everywhere`` along the axes, else by ``everywhere``."""
        components = self.components_
        xp = backend_of(components).xp
        identity = xp.eye(self.n_features_in_, dtype=components.dtype, device=components.device)
        return xp.matmul(xp.matrix_transpose(components) * along, components) + everywhere * identity


def _count(ratios: NDArray[Any], share: float, most: int) -> int:
    """Return how many of the variance's shares are together more than one, or all."""
    return min(int(np.searchsorted(np.cumsum(ratios), share, side="right")) + 1, most)
