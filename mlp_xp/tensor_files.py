"""Safetensors files (https://github.com/huggingface/safetensors): no pickle, so that a stranger's can run nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy

from mlp_xp.reading import open_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE_OF_LENGTH = 8
"""Bytes at a file's beginning that say how long its header is, the lowest first."""


def tensor_bytes(tensors: Mapping[str, NDArray[Any]], metadata: dict[str, str] | None = None) -> bytes:
    """Return the content of a file with these tensors."""
    # A strided array would be written wrongly, without a word.
    contiguous = {name: np.array(tensor, order="C") for name, tensor in tensors.items()}
    content: bytes = safetensors.numpy.save(contiguous, metadata)
    return content


def header_length(content: bytes) -> int:
    """Return the bytes of the header (names, types, shapes and metadata) of a file, given how the file begins."""
    return int.from_bytes(content[:SIZE_OF_LENGTH], "little")


def read_tensor_file(path: Path, most_of_a_header: int) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the tensors of a file, and its metadata.

    Parameters
    ----------
    path : path
    most_of_a_header : int
        Bytes. To parse a header takes much more memory than it has itself.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it is none, or of tensors that NumPy does not have.
    """
    with open_regular(path) as file:
        length = header_length(file.read(SIZE_OF_LENGTH))
        there = max(0, os.fstat(file.fileno()).st_size - SIZE_OF_LENGTH)
    if not 0 < length <= min(there, most_of_a_header):
        limits = f"the {there:,} that follow and the {most_of_a_header:,} that are believed"
        raise ValueError(f"its header of {length:,} bytes is not within {limits}")
    try:
        with safetensors.safe_open(path, framework="numpy") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no mapping
            return tensors, opened.metadata() or {}
    except (safetensors.SafetensorError, AttributeError, KeyError, TypeError) as error:
        # The last three are what versions of safetensors raise for a type that NumPy does not have.
        raise ValueError(str(error)) from error
