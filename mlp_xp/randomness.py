"""Random numbers, drawn on the host from raw generator words so that they are the same everywhere.

NumPy guarantees the raw words of a bit generator across versions and machines, but not the streams of
``Generator`` (NEP 19). Every draw has its own generator, keyed by what it is for, so any epoch's order can be
had without drawing those before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

BITS = 24
"""Significant bits of a drawn number: those of a float32."""
PRETRAINING = 1 << 32
"""Where epochs and layers are counted from that are there before the training alone."""
LARGE = 1 << 15
"""Numbers that take longer to sort than a thread takes to begin."""


class Stream(IntEnum):
    """What a generator is for; the numbers are part of every recorded run."""

    WEIGHT = 0
    BIAS = 1
    BATCH_ORDER = 2
    DROPOUT = 3


def _words(count: int, *key: int) -> NDArray[np.uint64]:
    """Return raw 64-bit words of the generator with that key."""
    return np.asarray(np.random.PCG64(key).random_raw(count), dtype=np.uint64)


def uniform(shape: tuple[int, ...], bound: float, seed: int, stream: Stream, index: int) -> NDArray[np.float64]:
    """Draw from the uniform distribution on [-bound, bound].

    Returns
    -------
    ndarray of float64
        Whole multiples of 2**-24 (of a larger power of two if bound > 1), which a float32 holds exactly.
    """
    signed = (_words(math.prod(shape), seed, stream, index) >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0
    _, exponent = math.frexp(bound)  # bound <= 2**exponent
    grid = 2.0 ** (max(exponent, 0) - BITS)
    return (np.trunc(signed * (bound / grid)) * grid).reshape(shape)


def stable_argsort(words: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return what ``np.argsort(words, kind="stable")`` does; several thousand random words take half of its time.

    NumPy sorts 16-bit numbers by counting them, so the leading digits are sorted one after another, the first one last.
    Only where they leave two words in the wrong order must all bits be looked at.
    """
    order = np.arange(words.size)
    for shift in (32, 48) if words.size < LARGE else (16, 32, 48):
        digits = (words >> np.uint64(shift)).astype(np.uint16)
        order = order[np.argsort(digits[order], kind="stable")]
    ordered = words[order]
    return np.argsort(words, kind="stable") if np.any(ordered[1:] < ordered[:-1]) else order


def batch_order(n_samples: int, batch_size: int, seed: int, epoch: int) -> NDArray[np.int32]:
    """Return the row numbers of every batch of an epoch.

    Returns
    -------
    ndarray of int32, shape (n_samples // batch_size, batch_size)
        A random permutation, cut into batches; the rows of a last, partial batch are left out.
    """
    order = stable_argsort(_words(n_samples, seed, Stream.BATCH_ORDER, epoch)).astype(np.int32)
    n_batches = n_samples // batch_size
    return order[: n_batches * batch_size].reshape(n_batches, batch_size)


def batch_orders(n_samples: int, batch_size: int, seeds: Sequence[int], epoch: int) -> NDArray[np.int32]:
    """Return what `batch_order` does for several seeds, shape (n_samples // batch_size, n_seeds, batch_size)."""
    if n_samples < LARGE:
        orders = [batch_order(n_samples, batch_size, seed, epoch) for seed in seeds]
    else:
        with ThreadPoolExecutor() as pool:  # NumPy sorts in as many threads as it is asked in
            orders = list(pool.map(lambda seed: batch_order(n_samples, batch_size, seed, epoch), seeds))
    return np.stack(orders, axis=1)


def dropout_keys(n_steps: int, n_hidden: int, seed: int, epoch: int) -> NDArray[np.int32]:
    """Return the keys of every hidden layer's mask (see `mlp_xp.dropout`) in every step of an epoch.

    Returns
    -------
    ndarray of int32, shape (n_steps, n_hidden, 2)
    """
    words = _words(n_steps * n_hidden, seed, Stream.DROPOUT, epoch).reshape(n_steps, n_hidden)
    halves = np.stack([words >> np.uint64(32), words & np.uint64(0xFFFFFFFF)], axis=-1)
    return halves.astype(np.uint32).view(np.int32)
