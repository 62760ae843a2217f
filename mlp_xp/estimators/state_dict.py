"""The parameters of an estimator as PyTorch's ``state_dict``, and the other way round."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from mlp_xp.array_types import Array
from mlp_xp.estimators.inputs import to_host
from mlp_xp.namespaces import backend_of
from mlp_xp.network import Layer, NormalizedLayer, Parameters, map_parameters

if TYPE_CHECKING:
    from mlp_xp.estimators.multilayer_perceptron import BaseMultilayerPerceptron

DENSE, UNBIASED = {"weight", "bias"}, {"weight"}
BATCH_NORM = {"weight", "bias", "running_mean", "running_var"}
COUNTER = "num_batches_tracked"
"""What PyTorch's batch normalisation has besides, and computes nothing from."""


def to_state_dict(estimator: BaseMultilayerPerceptron) -> dict[str, Array]:
    """Return the parameters as ``torch.nn.Sequential(Linear, activation, Linear, …)`` names and shapes them.

    With ``batch_norm``, as ``Sequential(Linear(bias=False), BatchNorm1d, activation, …)`` does. With ``residual``
    the names are the same, but no ``Sequential`` adds what is to be added: the module must be the user's own.

    Returns
    -------
    dict of arrays
        "0.weight" of shape (n_out, n_in), "0.bias" of shape (n_out,), "2.weight", …; of the estimator's library.

    Raises
    ------
    NotFittedError
        If it is not fitted.
    """
    check_is_fitted(estimator)
    xp = backend_of(estimator.coefs_[0]).xp
    state, number = {}, 0
    for layer in estimator._parameters:
        flat = xp.reshape(xp.matrix_transpose(layer.weight), (-1,))  # files want the numbers in this order in memory
        state[f"{number}.weight"] = xp.reshape(flat, layer.weight.shape[::-1])
        if isinstance(layer, NormalizedLayer):
            number += 1
            state[f"{number}.weight"] = layer.scale
            state[f"{number}.running_mean"], state[f"{number}.running_var"] = layer.mean, layer.variance
        state[f"{number}.bias"] = layer.bias
        number += 2
    return state


def from_state_dict(state: Mapping[str, Array]) -> Parameters:
    """Return copies of the parameters in a ``state_dict``, in its library and type.

    Raises
    ------
    ValueError
        If it is not one of fully connected layers that fit together, each perhaps with batch normalisation after it but
        the last, or its numbers are not finite, or of another type than float32 or float64, or of both.
    """
    tensors = {key: array for key, array in state.items() if not re.fullmatch(rf"\d+\.{COUNTER}", key)}
    modules: dict[int, set[str]] = {}
    for key in tensors:
        place, _, name = key.partition(".")
        modules.setdefault(int(place) if re.fullmatch(r"\d+", place) else -1, set()).add(name)
    numbers = sorted(modules)
    kinds = [modules[number] for number in numbers]
    are_known = all(kind in (DENSE, UNBIASED, BATCH_NORM) for kind in kinds)
    have_bias = all(modules.get(number + 1) == BATCH_NORM for number in numbers if modules[number] == UNBIASED)
    if not (kinds and are_known and have_bias) or -1 in numbers:
        raise ValueError(
            f"the state_dict has {', '.join(state) or 'nothing'}: it must have a weight and a bias of every layer, "
            "named as torch.nn.Sequential names them: 0.weight, 0.bias, 2.weight, …; after a layer, perhaps, the "
            "weight, bias, running_mean and running_var of batch normalisation"
        )
    backend = backend_of(next(iter(tensors.values())))
    hosts = _checked(tensors)
    layers: list[Layer | NormalizedLayer] = []
    n_in: int | None = None
    while numbers:
        number = numbers.pop(0)
        weight = hosts[f"{number}.weight"]
        parts = [hosts[f"{number}.{name}"] for name in ("bias",) if name in modules[number]]
        if modules.get(number + 1) == BATCH_NORM:  # not after the activation: that is another network
            last = numbers.pop(0)
            parts += [hosts[f"{last}.{name}"] for name in ("bias", "weight", "running_mean", "running_var")]
        is_layer = weight.ndim == 2 and weight.size > 0 and all(part.shape == weight.shape[:1] for part in parts)
        if not is_layer or weight.shape[1] != (n_in or weight.shape[1]):
            shapes = " and ".join(str(part.shape) for part in parts)
            raise ValueError(
                f"{number}.weight has the shape {weight.shape} and what goes with it {shapes}: they must be "
                f"(n_out, {n_in or 'n_in'}) and (n_out,)"
            )
        n_in = weight.shape[0]
        layers.append(_layer(weight.T.copy(), parts))
    if isinstance(layers[-1], NormalizedLayer):
        raise ValueError("the state_dict has batch normalisation after its last layer: no estimator has it there")
    if len({type(layer) for layer in layers[:-1]}) > 1:
        raise ValueError(
            "the state_dict has batch normalisation after some layers alone: an estimator has it after all"
        )
    return map_parameters(lambda host: backend.asarray(host.copy()), tuple(layers))


def _layer(weight: Any, parts: list[Any]) -> Layer | NormalizedLayer:
    """Return a layer of a weight, (n_in, n_out), perhaps a bias, and perhaps β, γ, mean and variance."""
    if len(parts) < 4:
        return Layer(weight, *parts)
    *biases, beta, gamma, mean, variance = parts
    for bias in biases:  # of what is normalised: it moves the mean alone
        mean = mean - bias
    return NormalizedLayer(weight, beta, gamma, mean, variance)


def _checked(tensors: Mapping[str, Array]) -> dict[str, Any]:
    """Return all on the host, if they are finite and of one floating type."""
    for key, array in tensors.items():
        xp = backend_of(array).xp
        if array.dtype not in (xp.float32, xp.float64):
            raise ValueError(f"{key} is of the type {array.dtype}: convert it to float32 or float64 first")
    hosts = {key: np.asarray(to_host(array)) for key, array in tensors.items()}
    if wrong := [key for key, host in hosts.items() if not np.isfinite(host).all()]:
        raise ValueError(f"{wrong[0]} has numbers that are not finite")
    if wrong := [key for key, host in hosts.items() if key.endswith(".running_var") and host.min(initial=0.0) < 0.0]:
        raise ValueError(f"{wrong[0]} has numbers below 0")
    if len({host.dtype for host in hosts.values()}) > 1:
        raise ValueError(
            "some of the state_dict's numbers are float32 and some float64: convert them to one type first"
        )
    return hosts
