"""IDX, the format of MNIST: two zero bytes, a type, the number of axes, their lengths, the values."""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mlp_xp.datasets.files import data_error, exists, open_binary, read_at_most
from mlp_xp.datasets.targets import Samples, by_sample

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

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
    again = "get or make the file again"
    with open_binary(path) as stream:
        magic = stream.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or magic[3] == 0:
            raise data_error(path, f"not an IDX file (it begins with {magic.hex(' ') or 'nothing'})", again)
        lengths = stream.read(4 * magic[3])
        if len(lengths) < 4 * magic[3]:
            raise data_error(path, f"ends inside its header of {4 + 4 * magic[3]} bytes", again)
        shape = tuple(int(length) for length in np.frombuffer(lengths, ">u4"))
        kind = np.dtype(_TYPES[magic[2]])
        # Nothing is allocated on the word of the header; the byte beyond it tells a longer file (and, in
        # gzip, makes the reader check the trailer) without decompressing what else there may be.
        size = math.prod(shape) * kind.itemsize
        content = read_at_most(stream, size + 1)
    if len(content) != size:
        found = f"has {len(content):,}" if len(content) < size else "goes on"
        what = "truncated" if len(content) < size else "trailing bytes"
        problem = f"{what}: its header {shape} promises {size:,} bytes of values, the file {found}"
        raise data_error(path, problem, again)
    if sha256 is not None:
        digest = hashlib.sha256(magic + lengths)
        digest.update(content)
        if digest.hexdigest() != sha256:
            problem = f"not the known file: the SHA-256 of its contents is {digest.hexdigest()}, not {sha256}"
            raise data_error(path, problem, "delete it and get it again")
    return np.frombuffer(content, kind).reshape(shape).astype(kind.newbyteorder("="), copy=False)


def read_pair(images: Path, labels: Path | None = None) -> Samples:
    """Read images and their labels.

    Parameters
    ----------
    images : Path
        File of at least two axes.
    labels : Path or None
        File of one axis; None for the one beside `images`, named as MNIST's are.

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
    return Samples(read_images(images), classes, by_sample(f"{images},{labels}"))


def read_images(path: Path) -> NDArray[Any]:
    """Read an array of shape (n, height, width) or any other with two axes or more."""
    images = read(path)
    if images.ndim < 2:
        raise data_error(path, "has one axis, images have two or more", "give the file of the images")
    return images


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
