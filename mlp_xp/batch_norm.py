"""Batch normalisation: what every unit is given gets mean 0 and variance 1 over the batch; forward and backward.

Ioffe and Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate shift", ICML
2015, algorithm 1; means and variances for inference run along as PyTorch's ``BatchNorm1d`` keeps them. Rows count by
their shares of the batch's mean: one of share 0 is not there, one of the double share is there twice.
"""

from __future__ import annotations

from typing import NamedTuple

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array

EPSILON = 1e-5
"""Added to variances, so that a unit that never changes is divided by something."""
MOMENTUM = 0.1
"""The last batch's part of the running means and variances."""


class Normalized(NamedTuple):
    """What normalising a batch gives.

    Attributes
    ----------
    values : array of shape (..., n, n_out)
        (z - mean) / √(variance + ε).
    factor : array of shape (..., 1, n_out)
        1 / √(variance + ε).
    mean, variance : arrays of shape (..., n_out)
        Of the batch; the variance is the mean square of z - mean.
    """

    values: Array
    factor: Array
    mean: Array
    variance: Array


def normalize_batch(z: Array, shares: Array | None, arithmetic: Arithmetic) -> Normalized:
    """Normalise numbers of shape (..., n, n_out) over the rows, of which ``shares``, (..., n), are the parts."""
    mean = _mean(z, shares, arithmetic)
    centered = z - mean
    variance = _mean(arithmetic.multiply(centered, centered), shares, arithmetic)
    values, factor = _scale(centered, variance, arithmetic)
    return Normalized(values, factor, mean[..., 0, :], variance[..., 0, :])


def normalize_by(z: Array, mean: Array, variance: Array, arithmetic: Arithmetic) -> Array:
    """Normalise numbers of shape (..., n, n_out) by a mean and a variance of shape (..., n_out)."""
    values, _ = _scale(z - mean[..., None, :], variance[..., None, :], arithmetic)
    return values


def scale_and_shift(values: Array, scale: Array, bias: Array, arithmetic: Arithmetic) -> Array:
    """Return γ ẑ + β, shape (..., n, n_out), of γ and β of shape (..., n_out)."""
    return arithmetic.multiply(values, scale[..., None, :]) + bias[..., None, :]


def batch_norm_backward(
    delta: Array, normalized: Normalized, scale: Array, shares: Array | None, arithmetic: Arithmetic
) -> tuple[Array, Array, Array]:
    """Carry a gradient back through `scale_and_shift` and `normalize_batch`.

    With dL/d(γ ẑ + β) = delta: dL/dβ = Σ delta, dL/dγ = Σ delta ẑ and, as mean and variance depend on every row,
    dL/dz = γ / √(variance + ε) × (delta - share × (dL/dβ + ẑ dL/dγ)).

    Parameters
    ----------
    delta : array of shape (..., n, n_out)
        As the rounding point of gradients left it.
    normalized : Normalized
    scale : array of shape (..., n_out)
        γ.
    shares : array of shape (..., n) or None
        None for 1/n each.
    arithmetic : Arithmetic

    Returns
    -------
    z_gradient : array of shape (..., n, n_out)
    scale_gradient, bias_gradient : arrays of shape (..., n_out)
    """
    scale_gradient = arithmetic.sum(arithmetic.multiply(delta, normalized.values), axis=-2)
    bias_gradient = arithmetic.sum_rounded(delta, axis=-2)
    along = scale_and_shift(normalized.values, scale_gradient, bias_gradient, arithmetic)
    centered = delta - arithmetic.multiply(along, 1.0 / delta.shape[-2] if shares is None else shares[..., None])
    factor = arithmetic.multiply(normalized.factor, scale[..., None, :])
    return arithmetic.multiply(centered, factor), scale_gradient, bias_gradient


def track(
    mean: Array, variance: Array, batch: Normalized, shares: Array | None, arithmetic: Arithmetic
) -> tuple[Array, Array]:
    """Return running mean and variance, shape (..., n_out), after a batch: the variance is the unbiased estimate.

    Of weighted rows it is the variance / (1 - Σ share²). A batch in which no row or a single one has weight leaves no
    trace: it has no spread.
    """
    n = batch.values.shape[-2]
    if shares is None:
        part, unbiased = (MOMENTUM if n > 1 else 0.0), arithmetic.multiply(batch.variance, n / max(n - 1.0, 1.0))
    else:
        squares = arithmetic.sum(arithmetic.multiply(shares, shares), axis=-1)[..., None]
        xp, one, zero = arithmetic.xp, arithmetic.xp.ones_like(squares), arithmetic.xp.zeros_like(squares)
        has_spread = (squares > 0.0) & (squares < 1.0)
        part = xp.where(has_spread, one * MOMENTUM, zero)
        unbiased = arithmetic.divide(batch.variance, xp.where(has_spread, one - squares, one))

    def blend(running: Array, new: Array) -> Array:
        return arithmetic.round_state(arithmetic.multiply(running, 1.0 - part) + arithmetic.multiply(new, part))

    return blend(mean, batch.mean), blend(variance, unbiased)


def _mean(x: Array, shares: Array | None, arithmetic: Arithmetic) -> Array:
    """Return the mean over the rows, shape (..., 1, n_out)."""
    if shares is None:
        return arithmetic.multiply(arithmetic.sum(x, axis=-2, keepdims=True), 1.0 / x.shape[-2])
    return arithmetic.sum(arithmetic.multiply(x, shares[..., None]), axis=-2, keepdims=True)


def _scale(centered: Array, variance: Array, arithmetic: Arithmetic) -> tuple[Array, Array]:
    """Return numbers divided by the root of a variance, and what they were multiplied by."""
    deviation = arithmetic.sqrt(variance + EPSILON)
    factor = arithmetic.divide(arithmetic.xp.ones_like(deviation), deviation)
    # Rounded, so that no product with these can be subnormal: see `mlp_xp.arithmetic.exact`.
    return arithmetic.round_activation(arithmetic.multiply(centered, factor)), factor
