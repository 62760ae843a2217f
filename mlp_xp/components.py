"""The axes along which rows vary most, and how much they vary along each: three solvers.

The axes of centred rows X, shape (n, d), are the eigenvectors of their covariance XᵀX / (n - 1), whose eigenvalues are
the variances along them (Pearson, "On lines and planes of closest fit to systems of points in space", Philosophical
Magazine 2, 1901; Hotelling, "Analysis of a complex of statistical variables into principal components", Journal of
Educational Psychology 24, 1933). They are also X's right singular vectors, with the singular values' squares / (n - 1).

All raise a ValueError if a variance is too large for the type of X.
"""

from __future__ import annotations

from typing import NamedTuple

from mlp_xp.array_types import Array, Namespace

BLOCK = 4096
"""Rows whose deviations are held at once where only their products are wanted."""


class Axes(NamedTuple):
    """Where rows vary.

    Attributes
    ----------
    mean : array of shape (d,)
        Of the rows.
    variances : array of shape (m,)
        Along all axes, the largest first; of those that were not looked for, their mean.
    components : array of shape (k, d)
        The first axes, of length 1 and perpendicular to each other; their signs are as they come.
    """

    mean: Array
    variances: Array
    components: Array


def by_singular_values(X: Array, xp: Namespace) -> Axes:
    """Return all min(n, d) axes of rows, shape (n, d), by the singular values of their deviations."""
    mean, centred, _ = _center(X, xp)
    _, values, components = xp.linalg.svd(centred, full_matrices=False)
    return Axes(mean, values * values / (X.shape[0] - 1), components)


def by_covariance(X: Array, xp: Namespace) -> Axes:
    """Return all axes by the eigenvalues of the covariance, which costs much less where there are many more rows.

    Where there are fewer rows than features, the singular values cost less and are more precise: of the d variances
    that the covariance has, all but n are 0.
    """
    n, d = X.shape
    if n < d:
        axes = by_singular_values(X, xp)
        rest = xp.zeros(d - n, dtype=X.dtype, device=axes.variances.device)
        return axes._replace(variances=xp.concat([axes.variances, rest]))
    mean, products = _sum_products(X, xp)
    _require_finite(products, xp)
    variances, vectors = xp.linalg.eigh(products / (n - 1))
    variances = xp.flip(variances, axis=0)
    variances = xp.maximum(variances, xp.zeros_like(variances))  # rounding may leave less
    return Axes(mean, variances, xp.matrix_transpose(xp.flip(vectors, axis=1)))


def by_projection(X: Array, k: int, directions: Array, n_turns: int, n_normalizations: int, xp: Namespace) -> Axes:
    """Return the first k axes, nearly, by the singular values of what random directions span.

    Halko, Martinsson and Tropp, "Finding structure with randomness: Probabilistic algorithms for constructing
    approximate matrix decompositions", SIAM Review 53, 2011, algorithms 4.4 and 5.1.

    Parameters
    ----------
    X : array of shape (n, d)
    k : int
    directions : array of shape (min(n, d), size)
        At least k of them.
    n_turns : int
        How often to turn them towards the first axes.
    n_normalizations : int
        How often, in each turn, they are made perpendicular again, or rounding buries what varies less under what
        varies more: after both products (2), where the variances' square roots may differ by up to 1 / eps; after that
        with the fewer rows alone (1), where the variances may, which costs much less; or never (0).
    xp : module
    """
    n, d = X.shape
    mean, centred, squares = _center(X, xp)
    wide = xp.matrix_transpose(centred) if n < d else centred
    narrow = xp.matrix_transpose(wide)
    for _ in range(n_turns):
        directions = xp.matmul(wide, directions)
        if n_normalizations == 2:
            directions = xp.linalg.qr(directions).Q
        directions = xp.matmul(narrow, directions)
        if n_normalizations > 0:
            directions = xp.linalg.qr(directions).Q
    basis = xp.linalg.qr(xp.matmul(wide, directions)).Q
    left, values, right = xp.linalg.svd(xp.matmul(xp.matrix_transpose(basis), wide), full_matrices=False)
    components = xp.matrix_transpose(xp.matmul(basis, left)) if n < d else right
    variances = (values * values / (n - 1))[:k]
    n_others = min(n, d) - k
    if n_others:
        rest = (squares / (n - 1) - xp.sum(variances)) / n_others
        rest = xp.maximum(rest, xp.zeros_like(rest))
        variances = xp.concat([variances, xp.broadcast_to(rest, (n_others,))])
    return Axes(mean, variances, components[:k, :])


def orient(components: Array, xp: Namespace) -> Array:
    """Return axes with such signs that the number of the largest magnitude in each, or the first of these, is > 0."""
    largest = xp.expand_dims(xp.argmax(xp.abs(components), axis=1), axis=1)
    numbers = xp.arange(components.shape[1], dtype=largest.dtype, device=components.device)
    is_below = xp.any((numbers == largest) & (components < 0.0), axis=1, keepdims=True)
    return xp.where(is_below, -components, components)


def _center(X: Array, xp: Namespace) -> tuple[Array, Array, Array]:
    """Return the mean of rows, shape (d,), their deviations from it, shape (n, d), and the sum of these squared."""
    mean = xp.mean(X, axis=0)
    centred = X - mean
    rest = xp.mean(centred, axis=0)  # what rounding left, which is much where the mean is far from 0
    mean, centred = mean + rest, centred - rest
    squares = xp.sum(centred * centred)
    _require_finite(squares, xp)
    return mean, centred, squares


def _require_finite(squares: Array, xp: Namespace) -> None:
    if not bool(xp.all(xp.isfinite(squares))):
        raise ValueError(f"the rows' variances are too large for {squares.dtype}: scale X")


def _sum_products(X: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return the mean of rows, shape (d,), and the sum of their deviations' products, shape (d, d).

    What a mean far from 0 adds to the products would leave their difference few digits. Then the rows are shifted
    first, block by block, by the mean of the first ones: Chan, Golub and LeVeque, "Algorithms for computing the sample
    variance", The American Statistician 37, 1983.
    """
    n = X.shape[0]
    first = X[: min(BLOCK, n), :]
    shift = xp.mean(first, axis=0)
    if bool(xp.sum(shift * shift) <= xp.sum(xp.var(first, axis=0))):
        offset, products = xp.mean(X, axis=0), _products(X, xp)
        mean = offset
    else:
        sums, products = xp.zeros_like(shift), 0.0
        for start in range(0, n, BLOCK):
            block = X[start : min(start + BLOCK, n), :] - shift
            sums = sums + xp.sum(block, axis=0)
            products = _products(block, xp) + products
        offset = sums / n
        mean = shift + offset
    return mean, products - n * xp.expand_dims(offset, axis=1) * offset


def _products(X: Array, xp: Namespace) -> Array:
    """Return XᵀX; a library that runs one operation at a time would make a copy of Xᵀ."""
    return xp.tensordot(X, X, axes=((0,), (0,)))
