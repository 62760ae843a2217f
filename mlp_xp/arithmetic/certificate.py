"""The certificate: before the first step, from shapes alone, that no sum of a training step can round."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

from mlp_xp.arithmetic.bits import EXACT, activation_bits, ceil_log2, gradient_bits, term_bits, weight_bits
from mlp_xp.errors import SettingsError

LEAST = 16
"""Bits of an operand at least; with fewer, training would suffer and is refused."""
MOST_ROWS = 8192
"""Rows of a batch that leave the gradient 16 bits."""
MOST_UNITS = 2**21
"""Units of a layer that leave its operands 16 bits."""
MOST_WEIGHTS = 2**37
"""Weights of a layer that leave the terms of its penalty 16 bits."""
LEAST_SCALE, MOST_SCALE = 2.0**-64, 2.0**64
"""Scales that keep products with scaled features well away from subnormal numbers and from overflow."""


class Entry(NamedTuple):
    """A sum of the training step.

    Attributes
    ----------
    layer : int or None
        From 0; None for the loss.
    sum : str
        What is summed.
    terms : int
    left, right : int
        Bits of the terms' two factors; ``right`` is 0 where the terms are single numbers.
    """

    layer: int | None
    sum: str
    terms: int
    left: int
    right: int = 0

    @property
    def bits(self) -> int:
        """Bits of the longest partial sum, at most."""
        return self.left + self.right + ceil_log2(self.terms)


def certificate(layer_sizes: tuple[int, ...], batch_size: int) -> list[Entry]:
    """Return every sum of a training step, those of settings that may be off included, with its bits."""
    entries = []
    for i, (n_in, n_out) in enumerate(pairwise(layer_sizes)):
        activation, weight = activation_bits(n_in), weight_bits(n_in, n_out)
        gradient = gradient_bits(batch_size, n_out)
        entries += [
            Entry(i, "x W", n_in, activation, weight),
            Entry(i, "xᵀ delta", batch_size, activation, gradient),
            *([Entry(i, "delta Wᵀ", n_out, gradient, weight)] if i else []),
            Entry(i, "delta", batch_size, gradient),
            Entry(i, "W² (penalty)", n_in * n_out, term_bits(n_in * n_out)),
            Entry(i, "dW² (norm)", n_in * n_out, term_bits(n_in * n_out)),
            Entry(i, "db² (norm)", n_out, term_bits(n_out)),
            *([Entry(i, "x W (batch norm)", batch_size, term_bits(batch_size))] if i < len(layer_sizes) - 2 else []),
        ]
    n_outputs = layer_sizes[-1]
    return [
        *entries,
        Entry(None, "outputs of a row", n_outputs, term_bits(n_outputs)),
        Entry(None, "rows", batch_size, term_bits(batch_size)),
    ]


def certify(layer_sizes: tuple[int, ...], batch_size: int, scale: float) -> None:
    """Refuse a training of which a sum could round, or whose operands would be too short to learn with.

    Raises
    ------
    SettingsError
        Names the layer, the bits and the remedy.
    """
    mantissa, exponent = math.frexp(min(max(scale, LEAST_SCALE), MOST_SCALE))
    nearest = math.ldexp(0.5, exponent + (mantissa >= 0.75))
    if scale != nearest:
        raise SettingsError(
            f"exact arithmetic takes a scale that is a power of two, from 2**-64 to 2**64, so that scaled features "
            f"keep their bits; it is {scale!r}, the nearest is {nearest!r}"
            + (f" (1/{1 / nearest:.0f})" if nearest < 1.0 else "")
        )
    for entry in certificate(layer_sizes, batch_size):
        shortest = min(entry.left, entry.right or entry.left)
        if entry.bits <= EXACT and shortest >= LEAST:
            continue
        where = "the loss" if entry.layer is None else f"layer {entry.layer}"
        raise SettingsError(
            f"exact arithmetic: {where}: an operand of the sum of {entry.terms} {entry.sum} is left {shortest} of "
            f"{EXACT} bits; at least {LEAST} are needed: choose {_remedy(layer_sizes, batch_size)}"
        )


def _remedy(layer_sizes: tuple[int, ...], batch_size: int) -> str:
    """Return the limits that these shapes do not keep."""
    limits = {
        f"batch_size ≤ {MOST_ROWS}": batch_size <= MOST_ROWS,
        f"at most {MOST_UNITS} units in a layer": max(layer_sizes) <= MOST_UNITS,
        f"at most {MOST_WEIGHTS} weights in a layer": max(a * b for a, b in pairwise(layer_sizes)) <= MOST_WEIGHTS,
    }
    return ", ".join(limit for limit, is_kept in limits.items() if not is_kept)
