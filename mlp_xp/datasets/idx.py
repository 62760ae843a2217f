"""IDX, the format of MNIST: two zero bytes, a type, the number of axes, their lengths, the values."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_xp.datasets.files import data_error, exists, file_state, is_plain, open_binary, read_at_most
from mlp_xp.datasets.stored import LARGEST_IN_MEMORY, StoredTable
from mlp_xp.datasets.targets import Samples, by_sample

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO

    from numpy.typing import NDArray

    from mlp_xp.datasets.stored import Features
    from mlp_xp.errors import DataError

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

_AGAIN = "get or make the file again"

_LABELS_NAMES = (("images-idx3", "labels-idx1"), ("images.idx3", "labels.idx1"))


def read(path: Path, *, sha256: str | None = None) -> NDArray[Any]:
    """Read one array, gzip or plain.

    Parameters
    ----------
    path : Path
        The file.
    sha256 : str or None
        Digest that the decompressed bytes must have.

    Returns
    -------
    ndarray
        Of the shape and type the file's header gives, in the machine's byte order.

    Raises
    ------
    DataError
        Not an IDX file, shorter or longer than its header says, corrupt gzip, unreadable, or another digest.
    """
    with open_binary(path) as stream:
        header, shape, kind = _read_header(path, stream)
        # Nothing is allocated on the word of the header; the byte beyond it tells a longer file (and, in
        # gzip, makes the reader check the trailer) without decompressing what else there may be.
        size = math.prod(shape) * kind.itemsize
        content = read_at_most(stream, size + 1)
    if len(content) != size:
        raise _wrong_size(path, shape, size, len(content))
    if sha256 is not None:
        digest = hashlib.sha256(header)
        digest.update(content)
        if digest.hexdigest() != sha256:
            problem = f"not the known file: the SHA-256 of its contents is {digest.hexdigest()}, not {sha256}"
            raise data_error(path, problem, "delete it and get it again")
    try:
        values = np.frombuffer(content, kind).reshape(shape)
    except ValueError as error:  # of more axes than NumPy knows, or of immense ones beside one of length 0
        raise data_error(path, f"its header is of no array ({error})", _AGAIN) from error
    return values.astype(kind.newbyteorder("="), copy=False)


def _read_header(path: Path, stream: IO[bytes]) -> tuple[bytes, tuple[int, ...], np.dtype[Any]]:
    """Return a header's bytes, and the shape and type of the values that follow it."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or magic[3] == 0:
        raise data_error(path, f"not an IDX file (it begins with {magic.hex(' ') or 'nothing'})", _AGAIN)
    lengths = stream.read(4 * magic[3])
    if len(lengths) < 4 * magic[3]:
        raise data_error(path, f"ends inside its header of {4 + 4 * magic[3]} bytes", _AGAIN)
    shape = tuple(int(length) for length in np.frombuffer(lengths, ">u4"))
    return magic + lengths, shape, np.dtype(_TYPES[magic[2]])


def _wrong_size(path: Path, shape: tuple[int, ...], promised: int, found: int) -> DataError:
    what, has = ("truncated", f"has {found:,}") if found < promised else ("trailing bytes", "goes on")
    problem = f"{what}: its header {shape} promises {promised:,} bytes of values, the file {has}"
    return data_error(path, problem, _AGAIN)


def read_pair(images: Path, labels: Path | None = None, *, largest_in_memory: int = LARGEST_IN_MEMORY) -> Samples:
    """Read images and their labels.

    Parameters
    ----------
    images : Path
        File of at least two axes.
    labels : Path or None
        File of one axis; None for the one beside `images`, named as MNIST's are.
    largest_in_memory : int
        As in `read_images`.

    Raises
    ------
    DataError
        Either file cannot be used, or no labels are found.
    """
    labels = beside(images) if labels is None else labels
    classes = read(labels)
    if classes.ndim != 1:
        remedy = "give the images first: IMAGES,LABELS"
        raise data_error(labels, f"has {classes.ndim} axes, labels have one", remedy)
    return Samples(read_images(images, largest_in_memory), classes, by_sample(f"{images},{labels}"))


def read_images(path: Path, largest_in_memory: int = LARGEST_IN_MEMORY) -> Features:
    """Read an array of shape (n, height, width) or any other with two axes or more.

    One of more than `largest_in_memory` bytes stays in its file, as a table of shape (n, height × width), unless that
    is compressed.
    """
    with open_binary(path) as stream:
        header, shape, kind = _read_header(path, stream)
        if len(shape) < 2:
            raise data_error(path, "has one axis, images have two or more", "give the file of the images")
        promised = math.prod(shape) * kind.itemsize
        if promised > largest_in_memory and is_plain(stream):
            state = file_state(stream)
            if (found := state[0] - len(header)) != promised:
                raise _wrong_size(path, shape, promised, found)
            return StoredTable(path.absolute(), state, len(header), kind, shape[0], math.prod(shape[1:]))
    return read(path)


def beside(images: Path) -> Path:
    """Return the labels' file that belongs to `images` by its name."""
    for ours, theirs in _LABELS_NAMES:
        if ours in images.name:
            plain = images.name.replace(ours, theirs).removesuffix(".gz")
            wanted = [images.with_name(plain + ".gz"), images.with_name(plain)]
            found = [path for path in wanted if exists(path)]
            if found:
                return found[0]
            problem = f"found no labels beside it ({wanted[0].name} or {plain})"
            raise data_error(images, problem, "put them there, or give both files as IMAGES,LABELS")
    problem = "its name does not tell the labels' name"
    raise data_error(images, problem, "give both files as IMAGES,LABELS")
