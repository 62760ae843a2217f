"""What was fitted here as scikit-learn's own estimator or PyTorch's ``state_dict``, and the other way round."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn.neural_network
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.validation import check_is_fitted

from mlp_xp.array_types import Array
from mlp_xp.estimators.inputs import to_host
from mlp_xp.estimators.labels import Labels
from mlp_xp.estimators.state import HISTORY, complete
from mlp_xp.namespaces import backend_of

if TYPE_CHECKING:
    from mlp_xp.estimators.multilayer_perceptron import BaseMultilayerPerceptron

SHARED = ("n_features_in_", "feature_names_in_", "n_layers_", "n_outputs_", "out_activation_", *HISTORY)
"""Fitted attributes that are the same here and there, besides arrays and labels."""


def to_sklearn(estimator: BaseMultilayerPerceptron) -> Any:
    """Return scikit-learn's estimator of the same name, fitted alike, on the host.

    Raises
    ------
    ValueError
        If scikit-learn has no such activation.
    """
    check_is_fitted(estimator)
    there = getattr(sklearn.neural_network, type(estimator).__name__)()
    parameters = {name: value for name, value in estimator.get_params().items() if name in there.get_params()}
    if parameters["activation"] == "sigmoid":
        parameters["activation"] = "logistic"
    known = ("identity", "logistic", "tanh", "relu")
    if parameters["activation"] not in known:
        raise ValueError(
            f"activation={parameters['activation']!r}: scikit-learn has {', '.join(known)} alone; nothing else of its "
            "own could predict what this estimator predicts"
        )
    there.set_params(**parameters)
    _copy(estimator, there)
    # Those of its best epoch so far; it writes to its arrays.
    there._best_coefs, there._best_intercepts = (
        [*map(np.copy, arrays)] for arrays in (there.coefs_, there.intercepts_)
    )
    labels: Labels | None = getattr(estimator, "_labels", None)
    if labels is not None:
        there.classes_ = labels.classes
        example = np.eye(len(labels.classes), dtype=int) if labels.is_multilabel else labels.classes
        there._label_binarizer = LabelBinarizer().fit(example)
    return there


def from_sklearn(fitted: Any, kinds: dict[str, type[BaseMultilayerPerceptron]]) -> BaseMultilayerPerceptron:
    """Do what `mlp_xp.neural_network.from_sklearn` says; ``kinds`` are this project's estimators by name."""
    name = type(fitted).__name__
    if name not in kinds or not isinstance(fitted, getattr(sklearn.neural_network, name)):
        found = f"{type(fitted).__module__}.{name}"
        raise TypeError(f"a fitted {' or '.join(kinds)} of scikit-learn's is wanted, not {found}")
    check_is_fitted(fitted)
    here = kinds[name](**fitted.get_params())
    here._validate_params()
    _copy(fitted, here)
    complete(here)
    if hasattr(fitted, "classes_"):
        here._labels = Labels(fitted.classes_, fitted._label_binarizer.y_type_ == "multilabel-indicator")
        here.classes_ = fitted.classes_
    return here


def to_state_dict(estimator: BaseMultilayerPerceptron) -> dict[str, Array]:
    """Return the parameters as ``torch.nn.Sequential(Linear, activation, Linear, …)`` names and shapes them.

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
    state = {}
    for i, (weight, bias) in enumerate(zip(estimator.coefs_, estimator.intercepts_, strict=True)):
        flat = xp.reshape(xp.matrix_transpose(weight), (-1,))  # files want the numbers in this order in memory, too
        state[f"{2 * i}.weight"] = xp.reshape(flat, weight.shape[::-1])
        state[f"{2 * i}.bias"] = bias
    return state


def from_state_dict(state: Mapping[str, Array]) -> tuple[list[Array], list[Array]]:
    """Return copies of the weights, of shape (n_in, n_out), and biases of a ``state_dict``, in its library and type.

    Raises
    ------
    ValueError
        If it is not one of fully connected layers that fit together, or its numbers are not finite, or of another type
        than float32 or float64, or of both.
    """
    numbers = sorted({int(found[1]) for key in state if (found := re.fullmatch(r"(\d+)\.(weight|bias)", key))})
    wanted = [f"{number}.{kind}" for number in numbers for kind in ("weight", "bias")]
    if not numbers or sorted(wanted) != sorted(state):
        raise ValueError(
            f"the state_dict has {', '.join(state) or 'nothing'}: it must have a weight and a bias of every layer, "
            "named as torch.nn.Sequential names them: 0.weight, 0.bias, 2.weight, …"
        )
    backend = backend_of(state[wanted[0]])
    for key in wanted:
        xp = backend_of(state[key]).xp
        if state[key].dtype not in (xp.float32, xp.float64):
            raise ValueError(f"{key} is of the type {state[key].dtype}: convert it to float32 or float64 first")
    hosts = {key: np.asarray(to_host(state[key])) for key in wanted}
    if wrong := [key for key in wanted if not np.isfinite(hosts[key]).all()]:
        raise ValueError(f"{wrong[0]} has numbers that are not finite")
    if len({host.dtype for host in hosts.values()}) > 1:
        raise ValueError(
            "some of the state_dict's numbers are float32 and some float64: convert them to one type first"
        )
    weights, biases = ([hosts[f"{number}.{kind}"] for number in numbers] for kind in ("weight", "bias"))
    n_in: int | None = None
    for number, weight, bias in zip(numbers, weights, biases, strict=True):
        is_layer = weight.ndim == 2 and weight.size > 0 and bias.shape == weight.shape[:1]
        if not is_layer or weight.shape[1] != (n_in or weight.shape[1]):
            raise ValueError(
                f"{number}.weight has the shape {weight.shape} and {number}.bias {bias.shape}: they must be "
                f"(n_out, {n_in or 'n_in'}) and (n_out,)"
            )
        n_in = weight.shape[0]
    return [backend.asarray(weight.T.copy()) for weight in weights], [backend.asarray(bias.copy()) for bias in biases]


def _copy(source: Any, target: Any) -> None:
    for name in SHARED:
        if hasattr(source, name):
            value = getattr(source, name)
            setattr(target, name, list(value) if isinstance(value, list) else value)
    for name in ("coefs_", "intercepts_"):
        setattr(target, name, [np.array(to_host(array)) for array in getattr(source, name)])
