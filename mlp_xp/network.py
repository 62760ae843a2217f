"""A multilayer perceptron: its layers, its forward pass and, right below it, its backward pass.

Shapes: a batch has ``n`` rows, a layer ``n_in`` inputs and ``n_out`` outputs. All arrays may carry further
leading axes (many networks side by side); everything here acts on the last one or two axes alone.

The backward pass is the chain rule applied from the last layer to the first (Rumelhart, Hinton and Williams,
"Learning representations by back-propagating errors", Nature 323, 1986).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from mlp_xp.activations import ACTIVATIONS
from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array
from mlp_xp.batch_norm import Normalized, batch_norm_backward, normalize_batch, normalize_by, scale_and_shift, track


class Layer(NamedTuple):
    """The parameters of a dense layer, or anything of their shapes: gradients, velocities, moments.

    Attributes
    ----------
    weight : array of shape (..., n_in, n_out)
    bias : array of shape (..., n_out)
    """

    weight: Array
    bias: Array


class NormalizedLayer(NamedTuple):
    """The parameters of a dense layer whose pre-activations are normalised over the batch (`mlp_xp.batch_norm`).

    Attributes
    ----------
    weight : array of shape (..., n_in, n_out)
    bias, scale : arrays of shape (..., n_out)
        z = scale × normalised (x W) + bias.
    mean, variance : arrays of shape (..., n_out)
        Of x W, running from batch to batch, for rows that nothing is learnt from. They are not learnt: their gradient
        is 0, so that no optimiser moves them.
    """

    weight: Array
    bias: Array
    scale: Array
    mean: Array
    variance: Array


Parameters: TypeAlias = tuple[Layer | NormalizedLayer, ...]


def map_parameters(function: Callable[..., Array], *parameters: Parameters) -> Parameters:
    """Apply ``function`` to every array of one or several sets of parameters."""
    return tuple(type(layers[0])(*map(function, *layers)) for layers in zip(*parameters, strict=True))


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
    residual : bool
        Whether a hidden layer that has as many units as inputs adds its inputs to what it hands on (He, Zhang, Ren and
        Sun, "Deep residual learning for image recognition", CVPR 2016, equation 1, with one layer a block).
    batch_norm : bool
        Whether the hidden layers are `NormalizedLayer`.
    """

    layer_sizes: tuple[int, ...]
    activation: str = "relu"
    residual: bool = False
    batch_norm: bool = False

    @property
    def activations(self) -> tuple[str, ...]:
        """Name of each layer's activation, the first hidden layer's first."""
        return (self.activation,) * (len(self.layer_sizes) - 2) + ("identity",)

    @property
    def shortcuts(self) -> tuple[bool, ...]:
        """Of each layer, whether it adds its inputs to what it hands on; the last one never does."""
        *hidden, _ = pairwise(self.layer_sizes)
        return (*(self.residual and n_in == n_out for n_in, n_out in hidden), False)

    def first_layers(self, n_hidden: int) -> Network:
        """Return the network of the first hidden layers, with a last layer of its own."""
        return replace(self, layer_sizes=(*self.layer_sizes[: n_hidden + 1], self.layer_sizes[-1]))


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
    normalized : list of Normalized or None
        What batch normalisation made of x W; None where there is none.
    """

    inputs: list[Array]
    pre_activations: list[Array]
    outputs: list[Array]
    normalized: list[Normalized | None]


def forward(
    network: Network,
    parameters: Parameters,
    features: Array,
    arithmetic: Arithmetic,
    masks: Sequence[Array] = (),
    shares: Array | None = None,
    *,
    is_training: bool = False,
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
    shares : array of shape (..., n), optional
        Every row's part of the batch's mean; by default 1/n each. Of a consequence with batch normalisation alone.
    is_training : bool
        Whether batch normalisation is over these rows, and not by the running means and variances.

    Returns
    -------
    Trace
        ``trace.outputs[-1]`` holds the logits, of shape (..., n, n_outputs).
    """
    trace = Trace([], [], [], [])
    x = features
    for i, (layer, activation) in enumerate(zip(parameters, network.activations, strict=True)):
        z, normalized = _pre_activations(x, layer, shares, arithmetic, is_training=is_training)
        y = ACTIVATIONS[activation].forward(z, arithmetic)
        trace.inputs.append(x)
        if i < len(parameters) - 1:  # the logits go into no further product and keep all their bits
            handed_on = arithmetic.multiply(y, masks[i]) if masks else y
            x = arithmetic.round_activation(x + handed_on if network.shortcuts[i] else handed_on)
            y = y if masks or network.shortcuts[i] else x
        trace.pre_activations.append(z)
        trace.outputs.append(y)
        trace.normalized.append(normalized)
    return trace


def backward(
    network: Network,
    parameters: Parameters,
    trace: Trace,
    gradient: Array,
    arithmetic: Arithmetic,
    masks: Sequence[Array] = (),
    shares: Array | None = None,
    n_frozen: int = 0,
) -> Parameters:
    """Carry the loss's gradient from the logits back to every weight and bias.

    With delta = dL/dz of a layer: dL/dW = xᵀ delta, dL/db = the sum of delta over the batch, and dL/dx = delta Wᵀ
    is what the layer before receives as dL/dy, but for its mask. A layer that adds its inputs to what it hands on
    hands back what it receives, too. Batch normalisation stands between z and x W: `batch_norm_backward`.

    Parameters
    ----------
    network : Network
    parameters : tuple of Layer
    trace : Trace
        What `forward` returned for the same parameters.
    gradient : array of shape (..., n, n_outputs)
        The loss's gradient with respect to the logits.
    arithmetic : Arithmetic
    masks, shares
        Those that `forward` was given.
    n_frozen : int
        How many of the first layers are not learnt.

    Returns
    -------
    tuple of Layer
        The loss's gradient with respect to every weight and bias, in the shapes of the parameters, but for the frozen
        layers'.
    """
    transpose = arithmetic.xp.matrix_transpose
    gradients: list[Layer | NormalizedLayer] = []
    for i in reversed(range(n_frozen, len(parameters))):
        layer, activation = parameters[i], ACTIVATIONS[network.activations[i]]
        x, z, y, normalized = trace.inputs[i], trace.pre_activations[i], trace.outputs[i], trace.normalized[i]
        is_hidden = i < len(parameters) - 1
        received = arithmetic.multiply(gradient, masks[i]) if masks and is_hidden else gradient
        delta = arithmetic.round_gradient(activation.backward(received, z, y, arithmetic))
        if isinstance(layer, NormalizedLayer) and normalized is not None:
            delta, scale, bias = batch_norm_backward(delta, normalized, layer.scale, shares, arithmetic)
            delta, zeros = arithmetic.round_gradient(delta), arithmetic.xp.zeros_like(bias)
            weight = arithmetic.matmul(transpose(x), delta)
            gradients.append(NormalizedLayer(weight, bias, scale, zeros, zeros))
        else:
            gradients.append(Layer(arithmetic.matmul(transpose(x), delta), arithmetic.sum_rounded(delta, axis=-2)))
        if i > n_frozen:  # nobody asks for the gradient of the features
            through = arithmetic.matmul(delta, transpose(layer.weight))
            gradient = through + gradient if network.shortcuts[i] else through
    return tuple(reversed(gradients))


def track_statistics(parameters: Parameters, trace: Trace, shares: Array | None, arithmetic: Arithmetic) -> Parameters:
    """Return the parameters with the running means and variances as a batch in training leaves them."""

    def after_batch(layer: Layer | NormalizedLayer, batch: Normalized | None) -> Layer | NormalizedLayer:
        if batch is None or not isinstance(layer, NormalizedLayer):
            return layer
        mean, variance = track(layer.mean, layer.variance, batch, shares, arithmetic)
        return layer._replace(mean=mean, variance=variance)

    return tuple(map(after_batch, parameters, trace.normalized))


def _pre_activations(
    x: Array, layer: Layer | NormalizedLayer, shares: Array | None, arithmetic: Arithmetic, *, is_training: bool
) -> tuple[Array, Normalized | None]:
    """Return z of shape (..., n, n_out), and what batch normalisation made of x W on the way, if it was over x."""
    z = arithmetic.matmul(x, layer.weight)
    if not isinstance(layer, NormalizedLayer):
        return z + arithmetic.xp.expand_dims(layer.bias, axis=-2), None
    if not is_training:
        values = normalize_by(z, layer.mean, layer.variance, arithmetic)
        return scale_and_shift(values, layer.scale, layer.bias, arithmetic), None
    normalized = normalize_batch(z, shares, arithmetic)
    return scale_and_shift(normalized.values, layer.scale, layer.bias, arithmetic), normalized
