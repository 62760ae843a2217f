"""NPY and NPZ: tables and named arrays; nothing is unpickled, nothing broken gets by."""

from __future__ import annotations

import io
import re
import struct
import tracemalloc
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlp_xp.datasets import load, load_features, npy
from mlp_xp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

TABLE = np.array([[1, 0, 255], [0, 7, 9]], np.uint8)


def encoded(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def with_header(text: str, content: bytes = b"", version: int = 1) -> bytes:
    header = text.encode() + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(header)) + header + content


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "t.npy"
    np.save(path, TABLE)
    data = load(path)
    assert data.features.tolist() == [[0, 255], [7, 9]]
    assert data.features.dtype == np.uint8
    assert (data.targets.tolist(), data.n_classes, data.scale) == ([1, 0], 2, 1 / 256)
    assert load(path, label_column=-1, n_classes=256).targets.tolist() == [255, 9]
    assert load(path, label_column=1, regression=True).targets.tolist() == [[0.0], [7.0]]
    with pytest.raises(DataError, match=r"t\.npy: there is no label column 3"):
        load(path, label_column=3)
    with pytest.raises(DataError, match=r"t\.npy: sample 0 \(counted from 0\): label 255 is not below 10"):
        load(path, label_column=2, n_classes=10)


@in_one_folder
@given(
    hnp.arrays(
        hnp.integer_dtypes() | hnp.floating_dtypes() | hnp.boolean_dtypes(),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=5),
    ),
    st.booleans(),
)
def test_any_table_survives(tmp_path: Path, table: Any, fortran: bool) -> None:
    path = tmp_path / "t.npy"
    np.save(path, np.asfortranarray(table) if fortran else table)
    got = npy.read_table(path)
    assert got.dtype == table.dtype
    np.testing.assert_array_equal(got, table)


@pytest.mark.parametrize("shape", [(), (6,), (1, 2, 3)])
def test_a_table_has_two_axes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "t.npy", np.ones(shape))
    text = rf"t\.npy: holds an array of shape {re.escape(str(shape))}, not a table; .*\.npz"
    with pytest.raises(DataError, match=text):
        load(tmp_path / "t.npy")


class Trap:
    """Unpickling it is seen."""

    sprung = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (Trap, "sprung", True)


def test_objects_are_refused_unread(tmp_path: Path) -> None:
    trap = np.array([[Trap(), Trap()]], dtype=object)
    np.save(tmp_path / "t.npy", trap)
    np.savez(tmp_path / "t.npz", x=trap, y=[0])
    for name in ("t.npy", "t.npz"):
        with pytest.raises(DataError, match=rf"{name}.*: holds Python objects, .*; convert to integers or floats"):
            load(tmp_path / name)
    assert not Trap.sprung


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "not a .npy array"),
        (b"not numpy", "not a .npy array"),
        (encoded(TABLE)[:50], "not a .npy array"),
        (encoded(TABLE)[:-1], r"truncated: its header \(2, 3\) promises 6 bytes of values, the file has 5; "),
        (encoded(TABLE) + b"?", r"broken: its header \(2, 3\) promises 6 bytes of values, the file has 7; "),
        (with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (9999999, 99999999)}"), "truncated: "),
        (with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1)}", bytes(8)), "broken: "),
        (with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1"), "not a .npy array"),
        (with_header("{'descr': '<f8', 'shape': (1, 1)}", bytes(8)), "not a .npy array"),
        (with_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1)}", version=3), "not a .npy array"),
        (with_header("((" * 4000), "not a .npy array"),
        (
            with_header("{'descr': '<U0', 'fortran_order': False, 'shape': (999, 999)}"),
            r"values of no bytes \(<U0\), not",
        ),
        (encoded(np.array([["a", "b"]])), "its features are of type <U1, not real numbers"),
        (encoded(np.zeros((2, 2), [("a", "f4")])), "its features are of type .*not real numbers"),
        (encoded(np.array([[0, np.nan]])), r"sample 0 .*: a feature is nan; "),
        (encoded(np.ones((0, 3))), "holds no features"),
        (encoded(np.ones((3, 1))), "holds no features"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "t.npy"
    path.write_bytes(content)
    with pytest.raises(DataError, match=text) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("features_name", npy.FEATURES_NAMES)
@pytest.mark.parametrize("labels_name", npy.LABELS_NAMES)
def test_an_archive(tmp_path: Path, features_name: str, labels_name: str) -> None:
    path = tmp_path / "t.npz"
    images = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    arrays: dict[str, Any] = {features_name: images, labels_name: np.array([2, 0]), "extra": np.ones(5)}
    np.savez(path, **arrays)
    data = load(path)
    assert data.features.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert data.features.dtype == np.uint8
    assert (data.targets.tolist(), data.n_classes, data.scale) == ([2, 0], 3, 1.0)
    np.testing.assert_array_equal(load_features(path, n_features=4), images.reshape(2, 4))


def test_a_compressed_archive(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    np.savez_compressed(path, x=np.zeros((1000, 1000)), y=np.arange(1000) % 2)
    assert load(path).features.shape == (1000, 1000)


def test_an_archive_for_a_regression(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", X=np.ones((2, 1)), Y=np.array([[1.5, 2], [3, 4]]))
    assert load(tmp_path / "t.npz", regression=True).targets.tolist() == [[1.5, 2], [3, 4]]


def test_arrays_that_are_missing_or_differ(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    np.savez(path, a=np.ones((2, 1)), y=[0, 1])
    with pytest.raises(DataError, match=r"t\.npz: holds no array x or X or .* only a, y; save it with numpy\.savez"):
        load(path)
    np.savez(path, x=np.ones((2, 1)))
    with pytest.raises(DataError, match=r"t\.npz: holds no array y or Y or .* only x; "):
        load(path)
    assert load_features(path, n_features=1).shape == (2, 1)
    np.savez(path, x=np.ones((2, 1)), y=[0, 1, 1])
    with pytest.raises(DataError, match=r"t\.npz: 2 rows of features but 3 of targets"):
        load(path)
    np.savez(path)
    with pytest.raises(DataError, match="only nothing"):
        load(path)


def test_a_zip_that_promises_what_it_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    size = 1 << 40
    header = with_header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size}, 1)}}")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header)
        archive.getinfo("x.npy").file_size = size + len(header)
    with pytest.raises(DataError, match=r"t\.npz: x has 1,099,511,62\d,\d+ bytes in \d+, as no honest data do; "):
        load(path)


def test_an_archive_that_inflates_beyond_all_bounds(tmp_path: Path) -> None:
    """Twenty million zeros in a hundred times fewer bytes; as many that are saved plainly are as good as any."""
    features = np.zeros((2_000, 10_000), np.uint8)
    np.savez_compressed(tmp_path / "small.npz", x=features, y=np.arange(2_000) % 2)
    with pytest.raises(
        DataError, match=r"small\.npz: x has 20,000,128 bytes in \d\d,\d+, as no honest data do; save it"
    ):
        load(tmp_path / "small.npz")
    np.savez(tmp_path / "large.npz", x=features, y=np.arange(2_000) % 2)
    assert load(tmp_path / "large.npz").n_samples == 2_000


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"PK\5\6" + bytes(18)])
def test_archives_that_are_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"t\.npz: (not a whole \.npz archive|holds no array)"):
        load(path)


def archive(compressed: bool) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, x=TABLE, y=np.array([1, 0]))
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore")  # a changed header may hold odd Python literals
@pytest.mark.parametrize(
    ("name", "content"),
    [("t.npy", encoded(TABLE)), ("t.npz", archive(compressed=False)), ("t.npz", archive(compressed=True))],
    ids=["npy", "npz", "compressed"],
)
@settings(in_one_folder, max_examples=300)
@given(st.data())
def test_cut_or_changed_files_give_data_or_a_data_error(
    tmp_path: Path, name: str, content: bytes, data: st.DataObject
) -> None:
    changed = bytearray(content)
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        changed[position] = data.draw(st.integers(0, 255))
    path = tmp_path / name
    path.write_bytes(changed[: data.draw(st.none() | st.integers(0, len(content)))])
    try:
        load(path)
    except DataError as error:
        assert str(error).startswith(str(path))  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(
    "shape",
    [
        f"({'9' * 4000}, {'9' * 4000})",  # Python does not even print their product
        f"(0x{'f' * 6000}, 1)",
        f"(0, {10**30})",
        "(True, True)",
        f"({'1, ' * 65})",
    ],
)
def test_shapes_that_no_array_can_have(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}"
    (tmp_path / "t.npy").write_bytes(with_header(header, b"1"))
    with pytest.raises(DataError, match=r"t\.npy: broken: its header's shape is none that an array can have; save it"):
        load(tmp_path / "t.npy")


def test_what_python_thinks_of_a_header_is_no_matter_of_the_reader(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    warnings.simplefilter("always")
    (tmp_path / "t.npy").write_bytes(with_header("1if 2else 3"))
    with pytest.raises(DataError, match=r"not a \.npy array"):
        load(tmp_path / "t.npy")
    assert not recwarn.list


def zipped(path: Path, members: Iterable[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as file:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, content in members:
            file.writestr(name, content)


def test_a_name_that_is_there_twice(tmp_path: Path) -> None:
    """Which of them was meant? zipfile would take the last."""
    path, x, y = tmp_path / "t.npz", encoded(np.eye(2)), encoded(np.arange(2))
    for names in (("x.npy", "x.npy"), ("x", "x.npy")):
        zipped(path, [*((name, x) for name in names), ("y.npy", y)])
        with pytest.raises(DataError, match=r"t\.npz: holds 2 arrays x; save it again, with one of them"):
            load(path)
    zipped(path, [("a", x), ("a", x), ("x.npy", x), ("y.npy", y)])
    assert load(path).n_samples == 2


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_that_numpy_does_not_use(tmp_path: Path, method: int) -> None:
    """A few of their bytes become gigabytes in one step, whatever size the directory states."""
    path = tmp_path / "t.npz"
    zipped(path, [("x.npy", bytes(10_000_000)), ("y.npy", encoded(np.arange(2)))], method)
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<I", 10_000_000), struct.pack("<I", 1000)))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=rf"t\.npz: x is compressed by method {method}, which NumPy does not use; "):
            load(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_an_archive_of_very_many_members(tmp_path: Path) -> None:
    """A member has 47 bytes in the file and some 300 in memory: the list is refused by its length."""
    path = tmp_path / "t.npz"
    zipped(path, [(f"{i}.npy", b"") for i in range(1000)])
    with pytest.raises(DataError, match=r"holds no array x or .*, only 0, 1, .*, 19 and 980 more; save it with"):
        load(path)
    entry = b"PK\1\2" + bytes(24) + struct.pack("<3H12x", 1, 0, 0) + b"a"  # the directory alone, without the members
    length = 47 * 1_000_000
    end = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1_000_000, 1_000_000, length, 0)
    end += struct.pack("<4sIQI", b"PK\6\7", 0, length, 1) + b"PK\5\6" + bytes(4) + b"\xff" * 12 + bytes(2)
    path.write_bytes(entry * 1_000_000 + end)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"its directory has 47,000,000 bytes, more than 1,048,576"):
            load(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
