"""What the classes weigh, as weights of rows."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.class_weight import compute_sample_weight

from mlp_xp.estimators.labels import Labels

if TYPE_CHECKING:
    from numpy.typing import NDArray


def weigh_rows(class_weight: Any, labels: Labels, targets: NDArray[Any]) -> NDArray[np.float64]:
    """Return every row's weight; of several labels a row, the product of theirs.

    Parameters
    ----------
    class_weight : dict, list of dict, or "balanced"
        Class -> weight, of a class that is not named 1; of several labels a row, one of them for every label, whose
        classes are 0 and 1. "balanced" looks at these rows alone.
    labels : Labels
    targets : ndarray of shape (n,) or (n, n_outputs)
        What `Labels.encode` returns.

    Returns
    -------
    ndarray of float64, shape (n,)

    Raises
    ------
    ValueError
        If a weight is not finite or negative, all are 0, a class is not known while a known one is not named, or there
        are not as many dicts as labels a row.
    """
    numbers = targets.astype(np.int64)
    if isinstance(class_weight, str):
        return compute_sample_weight(class_weight, numbers)  # type: ignore[no-any-return]
    columns = list(numbers.T) if labels.is_multilabel else [numbers]
    classes = np.arange(2) if labels.is_multilabel else labels.classes
    given = class_weight if isinstance(class_weight, list) else [class_weight]
    if len(given) != len(columns) or not all(isinstance(weights, dict) for weights in given):
        raise ValueError(
            f"class_weight={class_weight!r} must be a dict or, of several labels a row, a list of dicts, one for every "
            f"label: {len(columns)} here"
        )
    rows = np.ones(len(targets))
    for column, weights in zip(columns, given, strict=True):
        _check(weights, classes)
        rows *= np.asarray([weights.get(label, 1.0) for label in classes.tolist()])[column]
    return rows


def _check(weights: dict[Any, Any], classes: NDArray[Any]) -> None:
    for label, weight in weights.items():
        if not isinstance(weight, Real) or not math.isfinite(weight) or weight < 0:
            raise ValueError(f"class_weight has {weight!r} for the class {label!r}: it must be a finite number ≥ 0")
    known = classes.tolist()
    unknown = [label for label in weights if label not in known]
    if unknown and not weights.keys() >= set(known):  # else it may be for more classes than these rows have
        raise ValueError(f"class_weight has the classes {unknown}, but y has {known}")
    if all(weights.get(label, 1.0) == 0 for label in known):
        raise ValueError(f"class_weight={weights!r} has 0 for every class: nothing would be left to learn from")
