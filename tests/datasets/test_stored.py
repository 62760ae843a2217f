"""Tables in files: whatever rows are asked for, they are those that the same table in memory has."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlp_xp.datasets import Dataset, load, load_features, npy
from mlp_xp.datasets.ahead import read_ahead
from mlp_xp.datasets.stored import StoredTable
from mlp_xp.errors import DataError

in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
IDX_TYPES = {"uint8": 8, "int8": 9, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}
KINDS = ("npy", "npz", "idx")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlp_xp.datasets.stored.BLOCK_BYTES", 100)


def write(kind: str, folder: Path, features: np.ndarray, labels: np.ndarray) -> str:
    """Write samples in a format and return what `load` is to be given."""
    if kind == "npy":
        np.save(folder / "t.npy", np.column_stack([features, labels.astype(features.dtype)]))
        return str(folder / "t.npy")
    if kind == "npz":
        np.savez(folder / "t.npz", y=labels, x=features.reshape(len(features), -1, 2))
        return str(folder / "t.npz")
    images, classes = folder / "t-images.idx3-ubyte", folder / "t-labels.idx1-ubyte"
    big_endian = features.astype(features.dtype.newbyteorder(">"))
    magic = bytes([0, 0, IDX_TYPES[features.dtype.name], 3])
    images.write_bytes(magic + struct.pack(">3I", len(features), features.shape[1] // 2, 2) + big_endian.tobytes())
    classes.write_bytes(bytes([0, 0, 8, 1]) + struct.pack(">I", len(labels)) + labels.astype(np.uint8).tobytes())
    return f"{images},{classes}"


def samples(dtype: str, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.uniform(0, 100, size=(n, 6)).astype(dtype), rng.integers(0, 3, n).astype(np.uint8)


@in_one_folder
@given(
    hnp.arrays(
        hnp.integer_dtypes() | hnp.floating_dtypes() | hnp.boolean_dtypes(),
        st.tuples(st.integers(1, 30), st.integers(2, 6)),
    ),
    st.data(),
)
def test_any_rows_of_any_table_are_those_of_the_array(tmp_path: Path, array: np.ndarray, data: st.DataObject) -> None:
    np.save(tmp_path / "t.npy", array)
    table = npy.read_table(tmp_path / "t.npy", largest_in_memory=0)
    assert isinstance(table, StoredTable)
    if data.draw(st.booleans()):
        from mlp_xp.datasets.targets import leave_out

        column = data.draw(st.integers(-array.shape[1], array.shape[1] - 1))
        np.testing.assert_array_equal(table.column(column % array.shape[1]), array[:, column])
        table, array = leave_out(table, column, "t"), np.delete(array, column, axis=1)
    for _ in range(data.draw(st.integers(0, 2))):
        rows = np.asarray(data.draw(st.lists(st.integers(0, len(array) - 1), min_size=1, max_size=40)))
        table, array = table.select(rows), array[rows]
    assert (table.shape, table.ndim, table.size, len(table)) == (array.shape, 2, array.size, len(array))
    rows = np.asarray(data.draw(st.lists(st.integers(0, len(array) - 1), max_size=40)), np.int64)
    taken = table.take(rows)
    assert taken.dtype == table.dtype
    assert taken.dtype.isnative
    np.testing.assert_array_equal(taken, array[rows])
    np.testing.assert_array_equal(np.concatenate(list(table.blocks())), array)
    np.testing.assert_array_equal(table.take(rows[table.file_order(rows)]), array[rows[table.file_order(rows)]])
    if array.dtype.kind != "f" or not np.isnan(array).any():
        np.testing.assert_array_equal(table.limits, [array.min(axis=0), array.max(axis=0)])


@pytest.mark.parametrize("row", [-1, 3])
def test_there_are_no_rows_beyond_the_table(tmp_path: Path, row: int) -> None:
    np.save(tmp_path / "t.npy", np.ones((9, 2)))
    table = npy.read_table(tmp_path / "t.npy", largest_in_memory=0).select(np.arange(3))
    for act in (table.take, table.select):
        with pytest.raises(IndexError, match=r"t\.npy: rows .* of a table of 3"):
            act(np.asarray([0, row]))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_data_in_a_file_are_those_in_memory(tmp_path: Path, kind: str, dtype: str) -> None:
    name = write(kind, tmp_path, *samples(dtype))
    stored, in_memory = (load(name, label_column=-1, largest_in_memory=limit) for limit in (0, 1 << 20))
    assert (stored.is_stored, in_memory.is_stored) == (True, False)
    for ours, theirs in ((stored, in_memory), *zip(stored.split(), in_memory.split(), strict=True)):
        assert ours.is_stored
        assert (ours.features.dtype, ours.features.shape) == (theirs.features.dtype, theirs.features.shape)
        np.testing.assert_array_equal(ours.features.take(np.arange(ours.n_samples)), theirs.features)
        np.testing.assert_array_equal(ours.targets, theirs.targets, strict=True)
        assert (ours.name, ours.n_classes, ours.scale) == (theirs.name, theirs.n_classes, theirs.scale)
        np.testing.assert_array_equal(ours.limits(), theirs.limits(), strict=True)
        assert ours.digest() == theirs.digest()
    path = name.partition(",")[0]
    column = -1 if kind == "npy" else None
    rows = load_features(path, n_features=6, label_column=column, largest_in_memory=0)
    assert isinstance(rows, StoredTable)
    np.testing.assert_array_equal(rows.take(np.arange(40)), in_memory.features)
    with pytest.raises(DataError, match="features per row, the model wants 9"):
        load_features(path, n_features=9, largest_in_memory=0)


def test_tables_of_up_to_256_mib_are_read_into_memory(tmp_path: Path) -> None:
    with (tmp_path / "t.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (2**14 + 1, 2**14)}
        )
        file.truncate(file.tell() + (2**14 + 1) * 2**14)
    assert load(tmp_path / "t.npy", n_classes=2).is_stored
    for kind in KINDS:
        assert not load(write(kind, tmp_path, *samples("uint8")), label_column=-1).is_stored


def test_a_digest_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load(write("idx", tmp_path, *samples("uint8")), largest_in_memory=0)
    digest = data.digest()
    monkeypatch.delattr(StoredTable, "blocks")
    assert data.digest() == digest


def test_what_cannot_be_read_in_parts_is_read_into_memory(tmp_path: Path) -> None:
    features, labels = samples("float32")
    np.savez_compressed(tmp_path / "t.npz", x=features, y=labels)
    np.save(tmp_path / "columns.npy", np.asfortranarray(features))
    for name in (tmp_path / "t.npz", tmp_path / "columns.npy"):
        assert not load(name, largest_in_memory=0, regression=True).is_stored
    images, classes = write("idx", tmp_path, *samples("uint8")).split(",")
    Path(images + ".gz").write_bytes(gzip.compress(Path(images).read_bytes()))
    (tmp_path / "zipped.npy").write_bytes(gzip.compress((tmp_path / "columns.npy").read_bytes()))
    assert not load(f"{images}.gz,{classes}", largest_in_memory=0).is_stored
    assert not load(tmp_path / "zipped.npy", largest_in_memory=0, regression=True).is_stored
    np.savetxt(tmp_path / "t.csv", features, delimiter=",")
    assert not load(tmp_path / "t.csv", largest_in_memory=0, regression=True).is_stored


def test_one_large_byte_anywhere_means_images(tmp_path: Path) -> None:
    features, labels = samples("uint8")
    features[-1, -1] = 128
    for kind in KINDS:
        assert load(write(kind, tmp_path, features, labels), label_column=-1, largest_in_memory=0).scale == 1 / 256


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_number_that_is_not_finite_is_found(tmp_path: Path, kind: str, value: float) -> None:
    features, labels = samples("float64")
    features[33, 2] = value
    name = write(kind, tmp_path, features, labels)
    for limit in (0, 1 << 20):
        with pytest.raises(DataError, match=rf"sample 33 \(counted from 0\): a feature is {value}; remove the row"):
            load(name, label_column=-1, largest_in_memory=limit)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_another_length_is_refused_as_in_memory(tmp_path: Path, kind: str, change: int) -> None:
    path = Path(write(kind, tmp_path, *samples("float64")).partition(",")[0])
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + b"?")
    texts = []
    for limit in (0, 1 << 20):
        try:
            load(path, label_column=-1, largest_in_memory=limit)
        except DataError as error:
            texts.append(str(error))
    assert len(texts) in ((0, 2) if kind == "npz" else (2,))  # zip allows a comment at its end
    assert texts[:1] == texts[1:]


@pytest.mark.parametrize("shape", [(6,), (1, 2, 3)])
def test_a_table_has_two_axes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "t.npy", np.ones(shape))
    with pytest.raises(DataError, match=r"t\.npy: holds an array of shape .*, not a table"):
        load(tmp_path / "t.npy", largest_in_memory=0)


def test_a_table_of_labels_alone_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.ones((3, 1)))
    with pytest.raises(DataError, match=r"holds no features \(they have the shape \(3, 0\)\)"):
        load(tmp_path / "t.npy", largest_in_memory=0)


def shortened(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def rewritten(path: Path) -> None:
    content, before = path.read_bytes(), path.stat().st_mtime_ns
    path.write_bytes(bytes(len(content)))
    os.utime(path, ns=(before + 1, before + 1))


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shortened, "has been changed or replaced since it was opened; leave it as it is"),
        (rewritten, "has been changed or replaced since it was opened; leave it as it is"),
        (removed, r"cannot be read \(No such file or directory\)"),
    ],
)
def test_a_file_that_changes_is_not_read_any_more(tmp_path: Path, kind: str, change: Any, message: str) -> None:
    name = write(kind, tmp_path, *samples("uint8"))
    data: Dataset = load(name, label_column=-1, largest_in_memory=0)
    path = Path(name.partition(",")[0])
    change(path)
    for act in (data.digest, lambda: data.features.take(np.arange(3)), lambda: data.features.limits):
        with pytest.raises(DataError, match=f"{path.name}: {message}"):
            act()


def test_reading_ahead_is_one_item_ahead() -> None:
    read: list[int] = []
    seen = threading.Event()

    def double(item: int) -> int:
        assert threading.current_thread() is not threading.main_thread()
        read.append(item)
        if item == 1:
            seen.set()
        return 2 * item

    results = read_ahead(double, range(5))
    assert next(results) == 0
    assert seen.wait(10), "the second was not read while the first was in use"
    assert read == [0, 1]
    assert list(results) == [2, 4, 6, 8]
    assert list(read_ahead(double, [])) == []


def test_an_error_of_reading_ahead_comes_where_the_item_would() -> None:
    results = read_ahead(lambda item: 1 // item, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


TRAIN = """
import resource, sys
from mlp_xp import Settings, load, open_backend, train
import mlp_xp.datasets.stored

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

settings = Settings((), epochs=1, batch_size=500)
list(train(settings, load("digits").split(), open_backend("numpy")))
before = peak()
data = load(sys.argv[1], n_classes=2).split()
(epoch,) = train(settings, data, open_backend("numpy"))
assert epoch.step_losses.size == 320_000 // 500, epoch
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    size = 400_000 * 1000
    with (tmp_path / "t.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (400_000, 1000)})
        file.truncate(file.tell() + size)  # zeros that take no room on most file systems
    result = subprocess.run(
        [sys.executable, "-c", TRAIN, str(tmp_path / "t.npy")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    # Some blocks of 32 MiB at a time, twice as long as they are read without their labels, and 400,000 labels.
    assert int(result.stdout) < 0.6 * size
