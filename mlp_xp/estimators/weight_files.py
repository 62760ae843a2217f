"""Fitted estimators in a safetensors file: no pickle, so that a stranger's file can run nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sklearn.utils.validation import check_is_fitted

from mlp_xp.errors import DataError
from mlp_xp.estimators.description import describe, restore
from mlp_xp.estimators.inputs import to_host
from mlp_xp.estimators.state_dict import to_state_dict
from mlp_xp.files import write_output
from mlp_xp.tensor_files import header_length, read_tensor_file, tensor_bytes

if TYPE_CHECKING:
    from mlp_xp.estimators.multilayer_perceptron import BaseMultilayerPerceptron

MOST_OF_A_HEADER = 1 << 22
"""Bytes of the file's header, the description in it: 150,000 names of features, or 200,000 epochs' losses. To parse any
other takes some ten times as much memory, before what is in it could be looked at."""
KEY = "mlp_xp.neural_network"
"""Of the file's metadata: what `mlp_xp.estimators.description.describe` returns."""
NOT_OURS = (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError)
"""What a description raises that is none, or not of these tensors."""


def save(
    estimator: BaseMultilayerPerceptron, path: Path | str, kinds: Mapping[str, type[BaseMultilayerPerceptron]]
) -> None:
    """Write a fitted estimator: its tensors under PyTorch's names, everything else in the file's metadata.

    Callbacks, the random state (but an integer), and the optimiser's state, which only a next `partial_fit` would
    need, are not kept.

    Raises
    ------
    NotFittedError
        If it is not fitted.
    TypeError
        If it is no estimator of this project's, or a parameter or ``classes_`` has no form in a file.
    ValueError
        If its parameters no longer fit what was fitted, or that is not finite, or all but the tensors takes more than
        `MOST_OF_A_HEADER` bytes: `load` would refuse it.
    OSError
        If the file cannot be written; an old one is then still whole.
    """
    if kinds.get(type(estimator).__name__) is not type(estimator):
        name = f"{type(estimator).__module__}.{type(estimator).__name__}"
        raise TypeError(f"{' or '.join(kinds)} of mlp_xp.neural_network is wanted, not {name}")
    check_is_fitted(estimator)
    described = describe(estimator)
    tensors = {name: to_host(array) for name, array in to_state_dict(estimator).items()}
    try:
        restore(described, tensors, kinds)
    except NOT_OURS as error:
        raise ValueError(f"{path}: not written, as it could not be read again: {error}") from error
    content = tensor_bytes(tensors, {KEY: described})
    if (size := header_length(content)) > MOST_OF_A_HEADER:
        raise ValueError(f"{path}: not written: all but the tensors takes {size:,} bytes, at most {MOST_OF_A_HEADER:,}")
    write_output(Path(path), content)


def load(path: Path | str, kinds: Mapping[str, type[BaseMultilayerPerceptron]]) -> BaseMultilayerPerceptron:
    """Return the estimator of a file that `save` wrote; it is on the host.

    Raises
    ------
    DataError
        If the file is missing, damaged, or holds no estimator.
    """
    try:
        tensors, metadata = read_tensor_file(Path(path), MOST_OF_A_HEADER)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as safetensors: {error}") from error
    try:
        return restore(metadata[KEY], tensors, kinds)
    except NOT_OURS as error:
        raise DataError(
            f"{path}: holds no estimator that `mlp_xp.neural_network.save` wrote ({type(error).__name__}: {error})"
        ) from error
