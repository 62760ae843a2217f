"""All of a fitted estimator but its tensors as JSON, and back; nothing that comes back is believed unchecked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import is_classifier

from mlp_xp.array_types import Array
from mlp_xp.estimators.labels import Labels
from mlp_xp.estimators.state import require_fitted_layers
from mlp_xp.estimators.state_dict import from_state_dict

if TYPE_CHECKING:
    from mlp_xp.estimators.multilayer_perceptron import BaseMultilayerPerceptron


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_bound(value: Any) -> bool:
    return _is_number(value) and not math.isnan(value)


def _is_curve(value: Any) -> bool:
    return type(value) is list and all(map(_is_number, value))


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


FITTED: dict[str, Callable[[Any], bool]] = {
    "out_activation_": lambda value: type(value) is str,
    "n_iter_": _is_count,
    "t_": _is_count,
    "loss_": _or_none(_is_number),
    "loss_curve_": _is_curve,
    "best_loss_": _or_none(_is_bound),
    "validation_scores_": _or_none(_is_curve),
    "best_validation_score_": _or_none(_is_bound),
    "validation_loss_curve_": _or_none(_is_curve),
    "_no_improvement_count": _is_count,
}
"""Fitted attributes besides tensors, features and labels, and what each must be. ``loss_`` may be missing."""
INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
LABEL_TYPES: dict[str, type] = {
    "bool": bool,
    **dict.fromkeys(INTEGERS, int),
    **dict.fromkeys(("float16", "float32", "float64"), float),
    **dict.fromkeys(("str", "object"), str),
}
"""Types of ``classes_`` that JSON can hold, and the type of a class there."""
KEY_TYPES = (str, int, float, bool)
"""Of the classes that ``class_weight`` has the weights of."""
MOST_BRACKETS = 1 << 18
"""A list that holds nothing takes thirty times the memory of its text; ours are a pair per class with a weight."""
OF_ALL = {"class", "parameters", "fitted", "feature_names"}
OF_CLASSIFIERS = OF_ALL | {"classes", "classes_dtype", "is_multilabel"}


def describe(estimator: BaseMultilayerPerceptron) -> str:
    """Return a fitted estimator's class, parameters, labels and fitted attributes as JSON.

    Callbacks and a random state that is no integer become None.

    Raises
    ------
    TypeError
        If something has no form in JSON; the text names the parameter or attribute.
    """
    parameters = {**estimator.get_params(deep=False), "callbacks": None}
    if not isinstance(parameters["random_state"], Integral):
        parameters["random_state"] = None
    if isinstance(estimator.hidden_layer_sizes, Iterable):
        parameters["hidden_layer_sizes"] = estimator._hidden_sizes()
    if "class_weight" in parameters:
        parameters["class_weight"] = _in_pairs(parameters["class_weight"])
    fitted = {name: getattr(estimator, name, None) for name in FITTED}
    described: dict[str, Any] = {
        "class": type(estimator).__name__,
        "parameters": {name: _as_json(name, value) for name, value in parameters.items()},
        "fitted": {name: _as_json(name, value) for name, value in fitted.items()},
        "feature_names": list(getattr(estimator, "feature_names_in_", [])),
    }
    if is_classifier(estimator):
        labels = estimator._labels
        dtype = "str" if labels.classes.dtype.kind == "U" else labels.classes.dtype.name
        if dtype not in LABEL_TYPES:
            raise TypeError(
                f"classes_ of the type {dtype} cannot be written: it must be one of {', '.join(LABEL_TYPES)}"
            )
        described |= {
            "classes": _as_json("classes_", labels.classes),
            "classes_dtype": dtype,
            "is_multilabel": labels.is_multilabel,
        }
    return json.dumps(described)


def restore(
    text: str, tensors: Mapping[str, Array], kinds: Mapping[str, type[BaseMultilayerPerceptron]]
) -> BaseMultilayerPerceptron:
    """Return the estimator that `describe` described.

    Parameters
    ----------
    text : str
    tensors : mapping of ndarray
        As `mlp_xp.estimators.state_dict.to_state_dict` returns them.
    kinds : mapping
        Name -> class.

    Raises
    ------
    ValueError, TypeError, OverflowError, RecursionError
        If it did not, or the tensors are of another estimator.
    """
    _require(text.count("[") + text.count("{") <= MOST_BRACKETS, f"it has more than {MOST_BRACKETS:,} brackets")
    described = json.loads(text)
    _require(type(described) is dict and type(described.get("class")) is str, "it names no class")
    _require(described["class"] in kinds, f"class is {described['class']!r}, not one of {', '.join(kinds)}")
    kind = kinds[described["class"]]
    wanted = OF_CLASSIFIERS if is_classifier(kind()) else OF_ALL
    _require(described.keys() == wanted, f"it has {sorted(described)}, but {kind.__name__} has {sorted(wanted)}")
    estimator = _restore_settings(kind, described["parameters"])
    fitted = described["fitted"]
    _require(type(fitted) is dict and fitted.keys() == FITTED.keys(), f"fitted must have {sorted(FITTED)}")
    for name, check in FITTED.items():
        _require(check(fitted[name]), f"{name} is {_short(fitted[name])}")
        if name != "loss_" or fitted[name] is not None:
            setattr(estimator, name, fitted[name])
    estimator._remember(from_state_dict(tensors))
    estimator.n_features_in_, estimator.n_outputs_ = len(estimator.coefs_[0]), len(estimator.intercepts_[-1])
    estimator.n_layers_ = len(estimator.coefs_) + 1
    names = described["feature_names"]
    _require(type(names) is list and all(type(name) is str for name in names), "feature_names are no list of names")
    _require(len(names) in (0, estimator.n_features_in_), f"{len(names)} feature_names")
    if names:
        estimator.feature_names_in_ = np.asarray(names, dtype=object)
    n_outputs = estimator.n_outputs_
    if wanted is OF_CLASSIFIERS:
        estimator._labels = _restore_labels(described, len(text))
        estimator.classes_ = estimator._labels.classes
        n_outputs = estimator._labels.n_outputs
    require_fitted_layers(estimator, (estimator.n_features_in_, *estimator._hidden_sizes(), n_outputs))
    return estimator


def _restore_settings(kind: type[BaseMultilayerPerceptron], parameters: Any) -> BaseMultilayerPerceptron:
    _require(type(parameters) is dict, "parameters is no object")
    unknown = sorted(set(parameters) - set(kind().get_params()))
    _require(not unknown, f"{kind.__name__} has no parameters {unknown}")
    for name, value in parameters.items():
        _require(type(value) is not int or _is_number(value), f"{name} is {_short(value)}")
    sizes = parameters.get("hidden_layer_sizes")
    if type(sizes) is list:
        _require(all(map(_is_count, sizes)), f"hidden_layer_sizes is {_short(sizes)}")
        parameters["hidden_layer_sizes"] = tuple(sizes)  # JSON has none
    _require(parameters.get("callbacks") is None, "callbacks are no matter of a file")
    if "class_weight" in parameters:
        parameters["class_weight"] = _from_pairs(parameters["class_weight"])
    estimator = kind(**parameters)
    estimator._validate_params()
    return estimator


def _restore_labels(described: dict[str, Any], n_characters: int) -> Labels:
    classes, dtype, is_multilabel = (described[name] for name in ("classes", "classes_dtype", "is_multilabel"))
    _require(type(dtype) is str and dtype in LABEL_TYPES, f"classes_dtype is {_short(dtype)}")
    of_type = type(classes) is list and all(type(value) is LABEL_TYPES[dtype] for value in classes)
    _require(of_type and len(classes) > 0, f"classes are no list of {dtype}")
    if dtype == "str":  # NumPy gives every string the room of the longest
        room = len(classes) * max(map(len, classes))
        _require(room <= 2**20 + 16 * n_characters, f"classes would take {4 * room} bytes")
    array = np.asarray(classes, dtype=dtype)
    _require(array.dtype.kind != "f" or np.isfinite(array).all(), "classes are not finite")
    _require(np.all(array[:-1] < array[1:]), "classes are not sorted, or twice there")
    _require(type(is_multilabel) is bool, f"is_multilabel is {_short(is_multilabel)}")
    _require(not is_multilabel or classes == [*range(len(classes))], "classes of several labels are not their numbers")
    return Labels(array, is_multilabel)


def _in_pairs(class_weight: Any) -> Any:
    """Return class weights with their dictionaries as lists of pairs: keys in JSON are strings, whatever they were."""
    if isinstance(class_weight, list):
        return [*map(_in_pairs, class_weight)]
    if not isinstance(class_weight, dict):
        return class_weight
    keys = [key.item() if isinstance(key, np.generic) else key for key in class_weight]
    if wrong := [key for key in keys if type(key) not in KEY_TYPES]:
        raise TypeError(
            f"class_weight has the key {wrong[0]!r}: to be written, it must be a string, a number or a bool"
        )
    return {"pairs": [*zip(keys, class_weight.values(), strict=True)]}


def _from_pairs(value: Any) -> Any:
    if value is None or value == "balanced":
        return value
    if type(value) is list:
        _require(all(type(part) is dict for part in value), f"class_weight is {_short(value)}")
        return [*map(_from_pairs, value)]
    _require(type(value) is dict and value.keys() == {"pairs"}, f"class_weight is {_short(value)}")
    weights = {key: weight for key, weight in value["pairs"]}  # noqa: C416 - it shall have pairs
    is_whole = all(type(key) in KEY_TYPES and _is_number(weight) for key, weight in weights.items())
    _require(is_whole and np.isfinite([*weights.values()]).all(), f"class_weight is {_short(value)}")
    return weights


def _as_json(name: str, value: Any) -> Any:
    """Return a value as JSON gives it back; numbers and arrays of NumPy become plain ones."""
    try:
        return json.loads(json.dumps(value, default=lambda array: array.tolist()))
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise TypeError(f"{name}={value!r} cannot be written: it is not of numbers, strings and lists") from error


def _require(is_so: Any, text: str) -> None:
    if not is_so:
        raise ValueError(text)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 80 else f"{text[:80]}…"
