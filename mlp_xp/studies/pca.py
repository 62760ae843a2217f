"""Principal components: what the sheet says of them, measured.

The axes W of centred rows are the first eigenvectors of their covariance. They span, of all subspaces of their
dimension, the one whose projections are nearest to the rows (Pearson, "On lines and planes of closest fit to systems
of points in space", Philosophical Magazine 2, 1901). Rounding turns them, too: by Davis' and Kahan's theorem ("The
rotation of eigenvectors by a perturbation, III", SIAM Journal on Numerical Analysis 7, 1970) no more than by an angle
whose sine is the covariance's error divided by the gap between the last variance that is kept and the next. So spaces
are compared, each with a bound of its own, and not axes, of which two of about equal variance are anywhere in a plane.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlp_xp.array_types import Array
from mlp_xp.backend import Backend
from mlp_xp.decomposition import PCA
from mlp_xp.studies.rounding import distance_from_zero, rounding

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORKED = np.asarray([[-1.0, 1.0], [0.0, -2.0], [1.0, 1.0]])
"""The sheet's three points, whose first axis is (0, 1)."""
COPIES = {
    "as given": (0.0, 1.0, (0.0, 0.0)),
    "translated": (0.0, 1.0, (4.5, 0.0)),
    "scaled, and translated": (0.0, 0.6, (0.0, -4.5)),
    "rotated, and translated": (40.0, 1.0, (4.5, -4.5)),
}
"""Name -> by how many degrees, by which factor and where to they are moved: no two of them overlap."""
SOLVERS = "covariance_eigh", "full"
KINDS = ["translation", "scaling", "rotation"]
MOVES = 3
"""Random ones of each kind."""
RIVALS = 10
"""Other subspaces of every dimension; half of them are drawn, half are the best one, tilted."""
MOST_SPACES = 50
"""Dimensions of spaces that are compared."""
MOST_DIMENSIONS = 100
"""All of which rows are reconstructed from, if there are no more, and the largest of other subspaces."""
BLOCK = 4096
"""Rows that are reconstructed at once."""


class Axes(NamedTuple):
    """What was fitted, on the host.

    Attributes
    ----------
    mean : ndarray of shape (d,)
    variances : ndarray of shape (m,)
        The largest first.
    components : ndarray of shape (m, d)
    """

    mean: NDArray[np.float64]
    variances: NDArray[np.float64]
    components: NDArray[np.float64]


class Moved(NamedTuple):
    """Rows that were moved as a whole, and how far from where they should be their axes are.

    Attributes
    ----------
    kind : {"translation", "scaling", "rotation"}
    angles : ndarray of shape (n_spaces,)
        Sines of the largest angles between the spaces of the first 1, 2, … axes.
    bounds : ndarray of shape (n_spaces,)
        What rounding may turn them by.
    """

    kind: str
    angles: NDArray[np.float64]
    bounds: NDArray[np.float64]


@dataclass(frozen=True)
class Findings:
    """Everything that was measured; variances and errors are sums over the features, with n - 1 in the denominator.

    Attributes
    ----------
    where : str
        Data and backend.
    dtype, solver : str
    n_rows, n_features : int
    remoteness : float
        Of the rows: `mlp_xp.studies.rounding.distance_from_zero`.
    worked : sequence of (str, ndarray, Axes)
        The sheet's points, and moved copies of them: name, points and axes.
    axes : Axes
        Of the data.
    total_variance : float
        Without any axes, in float64.
    moved : sequence of Moved
        Copies of the sheet's points and of the data.
    errors : dict of int to float
        Number of axes -> mean squared error of the rows that are reconstructed from them.
    rivals : dict of int to list of float
        The same from other subspaces; the drawn ones first.
    """

    where: str
    dtype: str
    solver: str
    n_rows: int
    n_features: int
    remoteness: float
    worked: Sequence[tuple[str, NDArray[np.float64], Axes]]
    axes: Axes
    total_variance: float
    moved: Sequence[Moved]
    errors: dict[int, float]
    rivals: dict[int, list[float]]

    @property
    def epsilon(self) -> float:
        """Of the type that was computed in."""
        return float(np.finfo(self.dtype).eps)

    @property
    def tolerance(self) -> float:
        """What rounding may change a sum of variances by."""
        return rounding(self.n_rows, self.epsilon) * self.total_variance * self.remoteness


def fit(rows: NDArray[np.float64], backend: Backend, dtype: str, solver: str) -> Axes:
    """Return all axes of rows of the host, found on a backend."""
    pca = PCA(svd_solver=solver).fit(backend.asarray(rows, dtype))
    fitted = (pca.mean_, pca.explained_variance_, pca.components_)
    return Axes(*(backend.to_host(array).astype(np.float64) for array in fitted))


def shown(most: int) -> list[int]:
    """Return a handful of numbers of axes: 1, 2, 5, 10, … and the most there are."""
    return [*(k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500) if k < most), most]


def dimensions(most: int) -> list[int]:
    """Return the numbers of axes, up to the most there are, that rows are reconstructed from."""
    if most <= MOST_DIMENSIONS:
        return list(range(1, most + 1))
    return sorted({*np.geomspace(1, most, 24).round().astype(int).tolist(), *shown(most)})


def reconstruction_error(X: Array, mean: Array, basis: NDArray[np.float64], backend: Backend) -> float:
    """Return the squared distance of rows from a subspace through their mean, summed and divided by n - 1.

    Parameters
    ----------
    X : array of shape (n, d)
    mean : array of shape (d,)
    basis : ndarray of shape (k, d)
        Rows of length 1, perpendicular to each other.
    backend : Backend
    """
    xp = backend.xp
    axes = backend.asarray(np.ascontiguousarray(basis), str(X.dtype).rpartition(".")[2])
    total = 0.0
    for start in range(0, X.shape[0], BLOCK):
        block = X[start : min(start + BLOCK, X.shape[0]), :]
        along = xp.matmul(block - mean, xp.matrix_transpose(axes))
        beside = block - (xp.matmul(along, axes) + mean)
        total += float(xp.sum(beside * beside))
    n: int = X.shape[0]
    return total / (n - 1)


def angles(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sine of the largest angle between the spaces of the first 1, 2, … axes, given as rows."""
    spaces = [(one[:k], other[:k]) for k in range(1, len(one) + 1)]
    return np.asarray([np.linalg.norm(a - (a @ b.T) @ b, 2) for a, b in spaces])


def orthonormal(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows of length 1, perpendicular to each other, that span the same space."""
    return np.linalg.qr(rows.T)[0].T


def rotation(n_features: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a random rotation, shape (n_features, n_features)."""
    matrix = orthonormal(rng.normal(size=(n_features, n_features)))
    matrix[0] *= np.linalg.slogdet(matrix)[0]  # or it would be a reflection, half the time
    return matrix


def study_moves(
    rows: NDArray[np.float64],
    axes: Axes,
    fit_axes: Callable[[NDArray[np.float64]], Axes],
    epsilon: float,
    rng: np.random.Generator,
) -> list[Moved]:
    """Return what moving rows does to their axes."""
    d, total = rows.shape[1], axes.variances.sum()
    n_spaces = min(MOST_SPACES, len(axes.components) - 1)
    gaps = -np.diff(axes.variances)[:n_spaces]
    found = []
    for kind in KINDS * MOVES:
        matrix, factor, shift = np.eye(d), 1.0, np.zeros(d)
        if kind == "translation":
            shift = 3.0 * np.sqrt(total / d) * rng.normal(size=d)
        elif kind == "scaling":
            factor = np.exp(rng.uniform(-2.0, 2.0))
        else:
            matrix = rotation(d, rng)
        copy = factor * (rows @ matrix.T) + shift
        after = fit_axes(copy)
        turned = angles((axes.components @ matrix.T)[:n_spaces], after.components[:n_spaces])
        # Numbers far from 0 are rounded by more than those of the same variance near it.
        squares = total + np.sum(copy.mean(axis=0) ** 2) / factor**2
        with np.errstate(divide="ignore"):
            found.append(Moved(kind, turned, rounding(len(rows), epsilon) * squares / gaps))
    return found


def worked_copies() -> dict[str, NDArray[np.float64]]:
    """Return the sheet's points, and moved copies of them, each of shape (3, 2)."""
    copies = {}
    for name, (degrees, factor, shift) in COPIES.items():
        cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        copies[name] = factor * WORKED @ np.asarray([[cosine, sine], [-sine, cosine]]) + shift
    return copies


def rivals(components: NDArray[np.float64], k: int, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Return bases of other subspaces of k dimensions: drawn ones, and that of the first axes, tilted."""
    d = components.shape[1]
    bases = []
    for i in range(RIVALS):
        noise = rng.normal(size=(k, d))
        tilt = 10.0 ** rng.uniform(-1.5, 0.0)
        bases.append(orthonormal(noise if i < RIVALS // 2 else components[:k] + tilt * noise / np.sqrt(d)))
    return bases


def study(
    rows: NDArray[np.float64],
    where: str,
    backend: Backend,
    dtype: str,
    solver: str,
    seed: int,
    tick: Callable[[str], None] = lambda _: None,
) -> Findings:
    """Fit, move, reconstruct, and try other subspaces.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    where : str
        Data and backend, for people.
    backend : Backend
    dtype : {"float32", "float64"}
    solver : {"covariance_eigh", "full"}
    seed : int
        Draws the moves and the other subspaces.
    tick : callable
        Told of every step, `n_steps` in all.
    """
    rng = np.random.default_rng(seed)
    epsilon = float(np.finfo(dtype).eps)

    def fit_axes(table: NDArray[np.float64]) -> Axes:
        axes = fit(table, backend, dtype, solver)
        tick("axes")
        return axes

    worked = [(name, points, fit_axes(points)) for name, points in worked_copies().items()]
    axes = fit_axes(rows)
    tables = (WORKED, worked[0][2]), (rows, axes)
    moved = [one for table, its in tables for one in study_moves(table, its, fit_axes, epsilon, rng)]
    X, mean = backend.asarray(rows, dtype), backend.asarray(axes.mean, dtype)
    errors: dict[int, float] = {}
    others: dict[int, list[float]] = {}
    for k in dimensions(len(axes.components)):
        errors[k] = reconstruction_error(X, mean, axes.components[:k], backend)
        tick("reconstructions")
    for k in shown(len(axes.components)):
        if k < rows.shape[1] and k <= MOST_DIMENSIONS:
            bases = rivals(axes.components, k, rng)
            others[k] = [reconstruction_error(X, mean, basis, backend) for basis in bases]
        tick("other subspaces")
    total = float(rows.var(axis=0, ddof=1).sum())
    n, d = rows.shape
    remoteness = distance_from_zero(rows)
    return Findings(where, dtype, solver, n, d, remoteness, worked, axes, total, moved, errors, others)


def n_steps(n_rows: int, n_features: int) -> int:
    """Return how often `study` ticks."""
    most = min(n_rows, n_features)
    return len(COPIES) + 1 + 2 * len(KINDS) * MOVES + len(dimensions(most)) + len(shown(most))
