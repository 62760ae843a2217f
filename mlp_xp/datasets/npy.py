"""NumPy's own files: .npy holds one table, .npz features and labels by name. Nothing is ever unpickled."""

from __future__ import annotations

import io
import math
import struct
import warnings
import zipfile
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy_format

from mlp_xp.datasets.files import data_error, file_state, is_plain, most_inflated, open_binary
from mlp_xp.datasets.stored import LARGEST_IN_MEMORY, StoredTable
from mlp_xp.datasets.targets import Samples, by_sample, take_column
from mlp_xp.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from mlp_xp.datasets.stored import Features

FEATURES_NAMES = ("x", "X", "features", "images", "data")
LABELS_NAMES = ("y", "Y", "labels", "targets", "target")

MOST_OF_A_DIRECTORY = 1 << 20
"""Bytes of an archive's list of its members, which is read as a whole and takes many times as much memory: 10,000."""

_MOST_AXES = 64
"""Of any array of NumPy's."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Of compression, that NumPy writes; a piece of the others may inflate a million times before anybody can count."""
_ENCRYPTED = 1
_LOCAL_HEADER = "<26xHH"
"""Of a member of an archive: its last two fields are the lengths of what lies between it and the bytes."""


def read(path: Path, *, label_column: int = 0, largest_in_memory: int = LARGEST_IN_MEMORY) -> Samples:
    """Read a ``.npy`` table with its labels in one of the columns; see `read_table`."""
    features, labels = take_column(read_table(path, largest_in_memory), label_column, path)
    return Samples(features, labels, by_sample(path))


def read_table(path: Path, largest_in_memory: int = LARGEST_IN_MEMORY) -> Features:
    """Read a ``.npy`` file of two axes.

    Returns
    -------
    ndarray or StoredTable of shape (n_rows, n_columns)
        Numbers, as stored. More than `largest_in_memory` bytes of them stay in the file, if it is not compressed and
        has them row by row (in C order).

    Raises
    ------
    DataError
        Not a whole ``.npy`` file, not two axes, or objects instead of numbers.
    """
    with open_binary(path) as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        shape, _, _ = _read_header(path, stream, size)
        if len(shape) != 2:
            problem = f"holds an array of shape {shape}, not a table"
            raise data_error(path, problem, "save two axes, or features and labels in a .npz")
        stream.seek(0)
        if (table := _stored(path, path, stream, size, largest_in_memory)) is not None:
            return table
        stream.seek(0)
        return _array(path, stream, size)


def read_archive(path: Path, *, largest_in_memory: int = LARGEST_IN_MEMORY) -> Samples:
    """Read features and labels from a ``.npz`` file, by the names in `FEATURES_NAMES` and `LABELS_NAMES`.

    Features of more than `largest_in_memory` bytes stay in the file, as in `read_table`; the archive's checksum of them
    is then not looked at.

    Raises
    ------
    DataError
        Not a whole ``.npz`` file, no array of such a name, or objects instead of numbers.
    """
    features = read_features(path, largest_in_memory)
    return Samples(features, read_member(path, LABELS_NAMES), by_sample(path))


def read_features(path: Path, largest_in_memory: int = LARGEST_IN_MEMORY) -> Features:
    """Read the features of a ``.npz`` file alone, as `read_archive` does."""
    return _read_member(path, FEATURES_NAMES, largest_in_memory)


def read_member(path: Path, names: tuple[str, ...]) -> NDArray[Any]:
    """Read the array of a ``.npz`` file under the first of these names; raises as `read_archive`."""
    array: NDArray[Any] = _read_member(path, names, None)
    return array


def _read_member(path: Path, names: tuple[str, ...], largest_in_memory: int | None) -> Features:
    """Return an array, or a table if that is larger and the member is not compressed (None: never a table)."""
    with open_binary(path) as file:
        try:
            with zipfile.ZipFile(_Pieces(file)) as archive:
                info, name = _find_member(path, archive, names)
                place = f"{path}[{name}]"
                # Both sizes are a stranger's word; but no more comes out of a member than it says it has.
                if info.file_size > most_inflated(min(info.compress_size, file_state(file)[0])):
                    problem = f"{name} has {info.file_size:,} bytes in {info.compress_size:,}, as no honest data do"
                    raise data_error(path, problem, "save it again, with numpy.savez, if you trust it")
                if largest_in_memory is not None and _is_stored(info):
                    end = _find(file, info) + info.file_size
                    if (table := _stored(path, place, file, end, largest_in_memory)) is not None:
                        return table
                with archive.open(info) as stream:
                    return _array(place, stream, info.file_size)
        except DataError:
            raise
        except Exception as error:  # whichever layer notices first: zip, the compression, encryption
            raise data_error(path, f"not a whole .npz archive ({error})", "save the archive again") from error


class _Pieces:
    """A file that is read in pieces of bounded length, because `zipfile` reads an archive's directory as one."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > MOST_OF_A_DIRECTORY:
            raise ValueError(f"its directory has {size:,} bytes, more than {MOST_OF_A_DIRECTORY:,}")
        return self._file.read(size)


def _find_member(path: Path, archive: zipfile.ZipFile, names: tuple[str, ...]) -> tuple[zipfile.ZipInfo, str]:
    """Return the member under the first of these names, and that name."""
    members = [(info.filename.removesuffix(".npy"), info) for info in archive.infolist()]
    there = [name for name, _ in members]
    name = next((name for name in names if name in there), None)
    if name is None:
        listed = ", ".join(there[:20]) + (f" and {len(there) - 20:,} more" if len(there) > 20 else "")
        problem = f"holds no array {' or '.join(names)}, only {listed or 'nothing'}"
        raise data_error(path, problem, f"save it with numpy.savez(file, {names[0]}=...)")
    if there.count(name) > 1:
        raise data_error(path, f"holds {there.count(name)} arrays {name}", "save it again, with one of them")
    info = members[there.index(name)][1]
    if info.compress_type not in _METHODS:
        problem = f"{name} is compressed by method {info.compress_type}, which NumPy does not use"
        raise data_error(path, problem, "save it again, with numpy.savez_compressed")
    return info, name


def _is_stored(info: zipfile.ZipInfo) -> bool:
    """Tell whether a member's bytes are in the archive as they are."""
    return info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & _ENCRYPTED


def _find(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Go to where a member's bytes begin, and return where that is: after a header that only the file itself has."""
    file.seek(info.header_offset)
    header = struct.unpack(_LOCAL_HEADER, file.read(struct.calcsize(_LOCAL_HEADER)))
    return file.seek(sum(header[-2:]), io.SEEK_CUR)  # the lengths of its name and of what else there is


def _stored(path: Path, place: object, stream: IO[bytes], end: int, largest_in_memory: int) -> StoredTable | None:
    """Return an array that ends at `end` as a table in its file, if it is so large and lies there row by row."""
    if not is_plain(stream):
        return None
    shape, columns_first, kind = _read_header(place, stream, end)
    if columns_first or not shape or math.prod(shape) * kind.itemsize <= largest_in_memory or kind.kind not in "biuf":
        return None
    state = file_state(stream)
    if end > state[0]:
        raise data_error(place, f"truncated: it should end at byte {end:,} of {state[0]:,}", "save it again")
    return StoredTable(path.absolute(), state, stream.tell(), kind, shape[0], math.prod(shape[1:]))


def _read_header(place: object, stream: IO[bytes], end: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, Fortran order and type of the array that begins here, if its values end at `end`."""
    try:
        version = npy_format.read_magic(stream)
        read_header = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python's, about the literal's style
            shape, columns_first, kind = read_header[version](stream)
    except Exception as error:  # the header is a Python literal, and its parser raises what the text provokes
        raise data_error(place, f"not a .npy array ({error})", "write it with numpy.save") from error
    if len(shape) > _MOST_AXES or not all(type(length) is int and 0 <= length < 1 << 63 for length in shape):
        raise data_error(place, "broken: its header's shape is none that an array can have", "save it again")
    if kind.hasobject:
        problem = "holds Python objects, which only unpickling could read and which is not done"
        raise data_error(place, problem, "convert to integers or floats, then save again")
    if kind.itemsize == 0:  # any number of them would be in no bytes, and taken for numbers in many
        raise data_error(place, f"holds values of no bytes ({kind.str}), not numbers", "save numbers")
    promised = math.prod(shape) * kind.itemsize
    found = end - stream.tell()
    if promised != found:
        what = "truncated" if found < promised else "broken"
        problem = f"{what}: its header {shape} promises {promised:,} bytes of values, the file has {found:,}"
        raise data_error(place, problem, "save it again")
    return shape, columns_first, kind


def _array(place: object, stream: IO[bytes], size: int) -> NDArray[Any]:
    """Read an array after checking its header against the `size` in bytes of what is there."""
    _read_header(place, stream, size)
    stream.seek(0)
    try:
        array: NDArray[Any] = npy_format.read_array(stream, allow_pickle=False)
    except ValueError as error:
        raise data_error(place, f"cannot be read ({error})", "save it again") from error
    return array
