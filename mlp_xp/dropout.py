"""Dropout: in every step, units that are left out at random, the same ones on every backend.

Which ones is decided by a counter-based generator in 32-bit integer operations, which every library has and none
rounds: the mask of a layer is a function of a key, drawn on the host for every step, and of a unit's number. So
nothing of the size of a batch is drawn on the host or moved to the device.
"""

from __future__ import annotations

import math

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array

MULTIPLIERS = 0x7FEB352D, -0x7B935975  # the second is 0x846CA68B as a signed number
SHIFTS = 16, 15, 16


def mix(x: Array) -> Array:
    """Return a bijection of 32-bit integers that every bit of x has a say in, in every bit.

    Wellons, "Prospecting for hash functions", 2018: ``lowbias32``, three shifts and two products modulo 2**32.
    Integers are signed, as not every library computes with others; what a shift draws in from the sign is cut off.
    """
    for shift, multiplier in zip(SHIFTS, (*MULTIPLIERS, 1), strict=True):
        x = x ^ ((x >> shift) & ((1 << (32 - shift)) - 1))
        if multiplier != 1:
            x = x * multiplier
    return x


def keep_mask(key: Array, shape: tuple[int, ...], rate: float, arithmetic: Arithmetic) -> Array:
    """Return the factors of a layer's outputs: 0 for units that are left out, 1 / (1 - rate) for the others.

    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout", JMLR 15, 2014; the outputs of the units
    that are kept are raised in training, so that nothing changes where nothing is learnt.

    Parameters
    ----------
    key : array of int32, shape (..., 2)
        Random bits; another key gives another mask.
    shape : tuple of int
        Of a batch's outputs, (..., n, n_out); its leading axes are those of the key.
    rate : float
        Share of the units that are left out, in [0, 1); a multiple of 2**-32 is taken.
    arithmetic : Arithmetic

    Returns
    -------
    array of shape ``shape``
    """
    xp = arithmetic.xp
    n, n_out = shape[-2:]
    numbers = xp.reshape(xp.arange(n * n_out, dtype=xp.int32, device=arithmetic.device), (n, n_out))
    first, second = key[..., 0, None, None], key[..., 1, None, None]
    # The numbers are mixed once for all steps. The second key moves the words of two steps whose first keys are alike.
    words = mix(mix(numbers) ^ first) + second
    kept = words >= math.floor(rate * 2.0**32) - 2**31  # they are uniform from -2**31 on
    return xp.astype(kept, arithmetic.dtype) * (1.0 / (1.0 - rate))
