"""Fitted estimators in a safetensors file: no pickle, so that a stranger's file can run nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors
import safetensors.numpy
from sklearn.utils.validation import check_is_fitted

from mlp_xp.errors import DataError
from mlp_xp.estimators.description import describe, restore
from mlp_xp.estimators.inputs import to_host
from mlp_xp.estimators.state_dict import to_state_dict
from mlp_xp.files import write_atomically
from mlp_xp.reading import open_regular

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
    tensors = {name: np.array(to_host(array), order="C") for name, array in to_state_dict(estimator).items()}
    try:
        restore(described, tensors, kinds)
    except NOT_OURS as error:
        raise ValueError(f"{path}: not written, as it could not be read again: {error}") from error
    content = safetensors.numpy.save(tensors, metadata={KEY: described})
    if (size := int.from_bytes(content[:8], "little")) > MOST_OF_A_HEADER:
        raise ValueError(f"{path}: not written: all but the tensors takes {size:,} bytes, at most {MOST_OF_A_HEADER:,}")
    write_atomically(Path(path), content)


def load(path: Path | str, kinds: Mapping[str, type[BaseMultilayerPerceptron]]) -> BaseMultilayerPerceptron:
    """Return the estimator of a file that `save` wrote; it is on the host.

    Raises
    ------
    DataError
        If the file is missing, damaged, or holds no estimator.
    """
    try:
        _check_header(Path(path))
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, safetensors.SafetensorError, *NOT_OURS) as error:
        raise DataError(f"{path}: cannot be read as safetensors: {error}") from error
    try:
        return restore(metadata[KEY], tensors, kinds)
    except NOT_OURS as error:
        raise DataError(
            f"{path}: holds no estimator that `mlp_xp.neural_network.save` wrote ({type(error).__name__}: {error})"
        ) from error


def _check_header(path: Path) -> None:
    """Refuse what is no regular file, and a header that is too long or not all there, before it is parsed."""
    with open_regular(path) as file:
        size = int.from_bytes(file.read(8), "little")
        there = os.fstat(file.fileno()).st_size - 8
    if not 0 < size <= min(there, MOST_OF_A_HEADER):
        limits = f"the {max(there, 0):,} that follow and the {MOST_OF_A_HEADER:,} that are believed"
        raise ValueError(f"its header of {size:,} bytes is not within {limits}")
