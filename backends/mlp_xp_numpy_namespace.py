"""NumPy as the array API standard has it, with a ``take`` that can be traced, too: NumPy's own looks at the indices."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat.numpy import *  # noqa: F403 - the namespace that this one is but for one function

from mlp_xp_numpy_tape import Traced


def take(x: Any, indices: Any, /, *, axis: int | None = None) -> Any:
    """Return the elements of x at some indices along an axis."""
    if isinstance(indices, Traced):
        return indices.tape.note(np.take, (x, indices), {"axis": axis})
    return np.take(x, indices, axis=axis)
