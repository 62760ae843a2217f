"""Activation functions: one table, each with its value and, right below it, its derivative.

Every value function maps pre-activations ``z`` to outputs ``y`` of the same shape and dtype. Every backward
function maps the loss's gradient with respect to ``y`` to that with respect to ``z``: it multiplies by the
derivative, which it takes from ``z`` or from ``y``, whichever is cheaper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array

LEAK = 0.01
GELU_SLOPE, GELU_CUBIC, GELU_FAR = 0.7978845608028654, 0.044715, 10.0  # the first is √(2/π)


class Activation(NamedTuple):
    """A value function ``(z, arithmetic) -> y`` and its backward ``(gradient, z, y, arithmetic) -> gradient``."""

    forward: Callable[[Array, Arithmetic], Array]
    backward: Callable[[Array, Array, Array, Arithmetic], Array]


def identity(z: Array, _: Arithmetic) -> Array:
    """Return z."""
    return z


def identity_backward(gradient: Array, _z: Array, _y: Array, _: Arithmetic) -> Array:
    """Multiply by 1."""
    return gradient


def relu(z: Array, arithmetic: Arithmetic) -> Array:
    """Return max(z, 0) (Nair and Hinton, 2010)."""
    return arithmetic.xp.maximum(z, 0.0)


def relu_backward(gradient: Array, _z: Array, y: Array, arithmetic: Arithmetic) -> Array:
    """Multiply by 1 where z > 0, else by 0 (also at z = 0, as is the custom)."""
    return gradient * arithmetic.xp.astype(y > 0.0, gradient.dtype)  # exact; on a CPU ten times as fast as a where


def leaky_relu(z: Array, arithmetic: Arithmetic) -> Array:
    """Return z where z > 0, else z / 100 (Maas, Hannun and Ng, 2013)."""
    return arithmetic.xp.maximum(z, arithmetic.multiply(LEAK, z))


def leaky_relu_backward(gradient: Array, z: Array, _y: Array, arithmetic: Arithmetic) -> Array:
    """Multiply by 1 where z > 0, else by 1/100."""
    return arithmetic.xp.where(z > 0.0, gradient, arithmetic.multiply(LEAK, gradient))


def elu(z: Array, arithmetic: Arithmetic) -> Array:
    """Return z where z > 0, else exp(z) - 1 (Clevert, Unterthiner and Hochreiter, 2016).

    With t = tanh(z/2) that is 2 t / (1 - t), which loses nothing near 0.
    """
    xp = arithmetic.xp
    half = arithmetic.tanh(0.5 * xp.minimum(z, 0.0))
    return xp.maximum(z, 0.0) + arithmetic.divide(2.0 * half, 1.0 - half)


def elu_backward(gradient: Array, _z: Array, y: Array, arithmetic: Arithmetic) -> Array:
    """Multiply by 1 where z > 0, else by exp(z) = 1 + y."""
    return arithmetic.multiply(gradient, 1.0 + arithmetic.xp.minimum(y, 0.0))


def sigmoid(z: Array, arithmetic: Arithmetic) -> Array:
    """Return 1 / (1 + exp(-z)), written so that no exponential overflows."""
    xp = arithmetic.xp
    decay = arithmetic.exp(-xp.abs(z))  # in (0, 1]
    return arithmetic.divide(xp.where(z >= 0.0, xp.ones_like(decay), decay), 1.0 + decay)


def sigmoid_backward(gradient: Array, _z: Array, y: Array, arithmetic: Arithmetic) -> Array:
    """Multiply by y (1 - y), which lies in (0, 1/4]."""
    return arithmetic.multiply(gradient, arithmetic.multiply(y, 1.0 - y))


def tanh(z: Array, arithmetic: Arithmetic) -> Array:
    """Return the hyperbolic tangent of z."""
    return arithmetic.tanh(z)


def tanh_backward(gradient: Array, _z: Array, y: Array, arithmetic: Arithmetic) -> Array:
    """Multiply by 1 - y², written as (1 - y)(1 + y) because that loses nothing near |y| = 1."""
    return arithmetic.multiply(gradient, arithmetic.multiply(1.0 - y, 1.0 + y))


def softplus(z: Array, arithmetic: Arithmetic) -> Array:
    """Return log(1 + exp(z)), written so that no exponential overflows (Dugas et al., 2001)."""
    xp = arithmetic.xp
    return xp.maximum(z, 0.0) + arithmetic.log(1.0 + arithmetic.exp(-xp.abs(z)))


def softplus_backward(gradient: Array, z: Array, _y: Array, arithmetic: Arithmetic) -> Array:
    """Multiply by sigmoid(z)."""
    return arithmetic.multiply(gradient, sigmoid(z, arithmetic))


def silu(z: Array, arithmetic: Arithmetic) -> Array:
    """Return z sigmoid(z), also called swish (Elfwing, Uchibe and Doya, 2018)."""
    return arithmetic.multiply(z, sigmoid(z, arithmetic))


def silu_backward(gradient: Array, z: Array, y: Array, arithmetic: Arithmetic) -> Array:
    """Multiply by s + y (1 - s) with s = sigmoid(z)."""
    s = sigmoid(z, arithmetic)
    return arithmetic.multiply(gradient, s + arithmetic.multiply(y, 1.0 - s))


def _gelu_tanh(z: Array, arithmetic: Arithmetic) -> Array:
    """Return tanh(√(2/π) (z + 0.044715 z³)), where z is so near zero that it is not ±1."""
    multiply = arithmetic.multiply
    return arithmetic.tanh(multiply(GELU_SLOPE, z + multiply(GELU_CUBIC, multiply(z, multiply(z, z)))))


def gelu(z: Array, arithmetic: Arithmetic) -> Array:
    """Return about z Φ(z): z/2 (1 + tanh(√(2/π) (z + 0.044715 z³))) (Hendrycks and Gimpel, 2016).

    The paper's form without the error function, which the array API standard does not have: JAX's default, PyTorch's
    ``gelu(approximate="tanh")``. It is within 5e-4 of the other form.
    """
    xp = arithmetic.xp
    near = xp.minimum(xp.maximum(z, -GELU_FAR), GELU_FAR)  # beyond, the tanh is ±1, and a cube might overflow
    return arithmetic.multiply(0.5 * z, 1.0 + _gelu_tanh(near, arithmetic))


def gelu_backward(gradient: Array, z: Array, _y: Array, arithmetic: Arithmetic) -> Array:
    """Multiply by (1 + t)/2 + z/2 (1 - t²) √(2/π) (1 + 3 · 0.044715 z²), where t is the tanh."""
    xp, multiply = arithmetic.xp, arithmetic.multiply
    near = xp.minimum(xp.maximum(z, -GELU_FAR), GELU_FAR)
    t = _gelu_tanh(near, arithmetic)
    inner = multiply(GELU_SLOPE, 1.0 + multiply(3.0 * GELU_CUBIC, multiply(near, near)))
    slope = multiply(0.5 * near, multiply(multiply(1.0 - t, 1.0 + t), inner))
    return multiply(gradient, 0.5 * (1.0 + t) + slope)


ACTIVATIONS: Mapping[str, Activation] = {
    "identity": Activation(identity, identity_backward),
    "relu": Activation(relu, relu_backward),
    "leaky_relu": Activation(leaky_relu, leaky_relu_backward),
    "elu": Activation(elu, elu_backward),
    "gelu": Activation(gelu, gelu_backward),
    "silu": Activation(silu, silu_backward),
    "softplus": Activation(softplus, softplus_backward),
    "sigmoid": Activation(sigmoid, sigmoid_backward),
    "tanh": Activation(tanh, tanh_backward),
}
