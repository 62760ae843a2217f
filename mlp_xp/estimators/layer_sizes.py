"""What ``hidden_layer_sizes`` may be."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Integral
from typing import Any

from sklearn.utils._param_validation import Interval


class LayerSizes(Interval):  # type: ignore[misc]
    """One whole number or several, as a constraint of scikit-learn's; that each is positive, it has own words for."""

    def __init__(self) -> None:
        super().__init__(Integral, 1, None, closed="left")

    def is_satisfied_by(self, val: Any) -> bool:
        """Return whether a value is allowed; a truth value is no number of units, nor is 10.0."""
        if isinstance(val, Collection) and not isinstance(val, (str, bytes)) and getattr(val, "shape", None) != ():
            return all(_is_whole(size) for size in val)
        return _is_whole(val) and super().is_satisfied_by(val)

    def __str__(self) -> str:
        return f"an array-like of ints or {super().__str__()}"


def _is_whole(size: Any) -> bool:
    return isinstance(size, Integral) and not isinstance(size, bool)
