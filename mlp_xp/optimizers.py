"""Optimisers: pure pairs ``init(parameters) -> state`` and ``update(gradient, state, parameters)``.

The learning rate is a part of the state (a 0-d array), so that a schedule can change it between steps. It begins as
the optimiser's, but two optimisers that differ in it alone are equal: their updates are the same function, and a
library that compiles does so once for all learning rates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array, PyTree
from mlp_xp.network import Parameters, map_parameters


class Optimizer(Protocol):
    """A frozen, hashable value that knows how to begin and how to take one step."""

    def init(self, parameters: Parameters, arithmetic: Arithmetic) -> PyTree:
        """Return the state before the first step."""

    def update(
        self, gradient: Parameters, state: PyTree, parameters: Parameters, arithmetic: Arithmetic
    ) -> tuple[Parameters, PyTree]:
        """Return the parameters and the state after one step; the arguments are left untouched."""


def _scalar(value: float, arithmetic: Arithmetic) -> Array:
    return arithmetic.xp.asarray(value, dtype=arithmetic.dtype, device=arithmetic.device)


def _zeros(parameters: Parameters, arithmetic: Arithmetic) -> Parameters:
    """Return zeros in the shapes of the parameters, on the arithmetic's device (CuPy's zeros_like heeds none)."""
    zero = _scalar(0.0, arithmetic)
    return map_parameters(lambda x: arithmetic.xp.broadcast_to(zero, x.shape), parameters)


class SGDState(NamedTuple):
    """``velocity`` is None without momentum: then nothing is carried from step to step."""

    learning_rate: Array
    velocity: Parameters | None


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent, plain or with (Nesterov's) momentum.

    v ← momentum v - learning_rate g, then θ ← θ + v; with Nesterov, θ ← θ + momentum v - learning_rate g.
    (Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and momentum in deep learning",
    ICML 2013, equations 1-4; Nesterov's in the form that moves the parameters to the look-ahead point.)

    Parameters
    ----------
    learning_rate : float
    momentum : float
        In [0, 1).
    nesterov : bool
    """

    learning_rate: float = field(compare=False)
    momentum: float = 0.0
    nesterov: bool = False

    def init(self, parameters: Parameters, arithmetic: Arithmetic) -> SGDState:
        velocity = _zeros(parameters, arithmetic) if self.momentum else None
        return SGDState(_scalar(self.learning_rate, arithmetic), velocity)

    def update(
        self, gradient: Parameters, state: SGDState, parameters: Parameters, arithmetic: Arithmetic
    ) -> tuple[Parameters, SGDState]:

        def descend(x: Array, g: Array) -> Array:
            moved = arithmetic.multiply(-state.learning_rate, g)
            moved += x  # in place where arrays can be written to: the product is ours
            return moved

        if state.velocity is None:
            return map_parameters(descend, parameters, gradient), state

        def decay(v: Array) -> Array:
            return arithmetic.multiply(self.momentum, v)

        def accelerate(v: Array, g: Array) -> Array:
            return arithmetic.round_state(descend(decay(v), g))

        velocity = map_parameters(accelerate, state.velocity, gradient)
        if self.nesterov:
            moved = map_parameters(lambda p, v, g: descend(p + decay(v), g), parameters, velocity, gradient)
        else:
            moved = map_parameters(lambda p, v: p + v, parameters, velocity)
        return moved, state._replace(velocity=velocity)


class AdamState(NamedTuple):
    """Running means of the gradient and of its square, and of the constant 1 with the same two decays."""

    learning_rate: Array
    mean: Parameters
    square: Parameters
    mean_weight: Array
    square_weight: Array


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1).

    m ← β₁ m + (1 - β₁) g and s ← β₂ s + (1 - β₂) g² start at zero, so they are divided by 1 - β₁ᵗ and 1 - β₂ᵗ.
    Those are the same running means taken of the constant 1, and are computed so: no power, no cancellation.

    Parameters
    ----------
    learning_rate : float
    beta_1, beta_2 : float
        Decay of the two running means, in [0, 1).
    epsilon : float
        Added to the root of the corrected mean square.
    epsilon_hat : bool
        Whether it is added to the root before that is corrected, in the order that section 2 of the paper gives for
        speed, and that scikit-learn has: the corrections of both means are then the learning rate's.
    """

    learning_rate: float = field(compare=False)
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    epsilon_hat: bool = False

    def init(self, parameters: Parameters, arithmetic: Arithmetic) -> AdamState:
        zero = _scalar(0.0, arithmetic)
        zeros = _zeros(parameters, arithmetic)
        return AdamState(_scalar(self.learning_rate, arithmetic), zeros, zeros, zero, zero)

    def update(
        self, gradient: Parameters, state: AdamState, parameters: Parameters, arithmetic: Arithmetic
    ) -> tuple[Parameters, AdamState]:
        multiply = arithmetic.multiply

        def blend(decay: float, mean: Array, x: Array) -> Array:
            return arithmetic.round_state(multiply(decay, mean) + multiply(1.0 - decay, x))

        mean = map_parameters(lambda m, g: blend(self.beta_1, m, g), state.mean, gradient)
        square = map_parameters(lambda s, g: blend(self.beta_2, s, multiply(g, g)), state.square, gradient)
        one = arithmetic.xp.ones_like(state.mean_weight)
        mean_weight = blend(self.beta_1, state.mean_weight, one)
        square_weight = blend(self.beta_2, state.square_weight, one)

        rate = state.learning_rate
        if self.epsilon_hat:
            rate = multiply(rate, arithmetic.divide(arithmetic.sqrt(square_weight), mean_weight))

        def descend(p: Array, m: Array, s: Array) -> Array:
            if not self.epsilon_hat:
                m, s = arithmetic.divide(m, mean_weight), arithmetic.divide(s, square_weight)
            return p - multiply(rate, arithmetic.divide(m, arithmetic.sqrt(s) + self.epsilon))

        moved = map_parameters(descend, parameters, mean, square)
        return moved, AdamState(state.learning_rate, mean, square, mean_weight, square_weight)


OPTIMIZERS: Mapping[str, Callable[..., Optimizer]] = {"sgd": SGD, "adam": Adam}
