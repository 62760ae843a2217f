"""A multilayer perceptron: its layers, its forward pass and, right below it, its backward pass.

Shapes: a batch has ``n`` rows, a layer ``n_in`` inputs and ``n_out`` outputs. All arrays may carry further
leading axes (many networks side by side); everything here acts on the last one or two axes alone.

The backward pass is the chain rule applied from the last layer to the first (Rumelhart, Hinton and Williams,
"Learning representations by back-propagating errors", Nature 323, 1986).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from mlp_xp.activations import ACTIVATIONS
from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array


class Layer(NamedTuple):
    """The parameters of a dense layer, or anything of their shapes: gradients, velocities, moments.

    Attributes
    ----------
    weight : array of shape (..., n_in, n_out)
    bias : array of shape (..., n_out)
    """

    weight: Array
    bias: Array


Parameters: TypeAlias = tuple[Layer, ...]


def map_parameters(function: Callable[..., Array], *parameters: Parameters) -> Parameters:
    """Apply ``function`` to every weight and every bias of one or several sets of parameters."""
    return tuple(Layer(*map(function, *layers)) for layers in zip(*parameters, strict=True))


@dataclass(frozen=True)
class Network:
    """The shape of a network; its parameters are kept apart from it.

    Parameters
    ----------
    layer_sizes : tuple of int
        Number of inputs, of units in each hidden layer, and of outputs.
    activation : str
        Name of the hidden layers' activation in `mlp_xp.activations.ACTIVATIONS`. The last layer has none: it
        gives logits, and the loss knows what they mean.
    """

    layer_sizes: tuple[int, ...]
    activation: str = "relu"

    @property
    def activations(self) -> tuple[str, ...]:
        """Name of each layer's activation, the first hidden layer's first."""
        return (self.activation,) * (len(self.layer_sizes) - 2) + ("identity",)


class Trace(NamedTuple):
    """What a forward pass leaves for the backward pass, of every layer.

    Attributes
    ----------
    inputs : list of arrays of shape (..., n, n_in)
        x: the network's input, then what the layer before hands on.
    pre_activations : list of arrays of shape (..., n, n_out)
        z.
    outputs : list of arrays of shape (..., n, n_out)
        y; the last are the logits.
    """

    inputs: list[Array]
    pre_activations: list[Array]
    outputs: list[Array]


def forward(
    network: Network,
    parameters: Parameters,
    features: Array,
    arithmetic: Arithmetic,
    masks: Sequence[Array] = (),
) -> Trace:
    """Compute z = x W + b and y = activation(z) for every layer in turn.

    Parameters
    ----------
    network : Network
    parameters : tuple of Layer
        Its weights, like the features, as a rounding point of the arithmetic left them.
    features : array of shape (..., n, n_features)
    arithmetic : Arithmetic
    masks : sequence of arrays of shape (..., n, n_out)
        A factor of every hidden layer's outputs on their way to the next layer (see `mlp_xp.dropout`), or none.

    Returns
    -------
    Trace
        ``trace.outputs[-1]`` holds the logits, of shape (..., n, n_outputs).
    """
    trace = Trace([], [], [])
    x = features
    for i, (layer, activation) in enumerate(zip(parameters, network.activations, strict=True)):
        bias = arithmetic.xp.expand_dims(layer.bias, axis=-2)
        z = arithmetic.matmul(x, layer.weight) + bias
        y = ACTIVATIONS[activation].forward(z, arithmetic)
        trace.inputs.append(x)
        if i < len(parameters) - 1:  # the logits go into no further product and keep all their bits
            x = arithmetic.round_activation(arithmetic.multiply(y, masks[i]) if masks else y)
            y = y if masks else x
        trace.pre_activations.append(z)
        trace.outputs.append(y)
    return trace


def backward(
    network: Network,
    parameters: Parameters,
    trace: Trace,
    gradient: Array,
    arithmetic: Arithmetic,
    masks: Sequence[Array] = (),
) -> Parameters:
    """Carry the loss's gradient from the logits back to every weight and bias.

    With delta = dL/dz of a layer: dL/dW = xᵀ delta, dL/db = the sum of delta over the batch, and dL/dx = delta Wᵀ
    is what the layer before receives as dL/dy, but for its mask.

    Parameters
    ----------
    network : Network
    parameters : tuple of Layer
    trace : Trace
        What `forward` returned for the same parameters.
    gradient : array of shape (..., n, n_outputs)
        The loss's gradient with respect to the logits.
    arithmetic : Arithmetic
    masks : sequence of arrays
        Those that `forward` was given.

    Returns
    -------
    tuple of Layer
        The loss's gradient with respect to every weight and bias, in the shapes of the parameters.
    """
    transpose = arithmetic.xp.matrix_transpose
    gradients: list[Layer] = []
    for i in reversed(range(len(parameters))):
        activation = ACTIVATIONS[network.activations[i]]
        x, z, y = trace.inputs[i], trace.pre_activations[i], trace.outputs[i]
        delta = arithmetic.round_gradient(activation.backward(gradient, z, y, arithmetic))
        gradients.append(Layer(arithmetic.matmul(transpose(x), delta), arithmetic.sum_rounded(delta, axis=-2)))
        if i > 0:  # nobody asks for the gradient of the features
            gradient = arithmetic.matmul(delta, transpose(parameters[i].weight))
            gradient = arithmetic.multiply(gradient, masks[i - 1]) if masks else gradient
    return tuple(reversed(gradients))
