"""What was fitted here as scikit-learn's own estimator, and the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn.neural_network
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.validation import check_is_fitted

from mlp_xp.estimators.inputs import to_host
from mlp_xp.estimators.labels import Labels
from mlp_xp.estimators.state import HISTORY, complete

if TYPE_CHECKING:
    from mlp_xp.estimators.multilayer_perceptron import BaseMultilayerPerceptron

SHARED = ("n_features_in_", "feature_names_in_", "n_layers_", "n_outputs_", "out_activation_", *HISTORY)
"""Fitted attributes that are the same here and there, besides arrays and labels."""


def to_sklearn(estimator: BaseMultilayerPerceptron) -> Any:
    """Return scikit-learn's estimator of the same name, fitted alike, on the host.

    Raises
    ------
    ValueError
        If scikit-learn has no such activation, no shortcuts or no batch normalisation.
    """
    check_is_fitted(estimator)
    for name, is_there in (("residual", estimator.residual), ("batch_norm", estimator.batch_norm or estimator.scales_)):
        if is_there:
            raise ValueError(f"{name}=True: scikit-learn has nothing of the kind that could predict the same")
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


def _copy(source: Any, target: Any) -> None:
    for name in SHARED:
        if hasattr(source, name):
            value = getattr(source, name)
            setattr(target, name, list(value) if isinstance(value, list) else value)
    for name in ("coefs_", "intercepts_"):
        setattr(target, name, [np.array(to_host(array)) for array in getattr(source, name)])
