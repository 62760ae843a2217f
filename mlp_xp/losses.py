"""Loss functions of a network's logits: each value, and the gradient that all of them share.

Each function returns, for every row, the *prediction*: what the logits say in the terms of the targets (class
probabilities, or numbers); and the loss as a function of the targets, which a mere prediction does not have. The
losses are, but for a constant, negative log-likelihoods of a categorical, a Bernoulli, a normal and a Poisson
distribution with their canonical links, so one gradient with respect to the logits serves them all: prediction -
target (McCullagh and Nelder, Generalized Linear Models, 1989, section 2.5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from mlp_xp.activations import sigmoid, softplus
from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array

LossOfTargets: TypeAlias = Callable[[Array], Array]
Loss: TypeAlias = Callable[[Array, Arithmetic], tuple[Array, LossOfTargets]]

LEAST_COUNT = 2.0**-63
"""In `poisson`, the logarithm of a smaller target is that of this one."""
MOST_EXACT_COUNT = 2.0**63
"""Of a larger target, exact arithmetic has no logarithm."""


def softmax_cross_entropy(logits: Array, arithmetic: Arithmetic) -> tuple[Array, LossOfTargets]:
    """Predict softmax(z); the loss is -sum(t log softmax(z)) in nats per row.

    Parameters
    ----------
    logits : array of shape (..., n, n_classes)
    arithmetic : Arithmetic

    Returns
    -------
    prediction : array of shape (..., n, n_classes)
    losses : callable
        From targets of the same shape, rows that sum to one: one-hot labels (see `encode_targets`) or class
        probabilities. Returns an array of shape (..., n).
    """
    xp = arithmetic.xp
    shifted = logits - xp.max(logits, axis=-1, keepdims=True)  # leaves the softmax as it is; exp cannot overflow
    exponentials = arithmetic.exp(shifted)
    total = arithmetic.sum(exponentials, axis=-1, keepdims=True)

    def losses(targets: Array) -> Array:
        return xp.squeeze(arithmetic.log(total), axis=-1) - arithmetic.sum(
            arithmetic.multiply(targets, shifted), axis=-1
        )

    return arithmetic.divide(exponentials, total), losses


def binary_cross_entropy(logits: Array, arithmetic: Arithmetic) -> tuple[Array, LossOfTargets]:
    """Predict p = sigmoid(z); the loss is -sum(t log p + (1 - t) log(1 - p)) in nats per row, over the outputs.

    Shapes as in `softmax_cross_entropy`; targets lie in [0, 1], independently for every output.
    """

    def losses(targets: Array) -> Array:
        return arithmetic.sum(softplus(logits, arithmetic) - arithmetic.multiply(targets, logits), axis=-1)

    return sigmoid(logits, arithmetic), losses


def squared_error(logits: Array, arithmetic: Arithmetic) -> tuple[Array, LossOfTargets]:
    """Predict z itself; the loss is half the squared distance per row, sum((z - t)²) / 2.

    Shapes as in `softmax_cross_entropy`.
    """

    def losses(targets: Array) -> Array:
        residual = logits - targets
        return 0.5 * arithmetic.sum(arithmetic.multiply(residual, residual), axis=-1)

    return logits, losses


def poisson(logits: Array, arithmetic: Arithmetic) -> tuple[Array, LossOfTargets]:
    """Predict p = exp(z); the loss is half the Poisson deviance per row, sum(t log(t / p) - t + p), over the outputs.

    Shapes as in `softmax_cross_entropy`; targets are numbers ≥ 0, such as counts, where t log t is 0 for t = 0.
    """
    xp = arithmetic.xp
    prediction = arithmetic.exp(logits)

    def losses(targets: Array) -> Array:
        # 0 times a finite logarithm is 0, as it shall be. For other targets that small, t log t is off by up to 4e-20.
        positive = xp.maximum(targets, LEAST_COUNT)
        # Exact arithmetic has the logarithm of numbers ≥ 1 alone.
        size = arithmetic.log(xp.maximum(positive, arithmetic.divide(xp.ones_like(positive), positive)))
        log_targets = xp.where(positive < 1.0, -size, size)
        # log p is z, also where p is so small that it is 0.
        terms = arithmetic.multiply(targets, log_targets - logits) + (prediction - targets)
        return arithmetic.sum(terms, axis=-1)

    return prediction, losses


def mean_of_rows(losses: Array, shares: Array | None, arithmetic: Arithmetic) -> Array:
    """Return the mean of the rows' losses, shape (...).

    Parameters
    ----------
    losses : array of shape (..., n)
    shares : array of shape (..., n) or None
        Every row's part of the mean; they sum to 1. None for 1/n each.
    arithmetic : Arithmetic
    """
    if shares is None:
        return arithmetic.multiply(arithmetic.sum(losses, axis=-1), 1.0 / losses.shape[-1])
    return arithmetic.sum(arithmetic.multiply(losses, shares), axis=-1)


def gradient_of_mean(prediction: Array, targets: Array, shares: Array | None, arithmetic: Arithmetic) -> Array:
    """Return the gradient, with respect to the logits, of any of these losses' mean over the rows.

    Parameters
    ----------
    prediction, targets : arrays of shape (..., n, n_outputs)
    shares : array of shape (..., n) or None
        As in `mean_of_rows`.
    arithmetic : Arithmetic

    Returns
    -------
    array of shape (..., n, n_outputs)
        (prediction - target) × the row's share.
    """
    if shares is None:
        return arithmetic.multiply(prediction - targets, 1.0 / prediction.shape[-2])
    return arithmetic.multiply(prediction - targets, arithmetic.xp.expand_dims(shares, axis=-1))


def encode_targets(targets: Array, n_outputs: int, arithmetic: Arithmetic) -> Array:
    """Return targets as floats in the logits' shape.

    Parameters
    ----------
    targets : array of shape (..., n) or (..., n, n_outputs)
        Integer labels become one-hot rows, or the one column 0.0 / 1.0 if there is a single output; floating
        targets are taken as they are.
    n_outputs : int
    arithmetic : Arithmetic

    Returns
    -------
    array of shape (..., n, n_outputs)
    """
    xp = arithmetic.xp
    if xp.isdtype(targets.dtype, "real floating"):
        return targets
    labels = xp.expand_dims(targets, axis=-1)
    if n_outputs > 1:
        labels = labels == xp.arange(n_outputs, dtype=targets.dtype, device=arithmetic.device)
    return xp.astype(labels, arithmetic.dtype)


LOSSES: Mapping[str, Loss] = {
    "cross_entropy": softmax_cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "squared_error": squared_error,
    "poisson": poisson,
}
REGRESSION_LOSSES = ("squared_error", "poisson")
"""Those that take numbers to predict."""
