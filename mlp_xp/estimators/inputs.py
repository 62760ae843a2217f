"""What estimators take: arrays of any library, looked at where they are. Everything follows X.

NumPy arrays, and what becomes one (lists, data frames), go through scikit-learn's own checks. An array of another
library stays where it is: scikit-learn's checks would, unless array API dispatch is switched on, silently copy it to
the host. Targets and weights are one number a row: they are looked at on the host and moved to where X is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from scipy.sparse import issparse
from sklearn.exceptions import DataConversionWarning
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import _check_sample_weight, _check_y, validate_data

from mlp_xp.array_types import Array, Namespace
from mlp_xp.backend import Backend
from mlp_xp.estimators.user_warnings import warn
from mlp_xp.exactness import describe_erased
from mlp_xp.namespaces import backend_of, is_foreign

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sklearn.base import BaseEstimator

Method = TypeVar("Method", bound=Callable[..., Any])


def to_host(values: Any) -> Any:
    """Return an array of whatever library as NumPy's, waiting for its device if need be; anything else as it is."""
    return backend_of(values).to_host(values) if is_foreign(values) else values


def take_features(estimator: BaseEstimator, X: Any, *, reset: bool) -> tuple[Array, Backend]:
    """Return X as a floating array where it is, and the backend that computes there.

    Parameters
    ----------
    estimator : BaseEstimator
        Remembers the number of features and their names, or is asked for them.
    X : array-like of shape (n_samples, n_features)
        An array of any library, or what NumPy can read.
    reset : bool
        Whether the features are new, or must be those of before.

    Returns
    -------
    X : array of float32 or float64
        X itself if it is one of these, else in its library's default type.
    backend : Backend

    Raises
    ------
    ValueError
        If X is sparse, no table, empty, complex or not finite, or has other features than before; worded as
        scikit-learn words it.
    """
    if not is_foreign(X):
        X = validate_data(estimator, X, dtype=(np.float64, np.float32), reset=reset)
        return X, backend_of(X)
    X, backend = take_table(estimator, X)
    validate_data(estimator, X, skip_check_array=True, reset=reset)
    return X, backend


def take_table(estimator: BaseEstimator, X: Any) -> tuple[Array, Backend]:
    """Return what `take_features` does, of any number of features, which the estimator does not remember."""
    if not is_foreign(X):
        X = check_array(X, dtype=(np.float64, np.float32), estimator=estimator, input_name="X")
        return X, backend_of(X)
    _check_table(X, type(estimator).__name__)
    backend = backend_of(X)
    xp = backend.xp
    if xp.isdtype(X.dtype, "complex floating"):
        raise ValueError(f"Complex data not supported\n{X}\n")
    if X.dtype not in (xp.float32, xp.float64):
        X = xp.astype(X, xp.__array_namespace_info__().default_dtypes(device=backend.device)["real floating"])
    with np.errstate(over="ignore", invalid="ignore"):
        total = xp.sum(X)  # finite only if all of X is, and found without a table of booleans
    if not (bool(xp.isfinite(total)) or bool(xp.all(xp.isfinite(X)))):
        found = "NaN" if bool(xp.any(xp.isnan(X))) else f"infinity or a value too large for {X.dtype}"
        raise ValueError(f"Input X contains {found}.\n{type(estimator).__name__} does not accept missing values.")
    return X, backend


def warn_of_erased(X: Array, rounded: Array, backend: Backend) -> None:
    """Warn of columns of X that vary no longer once they are rounded for exact arithmetic.

    Warns
    -----
    UserWarning
        Which names the first.
    """
    xp = backend.xp
    before, after = (
        np.stack([backend.to_host(limit(table, axis=0)) for limit in (xp.min, xp.max)]).astype(np.float64)
        for table in (X, rounded)
    )
    if erased := describe_erased(before, after):
        warn(f"{erased}, or use arithmetic='native'")


def narrow(estimator: BaseEstimator, X: Array, dtype: Any, xp: Namespace) -> Array:
    """Return X, all of it finite, in the type that the estimator was fitted in.

    Raises
    ------
    ValueError
        If a value is too large for that type.
    """
    if X.dtype == dtype:
        return X
    with np.errstate(over="ignore"):
        narrowed = xp.astype(X, dtype)
    if not bool(xp.all(xp.isfinite(narrowed))):
        name = type(estimator).__name__
        raise ValueError(
            f"Input X contains a value too large for {narrowed.dtype}, in which this {name} was fitted. Fit it to X of "
            f"{X.dtype}, or scale X."
        )
    return narrowed


def take_targets(estimator: BaseEstimator, y: Any, X: Array, *, numeric: bool) -> NDArray[Any]:
    """Return y on the host, of shape (n_samples,) or (n_samples, n_outputs).

    Raises
    ------
    ValueError
        If it is missing, not finite, or of another length than X.
    TypeError
        If it is sparse.

    Warns
    -----
    DataConversionWarning
        If it is a table of one column.
    """
    if y is None:
        name = type(estimator).__name__
        raise ValueError(f"This {name} estimator requires y to be passed, but the target y is None.")
    if issparse(y):
        raise TypeError("Sparse data was passed for y, but dense data is required. Use '.toarray()' to convert it.")
    # Not `validate_data`, which forgets the features' names where it is given y alone.
    y = _check_y(to_host(y), multi_output=True, y_numeric=numeric, estimator=estimator)
    check_consistent_length(X, y)
    if y.ndim == 1 or y.shape[1] > 1:
        return y  # type: ignore[no-any-return]
    warn(
        "A column-vector y was passed when a 1d array was expected. Please change the shape of y to (n_samples,), for "
        "example by ravel().",
        DataConversionWarning,
    )
    return y[:, 0]  # type: ignore[no-any-return]


def take_weights(sample_weight: Any, X: Array) -> NDArray[np.float64] | None:
    """Return the rows' weights on the host, shape (n_samples,), or None.

    Raises
    ------
    ValueError
        If one is negative or not finite, or they are not as many as the rows.
    """
    if sample_weight is None:
        return None
    stand_in = np.empty((X.shape[0], 0))
    weights: NDArray[np.float64] = _check_sample_weight(
        to_host(sample_weight), stand_in, dtype=np.float64, ensure_non_negative=True
    )
    return weights


def require_same_place(estimator: BaseEstimator, backend: Backend, fitted: Array, method: str) -> None:
    """Refuse rows that are elsewhere than what was fitted.

    Raises
    ------
    ValueError
        Which names both places.
    """
    there = backend_of(fitted)
    if there is backend:
        return
    name = type(estimator).__name__
    was, now = (f"{place.name} on {place.describe()['device']}" for place in (there, backend))
    raise ValueError(
        f"Inputs passed to {name}.{method}() must use the same namespace and the same device as those passed to "
        f"fit(): that was {was}, and now it is {now}. Convert X, or move the estimator with move_to(X)."
    )


def destination(X: Any) -> Backend:
    """Return the backend that an estimator moves to: where an array is; what is not an array means NumPy."""
    return backend_of(X if is_foreign(X) else np.empty(0))


def told(method: Method) -> Method:
    """Return a method of an estimator that tells errors of X's library as `Backend.working` does."""

    @wraps(method)
    def call(self: Any, X: Any, *arguments: Any, **options: Any) -> Any:
        with destination(X).working():
            return method(self, X, *arguments, **options)

    return call  # type: ignore[return-value]  # of the same signature


def follow(host: NDArray[Any], backend: Backend) -> Array:
    """Return host values on the device, in their own type if the library has it there, else in its default one."""
    if host.dtype.kind not in "biuf":
        return host  # strings: no array library but NumPy has them
    info = backend.xp.__array_namespace_info__()
    if host.dtype.name in info.dtypes(device=backend.device):
        return backend.asarray(host)
    kind = "real floating" if host.dtype.kind == "f" else "integral"
    default = info.default_dtypes(device=backend.device)[kind]
    return backend.asarray(host, str(default).rpartition(".")[2])


def follow_labels(classes: NDArray[Any], backend: Backend) -> Array:
    """Return labels on the device if its library has a type that holds them there, else as they are, on the host."""
    moved = follow(classes, backend)
    return moved if np.array_equal(to_host(moved), classes) else classes


def _check_table(X: Array, name: str) -> None:
    if X.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {X.ndim}D array instead. Reshape your data either using xp.reshape(X, (-1, 1)) "
            "if your data has a single feature or xp.reshape(X, (1, -1)) if it contains a single sample."
        )
    for axis, noun in enumerate(("sample(s)", "feature(s)")):
        if X.shape[axis] == 0:
            raise ValueError(
                f"Found array with 0 {noun} (shape={tuple(X.shape)}) while a minimum of 1 is required by {name}."
            )
