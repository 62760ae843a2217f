"""What was fitted here, as scikit-learn's own estimator, and the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import sklearn.neural_network
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.validation import check_is_fitted

from mlp_xp.estimators.inputs import to_host
from mlp_xp.estimators.labels import Labels

if TYPE_CHECKING:
    from mlp_xp.estimators.multilayer_perceptron import BaseMultilayerPerceptron

ARRAYS = ("coefs_", "intercepts_")
SHARED = (
    "n_features_in_",
    "feature_names_in_",
    "n_layers_",
    "n_outputs_",
    "out_activation_",
    "n_iter_",
    "t_",
    "loss_",
    "best_loss_",
    "loss_curve_",
    "validation_scores_",
    "best_validation_score_",
)
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
    labels: Labels | None = getattr(estimator, "_labels", None)
    if labels is not None:
        there.classes_ = labels.classes
        example = np.eye(len(labels.classes), dtype=int) if labels.is_multilabel else labels.classes
        there._label_binarizer = LabelBinarizer().fit(example)
    return there


def from_sklearn(fitted: Any, kinds: dict[str, type[BaseMultilayerPerceptron]]) -> BaseMultilayerPerceptron:
    """Return this project's estimator of the same name as a fitted one of scikit-learn's.

    Parameters
    ----------
    fitted : sklearn.neural_network.MLPClassifier or MLPRegressor
    kinds : dict
        This project's estimators by name.

    Raises
    ------
    NotFittedError
        If it is not fitted.
    TypeError
        If it is anything else.
    """
    name = type(fitted).__name__
    if name not in kinds or not isinstance(fitted, getattr(sklearn.neural_network, name)):
        raise TypeError(f"a fitted {' or '.join(kinds)} of scikit-learn's is wanted, not a {name}")
    check_is_fitted(fitted)
    here = kinds[name](**fitted.get_params())
    here._validate_params()
    here.validation_loss_curve_ = None
    _copy(fitted, here)
    if hasattr(fitted, "classes_"):
        here._labels = Labels(fitted.classes_, fitted._label_binarizer.y_type_ == "multilabel-indicator")
        here.classes_ = fitted.classes_
    return here


def _copy(source: Any, target: Any) -> None:
    for name in SHARED:
        if hasattr(source, name):
            value = getattr(source, name)
            setattr(target, name, list(value) if isinstance(value, list) else value)
    for name in ARRAYS:
        setattr(target, name, [np.array(to_host(array)) for array in getattr(source, name)])
