"""Where k-means begins: rows that are far from each other, or any.

Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007, with the greedy choice among some
candidates that they mention in section 5.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_xp.clustering.lloyd import RowsStep, find_distances
from mlp_xp.clustering.table import Table

if TYPE_CHECKING:
    from numpy.typing import NDArray


def choose_far_apart(table: Table, n_clusters: int, random_state: np.random.RandomState) -> NDArray[np.intp]:
    """Return the numbers of rows to begin at; draws as scikit-learn does, so that the same state chooses the same ones.

    Every next one is, of 2 + log k candidates, the one that leaves the least objective; a candidate is drawn with a
    probability that is its weighted distance to the nearest of those chosen already.

    Parameters
    ----------
    table : Table
    n_clusters : int
    random_state : RandomState
        Draws are made on the host, so that they are the same wherever the rows are.

    Returns
    -------
    ndarray of shape (n_clusters,)
    """
    weights = table.host_weights
    n_trials = 2 + int(math.log(n_clusters))
    chosen = [int(random_state.choice(len(weights), p=weights / weights.sum()))]
    closest = _distances(table, np.asarray(chosen))[:, 0]
    potential = closest @ weights
    for _ in range(1, n_clusters):
        draws = random_state.uniform(size=n_trials) * potential
        candidates = np.minimum(np.searchsorted(np.cumsum(weights * closest), draws), len(weights) - 1)
        nearer = np.minimum(_distances(table, candidates), closest[:, None])
        potentials = weights @ nearer
        best = int(np.argmin(potentials))
        chosen.append(int(candidates[best]))
        closest, potential = nearer[:, best], potentials[best]
    return np.asarray(chosen)


def choose_any(table: Table, n_clusters: int, random_state: np.random.RandomState) -> NDArray[np.intp]:
    """Return the numbers of rows to begin at, drawn with their weights as probabilities, as scikit-learn draws them."""
    weights = table.host_weights
    return random_state.choice(len(weights), size=n_clusters, replace=False, p=weights / weights.sum())


def _distances(table: Table, numbers: NDArray[Any]) -> NDArray[np.float64]:
    """Return the distances, shape (n, len(numbers)), of all rows to some of them, on the host."""
    step = RowsStep(find_distances, table.metric, table.arithmetic)
    _, (distances,) = table.map_reduce(step, (), table.norms, constants=table.rows(numbers))
    return table.backend.to_host(distances).astype(np.float64)
