"""What an exact training step means, in Python's integers and fractions alone.

This is the definition; the tests hold every library to it, bit for bit. It is written for reading: a number is a
``Fraction``, a vector a list, a matrix a list of rows, and each operation says where it rounds. ``nearest`` is
IEEE 754's round-to-nearest; ``shorten`` rounds operands before a sum; `total` then checks that the sum is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from math import isqrt
from typing import TypeAlias

from mlp_xp.arithmetic.bits import activation_bits, gradient_bits, term_bits, weight_bits
from mlp_xp.arithmetic.tables import (
    EXP_CELLS,
    EXP_FINE_CELLS,
    EXP_HIGHEST,
    EXP_LOWEST,
    LOG_2,
    LOG_CELLS,
    make_tables,
)

Vector: TypeAlias = list[Fraction]
Matrix: TypeAlias = list[Vector]
Layers: TypeAlias = list[tuple[Matrix, Vector]]
"""Of every layer the weight, a row per input, and the bias; or anything of these shapes."""

FINEST = Fraction(1, 2**200)
LEAST_COUNT = Fraction(1, 2**63)
LEAK, GELU_SLOPE, GELU_CUBIC = Fraction(0.01), 0.7978845608028654, 0.044715


# --- numbers ---------------------------------------------------------------------------------------------------


def nearest(x: Fraction | float) -> Fraction:
    """Return the float64 nearest to x, ties to even: what IEEE 754 asks of every single operation."""
    return Fraction(float(x))


def leading_power(x: Fraction) -> Fraction:
    """Return the largest power of two ≤ |x|, for x ≠ 0."""
    exponent = abs(x.numerator).bit_length() - x.denominator.bit_length()
    power = Fraction(2) ** exponent
    return power if power <= abs(x) else power / 2


def lowest_power(x: Fraction) -> Fraction:
    """Return the power of two that x's last bit stands for, for x ≠ 0."""
    return Fraction(x.numerator & -x.numerator, x.denominator)


def shorten(numbers: Iterable[Fraction], bits: int) -> Callable[[Fraction], Fraction]:
    """Return the rounding to that many bits, counted from the largest magnitude among the numbers."""
    largest = max(abs(x) for x in numbers)
    unit = max(leading_power(largest) * Fraction(2) ** (1 - bits), FINEST) if largest else FINEST
    return lambda x: round(x / unit) * unit


def shorten_matrix(rows: Matrix, bits: int) -> Matrix:
    """Round all entries of a matrix to the same unit."""
    rounded = shorten(chain.from_iterable(rows), bits)
    return [[rounded(x) for x in row] for row in rows]


def total(terms: Iterable[Fraction]) -> Fraction:
    """Return a sum that does not round, in whatever order it is formed; the certificate promises that."""
    terms = list(terms)
    unit = min((lowest_power(x) for x in terms if x), default=Fraction(1))
    if sum(abs(x) for x in terms) > 2**53 * unit:
        raise AssertionError("a sum that the certificate calls exact may round")
    return sum(terms, Fraction(0))


def rounded_total(terms: Sequence[Fraction]) -> Fraction:
    """Return the sum of any terms: each is shortened first."""
    return total(map(shorten(terms, term_bits(len(terms))), terms))


def fade(x: Fraction) -> Fraction:
    """Round what may fade away to a multiple of 2**-652 or 2**-653; only the very smallest numbers change."""
    shift = Fraction(3, 2) * Fraction(2) ** (52 - 652)
    return nearest(nearest(x + shift) - shift)


# --- elementary functions --------------------------------------------------------------------------------------


def exp(x: Fraction) -> Fraction:
    """Return about e**x, for x < EXP_HIGHEST; from there on it is infinite, which no fraction is."""
    if x >= EXP_HIGHEST:
        raise OverflowError(f"e**{float(x)} is infinite")
    tables = make_tables()
    x = max(x, Fraction(EXP_LOWEST))
    whole = x * EXP_CELLS // 1
    rest = nearest(x - Fraction(whole, EXP_CELLS))
    fine = rest * EXP_CELLS * EXP_FINE_CELLS // 1
    rest = nearest(rest - Fraction(fine, EXP_CELLS * EXP_FINE_CELLS))
    series = polynomial(rest, (1.0 / 6.0, 0.5, 1.0, 1.0))
    coarse = tables.exp_coarse[whole - int(EXP_LOWEST) * EXP_CELLS]
    return nearest(nearest(Fraction(coarse) * Fraction(tables.exp_fine[fine])) * series)


def log(x: Fraction) -> Fraction:
    """Return about log(x), for x ≥ 1."""
    tables = make_tables()
    power = leading_power(x)
    mantissa = x / power
    cell = (mantissa - 1) * LOG_CELLS // 1
    start = 1 + Fraction(cell, LOG_CELLS)
    rest = nearest((mantissa - start) / start)
    series = nearest(nearest(rest * nearest(-1.0 / 8.0)) + nearest(1.0 / 7.0))
    for i in range(6, 0, -1):
        series = nearest(nearest(1.0 / i) - nearest(rest * series))
    series = nearest(rest * series)
    exponent = power.numerator.bit_length() - 1
    return nearest(nearest(exponent * Fraction(LOG_2)) + nearest(Fraction(tables.log_fine[cell]) + series))


def tanh(z: Fraction) -> Fraction:
    """Return about the hyperbolic tangent."""
    size = abs(z)
    if size < Fraction(1, 16):
        square = nearest(z * z)
        coefficients = (-1382.0 / 155925.0, 62.0 / 2835.0, -17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0)
        value = nearest(size * polynomial(square, coefficients))
    else:
        decay = exp(-2 * size)
        value = nearest(nearest(1 - decay) / nearest(1 + decay))
    return -value if z < 0 else value


def sqrt(x: Fraction) -> Fraction:
    """Return about √x: the integer root of x's leading bits, and one Newton step from there."""
    if x < Fraction(2) ** -900:
        return Fraction(0)
    unit = Fraction(2) ** ((leading_power(x).numerator.bit_length() - leading_power(x).denominator.bit_length()) // 2)
    scaled = x / unit**2 * 2**50
    root = isqrt(int(scaled))
    return nearest(root + nearest((scaled - root**2) / (2 * root))) * unit / 2**25


def sigmoid(z: Fraction) -> Fraction:
    """Return 1 / (1 + exp(-z))."""
    decay = exp(-abs(z))
    return nearest((1 if z >= 0 else decay) / nearest(1 + decay))


def softplus(z: Fraction) -> Fraction:
    """Return about log(1 + exp(z))."""
    return nearest(max(z, Fraction(0)) + log(nearest(1 + exp(-abs(z)))))


def elu(z: Fraction) -> Fraction:
    """Return z or, below 0, about exp(z) - 1."""
    half = tanh(min(z, Fraction(0)) / 2)
    return nearest(max(z, Fraction(0)) + nearest(2 * half / nearest(1 - half)))


def gelu_tanh(z: Fraction) -> Fraction:
    """Return the hyperbolic tangent that is in `gelu`."""
    cubic = nearest(Fraction(GELU_CUBIC) * nearest(z * nearest(z * z)))
    return tanh(nearest(Fraction(GELU_SLOPE) * nearest(z + cubic)))


def gelu(z: Fraction) -> Fraction:
    """Return about z/2 (1 + tanh(√(2/π) (z + 0.044715 z³)))."""
    near = min(max(z, Fraction(-10)), Fraction(10))
    return nearest(z / 2 * nearest(1 + gelu_tanh(near)))


def gelu_derivative(z: Fraction) -> Fraction:
    """Return the derivative of `gelu`."""
    z = min(max(z, Fraction(-10)), Fraction(10))
    t = gelu_tanh(z)
    inner = nearest(Fraction(GELU_SLOPE) * nearest(1 + nearest(Fraction(3.0 * GELU_CUBIC) * nearest(z * z))))
    slope = nearest(z / 2 * nearest(nearest(nearest(1 - t) * nearest(1 + t)) * inner))
    return nearest(nearest(1 + t) / 2 + slope)


def silu_derivative(z: Fraction, y: Fraction) -> Fraction:
    """Return the derivative of z sigmoid(z), given both."""
    s = sigmoid(z)
    return nearest(s + nearest(y * nearest(1 - s)))


def polynomial(x: Fraction, coefficients: Sequence[float]) -> Fraction:
    """Evaluate a polynomial by Horner's rule, the highest power first; every product and sum rounds."""
    value = Fraction(coefficients[0])
    for coefficient in coefficients[1:]:
        value = nearest(nearest(x * value) + Fraction(coefficient))
    return value


# --- the network -----------------------------------------------------------------------------------------------

ACTIVATIONS: dict[str, tuple[Callable[[Fraction], Fraction], Callable[[Fraction, Fraction, Fraction], Fraction]]] = {
    "identity": (lambda z: z, lambda g, _z, _y: g),
    "relu": (lambda z: max(z, Fraction(0)), lambda g, _z, y: g if y > 0 else Fraction(0)),
    "leaky_relu": (lambda z: max(z, nearest(LEAK * z)), lambda g, z, _y: g if z > 0 else nearest(LEAK * g)),
    "elu": (elu, lambda g, _z, y: nearest(g * nearest(1 + min(y, Fraction(0))))),
    "gelu": (gelu, lambda g, z, _y: nearest(g * gelu_derivative(z))),
    "silu": (lambda z: nearest(z * sigmoid(z)), lambda g, z, y: nearest(g * silu_derivative(z, y))),
    "softplus": (softplus, lambda g, z, _y: nearest(g * sigmoid(z))),
    "sigmoid": (sigmoid, lambda g, _z, y: nearest(g * nearest(y * nearest(1 - y)))),
    "tanh": (tanh, lambda g, _z, y: nearest(g * nearest(nearest(1 - y) * nearest(1 + y)))),
}
"""Name -> value of z, and gradient with respect to z from that with respect to y (and z and y)."""


def load(table: Matrix) -> Matrix:
    """Round features that are not bytes: once, all rows to the same unit."""
    return shorten_matrix(table, activation_bits(len(table[0])))


def product(left: Matrix, right: Matrix) -> Matrix:
    """Return the matrix product; its operands were shortened, so that every sum is exact."""
    columns = transpose(right)
    return [[total(a * b for a, b in zip(row, column, strict=True)) for column in columns] for row in left]


def times(rows: Matrix, factors: Matrix) -> Matrix:
    """Return the products of two matrices' entries."""
    return [[nearest(a * b) for a, b in zip(*pair, strict=True)] for pair in zip(rows, factors, strict=True)]


def transpose(rows: Matrix) -> Matrix:
    """Return the columns of a matrix."""
    return [list(column) for column in zip(*rows, strict=True)]


def softmax_cross_entropy(z: Vector, t: Vector) -> tuple[Fraction, Vector]:
    """Return a row's loss and its class probabilities."""
    shifted = [nearest(x - max(z)) for x in z]
    exponentials = [exp(x) for x in shifted]
    normalizer = rounded_total(exponentials)
    loss = nearest(log(normalizer) - rounded_total([nearest(a * b) for a, b in zip(t, shifted, strict=True)]))
    if len(z) == 1:
        return loss, [nearest(exponentials[0] / normalizer)]
    return loss, [nearest(x * nearest(1 / normalizer)) for x in exponentials]


def binary_cross_entropy(z: Vector, t: Vector) -> tuple[Fraction, Vector]:
    """Return a row's loss and its outputs' probabilities."""
    loss = rounded_total([nearest(softplus(x) - nearest(a * x)) for a, x in zip(t, z, strict=True)])
    return loss, [sigmoid(x) for x in z]


def squared_error(z: Vector, t: Vector) -> tuple[Fraction, Vector]:
    """Return a row's loss and the numbers predicted."""
    residuals = [nearest(x - a) for x, a in zip(z, t, strict=True)]
    return rounded_total([nearest(r * r) for r in residuals]) / 2, z


def poisson(z: Vector, t: Vector) -> tuple[Fraction, Vector]:
    """Return a row's loss and the numbers predicted."""
    prediction = [exp(x) for x in z]
    terms = []
    for x, a, p in zip(z, t, prediction, strict=True):
        positive = max(a, LEAST_COUNT)
        size = log(max(positive, nearest(1 / positive)))
        log_target = size if positive >= 1 else -size
        terms.append(nearest(nearest(a * nearest(log_target - x)) + nearest(p - a)))
    return rounded_total(terms), prediction


LOSSES = {
    "cross_entropy": softmax_cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "squared_error": squared_error,
    "poisson": poisson,
}


def value_and_gradient(
    layers: Layers,
    features: Matrix,
    targets: Matrix,
    activation: str,
    loss: str,
    l2: float,
    shares: Vector | None = None,
    masks: Sequence[Matrix] = (),
) -> tuple[Fraction, Layers]:
    """Return the mean loss of a batch plus the penalty, and the gradient of every weight and bias.

    Parameters
    ----------
    layers : list of (weight, bias)
    features : list of rows
        Of a table that `load` rounded.
    targets : list of rows
        As many numbers as there are outputs.
    activation, loss : str
        As in `mlp_xp.settings.Settings`.
    l2 : float
    shares : list of Fraction or None
        Every row's part of the mean; None for equal parts.
    masks : sequence of matrices
        Factors of every hidden layer's outputs, as `keep_mask` gives them; none without dropout.
    """
    value_of, gradient_of = ACTIVATIONS[activation]
    weights = [shorten_matrix(weight, weight_bits(len(weight), len(weight[0]))) for weight, _ in layers]
    inputs = [features]
    pre_activations: list[Matrix] = []
    outputs: list[Matrix] = []
    for weight, (_, bias) in zip(weights, layers, strict=True):
        z = [[nearest(x + b) for x, b in zip(row, bias, strict=True)] for row in product(inputs[len(outputs)], weight)]
        if len(inputs) == len(layers):
            break
        pre_activations.append(z)
        y = [[value_of(x) for x in row] for row in z]
        handed_on = times(y, masks[len(outputs)]) if masks else y
        inputs.append(shorten_matrix(handed_on, activation_bits(len(y[0]))))
        outputs.append(y if masks else inputs[-1])

    rows = [LOSSES[loss](a, b) for a, b in zip(z, targets, strict=True)]
    losses = [row_loss for row_loss, _ in rows]
    if shares is None:
        shares = [nearest(1.0 / len(rows))] * len(rows)
        value = nearest(rounded_total(losses) * shares[0])
    else:
        value = rounded_total([nearest(x * share) for x, share in zip(losses, shares, strict=True)])
    delta = [
        [nearest(nearest(p - t) * share) for p, t in zip(prediction, target, strict=True)]
        for (_, prediction), target, share in zip(rows, targets, shares, strict=True)
    ]
    gradient: Layers = []
    for i in reversed(range(len(layers))):
        if i < len(layers) - 1:
            delta = times(delta, masks[i]) if masks else delta
            delta = [
                [gradient_of(*numbers) for numbers in zip(*of_row, strict=True)]
                for of_row in zip(delta, pre_activations[i], outputs[i], strict=True)
            ]
        delta = shorten_matrix(delta, gradient_bits(len(delta), len(delta[0])))
        gradient.insert(0, (product(transpose(inputs[i]), delta), [total(column) for column in transpose(delta)]))
        delta = product(delta, transpose(weights[i]))
    if l2 == 0:
        return value, gradient
    for i, (weight, _) in enumerate(layers):
        squares = rounded_total([nearest(w * w) for row in weight for w in row])
        value = nearest(value + nearest(nearest(0.5 * l2) * squares))
        penalized = [
            [nearest(g + fade(nearest(nearest(l2) * w))) for g, w in zip(*rows, strict=True)]
            for rows in zip(gradient[i][0], weight, strict=True)
        ]
        gradient[i] = (penalized, gradient[i][1])
    return value, gradient


def keep_mask(key: tuple[int, int], n_rows: int, n_units: int, rate: float) -> Matrix:
    """Return the factors of a layer's outputs: 0 for units that are left out, 1 / (1 - rate) for the others.

    Parameters
    ----------
    key : tuple of int
        Two numbers of 32 bits, with or without sign.
    n_rows, n_units : int
    rate : float
    """

    def mix(x: int) -> int:
        x = (x ^ x >> 16) * 0x7FEB352D % 2**32
        x = (x ^ x >> 15) * 0x846CA68B % 2**32
        return x ^ x >> 16

    def is_kept(number: int) -> bool:
        word = (mix(mix(number) ^ key[0] % 2**32) + key[1]) % 2**32
        return (word + 2**31) % 2**32 >= int(rate * 2**32)

    factor = nearest(1.0 / (1.0 - rate))
    return [[factor * is_kept(row * n_units + unit) for unit in range(n_units)] for row in range(n_rows)]


def clip_by_norm(gradient: Layers, largest: float) -> Layers:
    """Return the gradient × min(1, largest / its norm)."""
    total: Fraction | None = None
    for weight, bias in gradient:
        for numbers in ([x for row in weight for x in row], bias):
            squares = rounded_total([nearest(x * x) for x in numbers])
            total = squares if total is None else nearest(total + squares)
    norm = sqrt(total or Fraction(0))
    factor = nearest(Fraction(largest) / max(norm, Fraction(largest)))
    return each(lambda x: fade(nearest(factor * x)), gradient)


# --- optimisers: each walks over single numbers, as all of a network's parameters are treated alike ---------------


def each(function: Callable[..., Fraction], *sets: Layers) -> Layers:
    """Apply a function to every number of one or several sets of parameters."""
    return [
        (
            [[function(*numbers) for numbers in zip(*rows, strict=True)] for rows in zip(*weights, strict=True)],
            [function(*numbers) for numbers in zip(*biases, strict=True)],
        )
        for weights, biases in (zip(*layers, strict=True) for layers in zip(*sets, strict=True))
    ]


@dataclass
class SGD:
    """Gradient descent, plain or with (Nesterov's) momentum."""

    learning_rate: float
    momentum: float = 0.0
    nesterov: bool = False
    velocity: Layers | None = None

    def step(self, layers: Layers, gradient: Layers) -> Layers:
        """Return the parameters after a step."""
        rate, momentum = Fraction(self.learning_rate), Fraction(self.momentum)

        def descend(x: Fraction, g: Fraction) -> Fraction:
            return nearest(x - nearest(rate * g))

        if not momentum:
            return each(descend, layers, gradient)
        velocity = self.velocity or each(lambda _: Fraction(0), layers)
        self.velocity = each(lambda v, g: fade(descend(nearest(momentum * v), g)), velocity, gradient)
        if self.nesterov:
            return each(lambda p, v, g: descend(nearest(p + nearest(momentum * v)), g), layers, self.velocity, gradient)
        return each(lambda p, v: nearest(p + v), layers, self.velocity)


@dataclass
class Adam:
    """Kingma and Ba's Adam."""

    learning_rate: float
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    epsilon_hat: bool = False
    mean: Layers | None = None
    square: Layers | None = None
    mean_weight: Fraction = Fraction(0)
    square_weight: Fraction = Fraction(0)

    def step(self, layers: Layers, gradient: Layers) -> Layers:
        """Return the parameters after a step."""

        def blend(decay: float, mean: Fraction, x: Fraction) -> Fraction:
            return fade(nearest(nearest(Fraction(decay) * mean) + nearest(Fraction(1.0 - decay) * x)))

        zeros = each(lambda _: Fraction(0), layers)
        self.mean = each(lambda m, g: blend(self.beta_1, m, g), self.mean or zeros, gradient)
        self.square = each(lambda s, g: blend(self.beta_2, s, nearest(g * g)), self.square or zeros, gradient)
        self.mean_weight = blend(self.beta_1, self.mean_weight, Fraction(1))
        self.square_weight = blend(self.beta_2, self.square_weight, Fraction(1))
        of_mean, of_square = nearest(1 / self.mean_weight), nearest(1 / self.square_weight)
        rate, epsilon = Fraction(self.learning_rate), Fraction(self.epsilon)
        if self.epsilon_hat:
            rate = nearest(rate * nearest(sqrt(self.square_weight) * of_mean))

        def descend(p: Fraction, m: Fraction, s: Fraction) -> Fraction:
            if not self.epsilon_hat:
                m, s = nearest(m * of_mean), nearest(s * of_square)
            return nearest(p - nearest(rate * nearest(m / nearest(sqrt(s) + epsilon))))

        return each(descend, layers, self.mean, self.square)
