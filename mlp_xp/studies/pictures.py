"""Images beside each other in one panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

GAP = 1
"""Pixels between images."""


def draw_images(
    panel: Axes,
    images: NDArray[np.float64],
    side: int,
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    limits: tuple[float, float] | None = None,
) -> None:
    """Draw a table of square images, with names of its rows on the left and of its columns above.

    Parameters
    ----------
    panel : Axes
    images : ndarray of shape (n_rows, n_columns, side²)
    side : int
    rows, columns : sequence of str
    limits : (float, float), optional
        What is white and what is black; by default images have signs, and each is red above 0 and blue below.
    """
    pitch = side + GAP
    n_rows, n_columns = images.shape[:2]
    mosaic = np.full((n_rows * pitch - GAP, n_columns * pitch - GAP), np.nan)
    for i, j in np.ndindex(n_rows, n_columns):
        image = images[i, j].reshape(side, side)
        if limits is None:
            image = image / max(np.abs(image).max(), np.finfo(float).tiny)
        mosaic[i * pitch : i * pitch + side, j * pitch : j * pitch + side] = image
    least, most = limits or (-1.0, 1.0)
    panel.imshow(mosaic, interpolation="nearest", cmap="Greys" if limits else "RdBu_r", vmin=least, vmax=most)
    middle = (side - 1) / 2
    panel.set_yticks([i * pitch + middle for i in range(len(rows))], rows, fontsize=8)
    panel.set_xticks([j * pitch + middle for j in range(len(columns))], columns, fontsize=8)
    panel.xaxis.tick_top()
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
