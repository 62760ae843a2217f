"""Fitted estimators in a safetensors file: no pickle, so that a stranger's file can run nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy
from sklearn.utils.validation import check_is_fitted

from mlp_xp.errors import DataError
from mlp_xp.estimators.exchange import SHARED, from_state_dict, to_state_dict
from mlp_xp.estimators.inputs import to_host
from mlp_xp.estimators.labels import Labels
from mlp_xp.files import write_atomically

if TYPE_CHECKING:
    from mlp_xp.estimators.multilayer_perceptron import BaseMultilayerPerceptron

KEY = "mlp_xp.neural_network"
"""Of the file's metadata: the estimator's class, parameters, classes and other fitted attributes, as JSON."""
NUMBERS = tuple(
    name for name in SHARED if name not in ("n_features_in_", "n_layers_", "n_outputs_", "feature_names_in_")
)


def save(estimator: BaseMultilayerPerceptron, path: Path | str) -> None:
    """Write a fitted estimator: its tensors under PyTorch's names, everything else in the file's metadata.

    Callbacks, the random state (but an integer), and what only a next `partial_fit` would need are not kept.

    Raises
    ------
    NotFittedError
        If it is not fitted.
    OSError
        If the file cannot be written; an old one is then still whole.
    """
    check_is_fitted(estimator)
    parameters = {**estimator.get_params(), "callbacks": None}
    if not isinstance(parameters["random_state"], int):
        parameters["random_state"] = None
    described: dict[str, Any] = {
        "class": type(estimator).__name__,
        "parameters": parameters,
        "fitted": {name: getattr(estimator, name) for name in NUMBERS if hasattr(estimator, name)},
        "feature_names": list(getattr(estimator, "feature_names_in_", [])),
    }
    labels: Labels | None = getattr(estimator, "_labels", None)
    if labels is not None:
        described |= {"classes": labels.classes.tolist(), "is_multilabel": labels.is_multilabel}
        described["classes_dtype"] = labels.classes.dtype.str
    metadata = {KEY: json.dumps(described, default=_plain)}
    tensors = {name: np.array(to_host(array), order="C") for name, array in to_state_dict(estimator).items()}
    write_atomically(Path(path), safetensors.numpy.save(tensors, metadata=metadata))


def load(path: Path | str, kinds: Mapping[str, type[BaseMultilayerPerceptron]]) -> BaseMultilayerPerceptron:
    """Return the estimator of a file that `save` wrote; it is on the host.

    Raises
    ------
    DataError
        If the file is missing, damaged, or holds no estimator.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, safetensors.SafetensorError, AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read as safetensors: {error}") from error
    try:
        described = json.loads(metadata[KEY])
        parameters = described["parameters"]
        if isinstance(sizes := parameters.get("hidden_layer_sizes"), list):  # JSON has no tuples
            parameters["hidden_layer_sizes"] = tuple(sizes)
        estimator = kinds[described["class"]](**parameters)
        estimator._validate_params()
        estimator.coefs_, estimator.intercepts_ = from_state_dict(tensors)
        for name in NUMBERS:
            if name in described["fitted"]:
                setattr(estimator, name, described["fitted"][name])
        shapes = [weight.shape for weight in estimator.coefs_]
        estimator.n_features_in_, estimator.n_outputs_ = shapes[0][0], shapes[-1][1]
        estimator.n_layers_ = len(shapes) + 1
        estimator.validation_loss_curve_ = None
        if described["feature_names"]:
            estimator.feature_names_in_ = np.asarray(described["feature_names"], dtype=object)
        if "classes" in described:
            classes = np.asarray(described["classes"], dtype=described["classes_dtype"])
            estimator._labels = Labels(classes, described["is_multilabel"])
            estimator.classes_ = classes
            if estimator._labels.n_outputs != estimator.n_outputs_:
                raise ValueError(f"{len(classes)} classes do not fit {estimator.n_outputs_} outputs")
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path}: holds no estimator that `mlp_xp.neural_network.save` wrote ({type(error).__name__}: {error})"
        ) from error
    return estimator


def _plain(value: Any) -> Any:
    """Return a NumPy number or array as JSON can hold it."""
    return value.tolist()
