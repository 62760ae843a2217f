"""IDX: each type, each way a file can be broken, and the labels beside the images."""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlp_xp.datasets import idx, load, load_features
from mlp_xp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}

IMAGES = np.arange(24, dtype=np.uint8).reshape(4, 3, 2) * 10
LABELS = np.array([3, 0, 1, 3], np.uint8)


def encode(array: Any) -> bytes:
    """Write an array as the format's description has it."""
    header = bytes([0, 0, CODES[array.dtype.str[1:]], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    values: bytes = array.astype(array.dtype.newbyteorder(">")).tobytes()
    return header + values


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["x", "x.gz"])
@pytest.mark.parametrize("kind", CODES)
def test_every_type_is_read(tmp_path: Path, kind: str, name: str) -> None:
    array = np.array([[1, 2, 3], [4, 5, 100]]).astype(kind)
    got = idx.read(write(tmp_path / name, encode(array)))
    assert got.dtype == np.dtype(kind)
    assert got.dtype.isnative
    assert got.flags.writeable
    np.testing.assert_array_equal(got, array)


@in_one_folder
@given(
    st.sampled_from(list(CODES)).flatmap(lambda kind: hnp.arrays(kind, hnp.array_shapes(max_side=5))),
    st.booleans(),
)
def test_any_array_survives(tmp_path: Path, array: Any, compressed: bool) -> None:
    got = idx.read(write(tmp_path / ("x.gz" if compressed else "x"), encode(array)))
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", r"not an IDX file \(it begins with nothing\)"),
        (b"\0\0\x08", "not an IDX file"),
        (b"\x89PNG....", "not an IDX file .*89 50 4e 47"),
        (b"\0\x01\x08\x01\0\0\0\x01\x05", "not an IDX file"),
        (b"\0\0\x0a\x01\0\0\0\x01\x05", "not an IDX file"),
        (b"\0\0\x08\0\x05", "not an IDX file"),
        (b"\0\0\x08\x03\0\0\0\x01\0\0", "ends inside its header of 16 bytes"),
        (encode(IMAGES)[:-3], r"truncated: its header \(4, 3, 2\) promises 24 bytes of values, .* has 21"),
        (encode(IMAGES) + b"?", "trailing bytes: .* promises 24 bytes of values, the file goes on"),
        (b"\0\0\x0e\x04" + b"\xff" * 16 + b"12", "truncated: .* promises 2,722,258,93.* the file has 2"),
    ],
)
@pytest.mark.parametrize("name", ["x", "x.gz"])
def test_broken_files(tmp_path: Path, name: str, content: bytes, text: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(DataError, match=text) as caught:
        idx.read(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-6], lambda whole: whole[:-8] + b"\0" * 8, lambda whole: whole + b"junk"]
)
def test_corrupt_gzip(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(damage(gzip.compress(encode(IMAGES))))
    with pytest.raises(DataError, match=r"x\.gz: corrupt gzip \(.+\); get or make the file again"):
        idx.read(path)


def test_no_more_is_decompressed_than_the_header_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "bomb.gz", encode(IMAGES) + bytes(100_000_000))
    inflated = []
    real = gzip.GzipFile.readinto

    def readinto(file: gzip.GzipFile, buffer: memoryview) -> int:
        inflated.append(real(file, buffer))
        return inflated[-1]

    monkeypatch.setattr(gzip.GzipFile, "readinto", readinto)
    with pytest.raises(DataError, match="trailing bytes"):
        idx.read(path)
    assert sum(inflated) <= 1 << 17, "no more than a buffer's worth"


def test_the_digest_is_of_the_decompressed_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gz", encode(IMAGES))
    right = hashlib.sha256(encode(IMAGES)).hexdigest()
    np.testing.assert_array_equal(idx.read(path, sha256=right), IMAGES)
    with pytest.raises(DataError, match=f"not the known file: .*{right}, not 0{{64}}; delete it"):
        idx.read(path, sha256="0" * 64)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        idx.read(tmp_path)
    with pytest.raises(DataError, match=r"cannot be read \(No such file or directory\)"):
        idx.read(tmp_path / "none")


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(DataError, match=r"x: cannot be read \(Permission denied\); check the path"):
        idx.read(tmp_path / "x")


@pytest.mark.parametrize("labels_suffix", ["", ".gz"])
@pytest.mark.parametrize("images_suffix", ["", ".gz"])
@pytest.mark.parametrize("dot", ["-", "."])
def test_labels_are_found_beside_the_images(tmp_path: Path, dot: str, images_suffix: str, labels_suffix: str) -> None:
    images = write(tmp_path / f"train-images{dot}idx3-ubyte{images_suffix}", encode(IMAGES))
    write(tmp_path / f"train-labels{dot}idx1-ubyte{labels_suffix}", encode(LABELS))
    data = load(str(images))
    np.testing.assert_array_equal(data.features, IMAGES.reshape(4, 6))
    assert data.features.dtype == np.uint8
    assert data.targets.tolist() == [3, 0, 1, 3]
    assert (data.n_classes, data.scale) == (4, 1 / 256)


def test_a_pair_of_any_names(tmp_path: Path) -> None:
    images, labels = write(tmp_path / "a", encode(IMAGES)), write(tmp_path / "b", encode(LABELS))
    data = load(f"{images},{labels}", n_classes=10)
    assert (data.features.shape, data.targets.tolist(), data.n_classes) == ((4, 6), [3, 0, 1, 3], 10)
    with pytest.raises(DataError, match="a: has 3 axes, labels have one; give the images first"):
        load(f"{labels},{images}")
    with pytest.raises(DataError, match="b: has one axis, images have two or more"):
        load(f"{labels},{labels}")
    with pytest.raises(DataError, match=r"none: cannot be read \(No such file"):
        load(f"{images},{tmp_path / 'none'}")


def test_no_labels(tmp_path: Path) -> None:
    images = write(tmp_path / "my-images-idx3-ubyte.gz", encode(IMAGES))
    with pytest.raises(DataError, match=r"no labels beside it \(my-labels-idx1-ubyte.gz or my-labels-idx1-ub"):
        load(str(images))
    images = write(tmp_path / "photos.idx3", encode(IMAGES))
    with pytest.raises(DataError, match="its name does not tell the labels' name; give both files as IMAGES,LAB"):
        load(str(images))


def test_counts_that_differ(tmp_path: Path) -> None:
    images, labels = write(tmp_path / "a", encode(IMAGES)), write(tmp_path / "b", encode(LABELS[:3]))
    with pytest.raises(DataError, match=r"a,.*b: 4 rows of features but 3 of targets; give .* that belong together"):
        load(f"{images},{labels}")


def test_labels_that_are_no_classes(tmp_path: Path) -> None:
    images, labels = write(tmp_path / "a", encode(IMAGES)), write(tmp_path / "b", encode(LABELS))
    with pytest.raises(DataError, match=r"b: sample 0 \(counted from 0\): label 3 is not below 3, .*--classes"):
        load(f"{images},{labels}", n_classes=3)


def test_load_features_reads_images_alone(tmp_path: Path) -> None:
    images = write(tmp_path / "new-images-idx3-ubyte", encode(IMAGES))
    np.testing.assert_array_equal(load_features(images, n_features=6), IMAGES.reshape(4, 6))
    with pytest.raises(DataError, match="has 6 features per row, the model wants 5; give a file with the columns"):
        load_features(images, n_features=5)


@in_one_folder
@given(st.integers(0, 40), st.sampled_from([0, 1, 2, 3, 7, 16, 20, 39]), st.integers(0, 255), st.booleans())
def test_cut_or_changed_files_give_an_array_or_a_data_error(
    tmp_path: Path, length: int, position: int, value: int, compressed: bool
) -> None:
    content = bytearray(gzip.compress(encode(IMAGES)) if compressed else encode(IMAGES))
    content[position] = value
    path = tmp_path / "x"
    path.write_bytes(content[:length] if length < 40 else content)
    try:
        idx.read(path)
    except DataError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize("shape", [(1,) * 255, (0,) * 255, (0,) + (2**32 - 1,) * 5])
def test_shapes_that_no_array_of_numpys_can_have(tmp_path: Path, shape: tuple[int, ...]) -> None:
    header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
    (tmp_path / "images").write_bytes(header + bytes(math.prod(shape)))
    with pytest.raises(DataError, match=r"images: its header is of no array \(.+\); get or make the file again"):
        idx.read(tmp_path / "images")
