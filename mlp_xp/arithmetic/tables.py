"""Tables of the elementary functions, made from integers alone so that they are the same on every machine.

Every entry is the float64 nearest to the true value: the integers below carry far more bits than that takes.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

EXP_LOWEST = -300.0
"""exp is taken for e**-300, about 5e-131, below this argument: far from float64's subnormal numbers."""
EXP_HIGHEST = 300.0
"""exp is infinite from this argument on; below, its squares are still far from overflow."""
EXP_CELLS = 32
"""Coarse steps of the exponential per unit."""
EXP_FINE_CELLS = 512
"""Fine steps per coarse step; what is left over is below 2**-14."""
LOG_CELLS = 128
"""Steps of the logarithm between 1 and 2."""
LOG_2 = float.fromhex("0x1.62e42fefa39efp-1")
"""The float64 nearest to the natural logarithm of 2."""

_BITS = 192
_ONE = 1 << _BITS


class Tables(NamedTuple):
    """The tables, as tuples of Python floats on the host or as arrays on a device.

    Attributes
    ----------
    exp_coarse : exp(EXP_LOWEST + i / EXP_CELLS), i = 0, …, (EXP_HIGHEST - EXP_LOWEST) * EXP_CELLS; the last: infinity
    exp_fine : exp(i / (EXP_CELLS * EXP_FINE_CELLS)), i = 0, …, EXP_FINE_CELLS
    log_fine : log(1 + i / LOG_CELLS), i = 0, …, LOG_CELLS - 1
    """

    exp_coarse: Any
    exp_fine: Any
    log_fine: Any


@cache
def make_tables() -> Tables:
    """Return the tables as tuples of Python floats."""
    falling = _powers(_exp(Fraction(-1, EXP_CELLS)), int(-EXP_LOWEST) * EXP_CELLS + 1)
    rising = _powers(_exp(Fraction(1, EXP_CELLS)), int(EXP_HIGHEST) * EXP_CELLS)
    return Tables(
        exp_coarse=(*falling[:0:-1], *rising, math.inf),
        exp_fine=_powers(_exp(Fraction(1, EXP_CELLS * EXP_FINE_CELLS)), EXP_FINE_CELLS + 1),
        log_fine=tuple(_log(1 + Fraction(i, LOG_CELLS)) / _ONE for i in range(LOG_CELLS)),
    )


def _powers(base: int, count: int) -> tuple[float, ...]:
    """Return base**0, …, base**(count - 1); Python divides integers with correct rounding."""
    # A power as small as e**-300 keeps its leading bits because its scale has many more.
    extra = 512
    entries, power = [], _ONE << extra
    for _ in range(count):
        entries.append(power / (_ONE << extra))
        power = power * base >> _BITS
    return tuple(entries)


def _exp(x: Fraction) -> int:
    """Return exp(x) in units of 2**-_BITS, for small |x|, by its series."""
    total, term, i = 0, Fraction(_ONE), 0
    while abs(term) >= 1:
        total += round(term)
        i += 1
        term = Fraction(round(term * x), i)
    return total


def _log(x: Fraction) -> int:
    """Return log(x) in units of 2**-_BITS, for x in [1, 2], as 2 artanh((x - 1) / (x + 1))."""
    y = (x - 1) / (x + 1)
    square, power, total, i = y * y, Fraction(round(y * _ONE)), 0, 1
    while power >= 1:
        total += round(power / i)
        power = Fraction(round(power * square))
        i += 2
    return 2 * total
