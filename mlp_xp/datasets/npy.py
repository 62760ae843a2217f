"""NumPy's own files: .npy holds one table, .npz features and labels by name. Nothing is ever unpickled."""

from __future__ import annotations

import math
import zipfile
from typing import IO, TYPE_CHECKING, Any

from numpy.lib import format as npy_format

from mlp_xp.datasets.files import data_error, open_binary
from mlp_xp.datasets.targets import Samples, by_sample, take_column
from mlp_xp.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FEATURES_NAMES = ("x", "X", "features", "images", "data")
LABELS_NAMES = ("y", "Y", "labels", "targets", "target")

_MOST_INFLATION = 1032
"""Deflate cannot shrink anything further than this, so a directory that claims more is wrong."""


def read(path: Path, *, label_column: int = 0) -> Samples:
    """Read a ``.npy`` table with its labels in one of the columns; see `read_table`."""
    features, labels = take_column(read_table(path), label_column, path)
    return Samples(features, labels, by_sample(path))


def read_table(path: Path) -> NDArray[Any]:
    """Read a ``.npy`` file of two axes.

    Returns
    -------
    ndarray of shape (n_rows, n_columns)
        Numbers, as stored.

    Raises
    ------
    DataError
        Not a whole ``.npy`` file, not two axes, or objects instead of numbers.
    """
    with open_binary(path) as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        table = _array(path, stream, size)
    if table.ndim != 2:
        problem = f"holds an array of shape {table.shape}, not a table"
        raise data_error(path, problem, "save two axes, or features and labels in a .npz")
    return table


def read_archive(path: Path) -> Samples:
    """Read features and labels from a ``.npz`` file, by the names in `FEATURES_NAMES` and `LABELS_NAMES`.

    Raises
    ------
    DataError
        Not a whole ``.npz`` file, no array of such a name, or objects instead of numbers.
    """
    return Samples(read_member(path, FEATURES_NAMES), read_member(path, LABELS_NAMES), by_sample(path))


def read_member(path: Path, names: tuple[str, ...]) -> NDArray[Any]:
    """Read the array of a ``.npz`` file under the first of these names; raises as `read_archive`."""
    with open_binary(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
                name = next((name for name in names if name in members), None)
                if name is None:
                    problem = f"holds no array {' or '.join(names)}, only {', '.join(members) or 'nothing'}"
                    raise data_error(path, problem, f"save it with numpy.savez(file, {names[0]}=...)")
                info = members[name]
                if info.file_size > _MOST_INFLATION * (info.compress_size + 1):
                    problem = f"{name} cannot hold {info.file_size:,} bytes in {info.compress_size:,}"
                    raise data_error(path, problem, "save the archive again")
                with archive.open(info) as stream:
                    return _array(f"{path}[{name}]", stream, info.file_size)
        except DataError:
            raise
        except Exception as error:  # whichever layer notices first: zip, the compression, encryption
            raise data_error(path, f"not a whole .npz archive ({error})", "save the archive again") from error


def _array(place: object, stream: IO[bytes], size: int) -> NDArray[Any]:
    """Read an array after checking its header against the `size` in bytes of what is there."""
    try:
        version = npy_format.read_magic(stream)
        read_header = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
        shape, _, kind = read_header[version](stream)
    except Exception as error:  # the header is a Python literal, and its parser raises what the text provokes
        raise data_error(place, f"not a .npy array ({error})", "write it with numpy.save") from error
    if kind.hasobject:
        problem = "holds Python objects, which only unpickling could read and which is not done"
        raise data_error(place, problem, "convert to integers or floats, then save again")
    promised = math.prod(shape) * kind.itemsize
    found = size - stream.tell()
    if min(shape, default=0) < 0 or promised != found:
        what = "truncated" if found < promised else "broken"
        problem = f"{what}: its header {shape} promises {promised:,} bytes of values, the file has {found:,}"
        raise data_error(place, problem, "save it again")
    stream.seek(0)
    try:
        array: NDArray[Any] = npy_format.read_array(stream, allow_pickle=False)
    except ValueError as error:
        raise data_error(place, f"cannot be read ({error})", "save it again") from error
    return array
