"""SHA-256 digests of a training: a chain in which every epoch's link covers the one before.

The digest of a number is that of its bits in little-endian order, zeros without sign; so equal digests mean equal
bits, on whatever machine they were computed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlp_xp.checkpoint import LAYERS, OPTIMIZER, select
from mlp_xp.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import NDArray


ADDED = ("dropout", "max_gradient_norm", "residual", "batch_norm", "pretrain", "pretrain_epochs")
"""Settings that came after the first recorded runs."""


class Digests(NamedTuple):
    """Digests of an epoch, in hexadecimal.

    Attributes
    ----------
    losses : str
        Of the batches' losses.
    layers, optimizer : str
        Of the parameters and of the optimiser's state after the epoch.
    chain : str
        Of all these, of the epoch's numbers, and of the chain up to the epoch before.
    """

    losses: str
    layers: str
    optimizer: str
    chain: str


def digest_arrays(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the digest of named arrays: of names, types, shapes and values."""
    sha = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        with np.errstate(invalid="ignore"):  # a stranger's file may hold NaN of the kind that is reported
            unsigned = array + array.dtype.type(0)  # takes the sign from a zero
        canonical = np.asarray(unsigned, dtype=array.dtype.newbyteorder("<"), order="C")
        sha.update(_canonical([name, canonical.dtype.str, canonical.shape]))
        sha.update(canonical.data)
    return sha.hexdigest()


def first_link(settings: Settings, sha256_train: str, sha256_test: str) -> str:
    """Return the link before the first epoch: of the settings, but for how many epochs they ask, and the data.

    Settings that the first version did not have count where they are not their default: its runs stay as they are.
    """
    values = {name: value for name, value in settings.to_dict().items() if name != "epochs"}
    for name in ADDED:
        if values[name] == getattr(Settings, name):
            del values[name]
    return hashlib.sha256(_canonical([values, sha256_train, sha256_test])).hexdigest()


def link(
    previous: str,
    numbers: Mapping[str, Any],
    step_losses: NDArray[np.float64],
    tensors: Mapping[str, NDArray[Any]],
) -> Digests:
    """Return an epoch's digests.

    Parameters
    ----------
    previous : str
        The chain up to the epoch before.
    numbers : mapping
        The epoch's number, losses and accuracy, under the names that ``curve.jsonl`` has for them.
    step_losses : ndarray of shape (n_steps,)
    tensors : mapping of ndarray
        As `mlp_xp.checkpoint.host_tensors` gives them.
    """
    losses = digest_arrays({"losses": step_losses})
    layers, optimizer = (digest_arrays(select(tensors, part)) for part in (LAYERS, OPTIMIZER))
    return Digests(losses, layers, optimizer, chain(previous, numbers, (losses, layers, optimizer)))


def chain(previous: str, numbers: Mapping[str, Any], parts: Sequence[str]) -> str:
    """Return the chain's next link, from the link before, the epoch's numbers and its other digests."""
    unsigned = {name: value + 0.0 if isinstance(value, float) else value for name, value in numbers.items()}
    return hashlib.sha256(_canonical([previous, unsigned, *parts])).hexdigest()


def _canonical(value: Any) -> bytes:
    # Python writes the shortest decimal that gives the float back: equal text, equal bits.
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
