"""MNIST's 60,000 training images: found on this machine or downloaded once, and always checked."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, NamedTuple

from mlp_xp.datasets import idx
from mlp_xp.datasets.download import download
from mlp_xp.datasets.files import as_path, exists
from mlp_xp.datasets.targets import Samples, by_sample
from mlp_xp.errors import DownloadError

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "MLP_XP_DATA"

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://raw.githubusercontent.com/fgnt/mnist/master/",
)


class File(NamedTuple):
    """One of the original files: its name, and size and SHA-256 of its decompressed bytes."""

    name: str
    size: int
    sha256: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names it goes by: with a hyphen or a dot, compressed or not."""
        dotted = self.name.replace("-idx", ".idx")
        return f"{self.name}.gz", self.name, f"{dotted}.gz", dotted


IMAGES = File(
    "train-images-idx3-ubyte",
    47_040_016,
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
)
LABELS = File(
    "train-labels-idx1-ubyte",
    60_008,
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
)
FILES = (IMAGES, LABELS)


def cache_folder() -> Path:
    """Return the folder that downloads go to."""
    from platformdirs import user_cache_path

    return user_cache_path("mlp-xp", appauthor=False) / "mnist"


def own_folders() -> tuple[Path, ...]:
    """Return the folders that $MLP_XP_DATA stands for: itself and its ``mnist``, or none."""
    value = os.environ.get(VARIABLE)
    return (as_path(value), as_path(value) / "mnist") if value else ()


def find(file: File) -> Path | None:
    """Return the path of a file in $MLP_XP_DATA or the cache folder, or None."""
    for folder in (*own_folders(), cache_folder()):
        for name in file.names:
            if exists(folder / name):
                return folder / name
    return None


def available() -> bool:
    """Tell whether MNIST can be read without a network."""
    return all(find(file) for file in FILES)


def read(*, progress: bool = False) -> Samples:
    """Read the images and labels, downloading them into the cache folder where they are not found.

    Parameters
    ----------
    progress : bool
        Show the progress of a download, if on a terminal.

    Returns
    -------
    Samples
        Features uint8 of shape (60000, 28, 28), with scale 1/256; labels uint8 of shape (60000,).

    Raises
    ------
    DataError
        A file found on this machine is not the original.
    DownloadError
        Nothing found and nothing could be downloaded; the text names the ways to provide the files.
    """
    if own_folders() and not all(_is_own(find(file)) for file in FILES):
        warnings.warn(f"{_variable()}; looking elsewhere", stacklevel=2)
    paths = [find(file) or _fetch(file, progress=progress) for file in FILES]
    images, labels = (idx.read(path, sha256=file.sha256) for path, file in zip(paths, FILES, strict=True))
    return Samples(images, labels, by_sample("mnist"), scale=1 / 256)


def _is_own(path: Path | None) -> bool:
    return path is not None and path.parent in own_folders()


def _variable() -> str:
    value = os.environ.get(VARIABLE)
    if not value:
        return f"{VARIABLE} is not set"
    return f"{VARIABLE}={value} lacks {IMAGES.names[0]} or {LABELS.names[0]}, and so does its mnist subfolder"


def _fetch(file: File, *, progress: bool) -> Path:
    name = file.names[0]
    try:
        return download(
            [mirror + name for mirror in MIRRORS],
            cache_folder() / name,
            size=file.size,
            sha256=file.sha256,
            progress=progress,
        )
    except DownloadError as error:
        wanted = " and ".join(each.names[0] for each in FILES)
        raise DownloadError(
            f"MNIST is not on this machine ({_variable()}) and could not be downloaded.\n{error}\n"
            f"Any one of these helps:\n"
            f"  1. set {VARIABLE} to the folder that holds {wanted} (or its mnist subfolder does);\n"
            f"  2. put these two files into {cache_folder()};\n"
            f"  3. connect this machine to the network and run again: they are then downloaded."
        ) from error
