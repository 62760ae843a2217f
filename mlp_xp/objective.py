"""What training makes small: the mean loss of a batch plus a penalty, with its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array
from mlp_xp.losses import LOSSES, gradient_of_mean, mean_of_rows
from mlp_xp.network import Network, Parameters, backward, forward, track_statistics


@dataclass(frozen=True)
class Objective:
    """Mean loss over the rows + l2 / 2 × the sum of all squared weights (not biases).

    Parameters
    ----------
    network : Network
    loss : str
        A name in `mlp_xp.losses.LOSSES`.
    l2 : float
        Strength of the penalty, ≥ 0.
    """

    network: Network
    loss: str
    l2: float = 0.0

    def predict(self, parameters: Parameters, features: Array, arithmetic: Arithmetic) -> Array:
        """Return every row's prediction, shape (..., n, n_outputs)."""
        logits = forward(self.network, operands(parameters, arithmetic), features, arithmetic).outputs[-1]
        prediction, _ = LOSSES[self.loss](logits, arithmetic)
        return prediction

    def losses(
        self, parameters: Parameters, features: Array, targets: Array, arithmetic: Arithmetic
    ) -> tuple[Array, Array]:
        """Return every row's loss, shape (..., n), and prediction, shape (..., n, n_outputs); no penalty."""
        logits = forward(self.network, operands(parameters, arithmetic), features, arithmetic).outputs[-1]
        prediction, losses = LOSSES[self.loss](logits, arithmetic)
        return losses(targets), prediction

    def first_layers(self, n_hidden: int) -> Objective:
        """Return the objective of the network's first hidden layers, with a last layer of their own."""
        return replace(self, network=self.network.first_layers(n_hidden))

    def value_and_gradient(
        self,
        parameters: Parameters,
        features: Array,
        targets: Array,
        arithmetic: Arithmetic,
        shares: Array | None = None,
        l2: Array | None = None,
        masks: Sequence[Array] = (),
        n_frozen: int = 0,
    ) -> tuple[Array, Parameters]:
        """Return the objective of a batch and its gradient with respect to every parameter.

        Parameters
        ----------
        parameters : tuple of Layer
        features : array of shape (..., n, n_features)
        targets : array of shape (..., n, n_outputs)
            As `mlp_xp.losses.encode_targets` gives them.
        arithmetic : Arithmetic
        shares : array of shape (..., n), optional
            Every row's part of the mean; they sum to 1. By default 1/n each.
        l2 : array of shape (...), optional
            Strength of the penalty in this batch; by default the objective's own.
        masks : sequence of arrays
            Of the hidden layers, as `mlp_xp.network.forward` takes them; by default none.
        n_frozen : int
            How many of the first layers are not learnt; they have no gradient and no penalty.

        Returns
        -------
        value : array of shape (...)
        gradient : tuple of Layer
        """
        value, gradient, _ = self.learn(parameters, features, targets, arithmetic, shares, l2, masks, n_frozen)
        return value, gradient

    def learn(
        self,
        parameters: Parameters,
        features: Array,
        targets: Array,
        arithmetic: Arithmetic,
        shares: Array | None = None,
        l2: Array | None = None,
        masks: Sequence[Array] = (),
        n_frozen: int = 0,
    ) -> tuple[Array, Parameters, Parameters]:
        """Return what `value_and_gradient` does, and the parameters that the gradient is to be taken from.

        These are those that are learnt, with the running means and variances that the batch leaves, if there are any.
        """
        layers = operands(parameters, arithmetic)
        trace = forward(self.network, layers, features, arithmetic, masks, shares, is_training=True)
        prediction, losses = LOSSES[self.loss](trace.outputs[-1], arithmetic)
        value = mean_of_rows(losses(targets), shares, arithmetic)
        logits_gradient = gradient_of_mean(prediction, targets, shares, arithmetic)
        gradient = backward(self.network, layers, trace, logits_gradient, arithmetic, masks, shares, n_frozen)
        learnt = track_statistics(parameters, trace, shares, arithmetic)[n_frozen:]
        if l2 is None and self.l2 == 0.0:
            return value, gradient, learnt
        strength = self.l2 if l2 is None else l2
        for layer in learnt:
            squares = arithmetic.sum(arithmetic.multiply(layer.weight, layer.weight), axis=(-2, -1))
            value = value + arithmetic.multiply(0.5 * strength, squares)
        of_matrix = strength if l2 is None else l2[..., None, None]
        penalised = tuple(
            layer._replace(
                weight=layer.weight + arithmetic.round_state(arithmetic.multiply(of_matrix, parameter.weight))
            )
            for layer, parameter in zip(gradient, learnt, strict=True)
        )
        return value, penalised, learnt


def operands(parameters: Parameters, arithmetic: Arithmetic) -> Parameters:
    """Return the parameters with their weights as the matrix products take them."""
    return tuple(layer._replace(weight=arithmetic.round_weight(layer.weight)) for layer in parameters)
