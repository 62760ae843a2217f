"""Labels and features of any file become the contract, or an error that names the row and the remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlp_xp.datasets import Dataset
from mlp_xp.datasets.targets import Samples, as_rows, by_sample, take_column, to_dataset
from mlp_xp.errors import DataError, SettingsError


def dataset(features: Any, labels: Any, scale: float | None = None, **options: Any) -> Dataset:
    samples = Samples(np.asarray(features), np.asarray(labels), by_sample("file"), scale)
    return to_dataset("file", samples, **options)


def labelled(labels: Any, **options: Any) -> Dataset:
    return dataset(np.ones((len(labels), 2)), labels, **options)


@pytest.mark.parametrize("kind", ["uint8", "int8", "int64", ">i4", "uint64", "float32", ">f8", "float16", "bool"])
def test_labels_of_any_type_become_int32(kind: str) -> None:
    data = labelled(np.array([1, 0, 1]).astype(kind))
    assert data.targets.dtype == np.int32
    assert data.targets.dtype.isnative
    np.testing.assert_array_equal(data.targets, [1, 0, 1])


@pytest.mark.parametrize(("labels", "n_classes"), [([0], 2), ([0, 1], 2), ([4, 0], 5), ([65_535], 65_536)])
def test_classes_are_counted_from_the_largest_label(labels: list[int], n_classes: int) -> None:
    assert labelled(labels).n_classes == n_classes


def test_classes_can_be_given() -> None:
    assert labelled([0, 1], n_classes=10).n_classes == 10
    assert labelled([70_000], n_classes=70_001).targets.tolist() == [70_000]


def test_a_column_of_labels_is_flattened() -> None:
    assert labelled(np.array([[2], [0]])).targets.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("labels", "options", "text"),
    [
        ([0, 1, 2.5, -1], {}, r"sample 2 .*label 2\.5 is fractional; .*--task regression"),
        ([0, -1, 2.5], {}, r"sample 1 .*label -1\.0 is negative; number the classes from 0"),
        ([0, 3, 10, 11], {"n_classes": 10}, r"sample 2 .*label 10 is not below 10, .*raise --classes"),
        ([0, 65_536], {}, r"sample 1 .*label 65536 is not below 65536, .*--label-column"),
        ([0, 1e300], {}, r"sample 1 .*label 1e\+300 is not below"),
        ([0, 2**63], {}, r"sample 1 .*label 9\.223372036854776e\+18 is not below"),
        ([0, np.nan], {}, r"sample 1 .*a label is nan; "),
        ([0, -np.inf], {"regression": True}, r"sample 1 .*a label is -inf; "),
        ([[0, 1], [1, 0]], {}, r"file: the labels have shape \(2, 2\).*argmax"),
        (["a", "b"], {}, r"file: its labels are of type <U1, not real numbers; "),
        ([1j, 2], {}, r"file: its labels are of type complex128"),
    ],
)
def test_labels_that_are_no_classes(labels: list[Any], options: dict[str, Any], text: str) -> None:
    with pytest.raises(DataError, match=text):
        labelled(np.array(labels), **options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n_classes": 1}, "cannot have 1 classes; give --classes 2 or more"),
        ({"n_classes": 0}, "cannot have 0 classes"),
        ({"n_classes": 2**31 + 1}, "cannot have 2147483649 classes"),
        ({"n_classes": 3, "regression": True}, "a regression has no classes; leave out --classes"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        labelled([0, 1], **options)


def test_regression_targets_are_columns_of_floats() -> None:
    data = labelled(np.array([5, 250], np.uint8), regression=True)
    assert data.targets.dtype == np.float64
    assert data.targets.tolist() == [[5.0], [250.0]]
    assert data.n_classes is None
    assert labelled(np.array([[1.5, -2], [0, 1]]), regression=True).targets.tolist() == [[1.5, -2], [0, 1]]


@pytest.mark.parametrize(
    ("features", "scale"),
    [
        (np.array([[0, 127]], np.uint8), 1.0),
        (np.array([[0, 128]], np.uint8), 1 / 256),
        (np.array([[0, 255]], np.int64), 1.0),
        (np.array([[0, 255.0]]), 1.0),
    ],
)
def test_only_full_bytes_are_taken_as_images(features: Any, scale: float) -> None:
    assert dataset(features, [0]).scale == scale


def test_a_source_may_know_its_scale() -> None:
    assert dataset(np.array([[255]], np.uint8), [0], scale=0.5).scale == 0.5


@pytest.mark.parametrize("kind", ["uint8", "int16", ">i4", "float16", "float32", ">f8", "bool", "longdouble"])
def test_features_become_rows_in_native_order(kind: str) -> None:
    expected = {"bool": "uint8", "longdouble": "float64"}.get(kind, kind.removeprefix(">"))
    for shape in (2, 3, 2), (2, 6):
        images = np.asfortranarray(np.arange(12).reshape(shape) % 2).astype(kind)
        rows = as_rows(images, "file", by_sample("file"))
        np.testing.assert_array_equal(rows, [[0, 1, 0, 1, 0, 1]] * 2)
        assert rows.flags.c_contiguous
        assert rows.dtype == np.dtype(expected)
        assert rows.dtype.isnative


@pytest.mark.parametrize(
    ("features", "labels", "text"),
    [
        (np.ones((3, 2)), [0, 1], "file: 3 rows of features but 2 of targets; "),
        (np.ones((0, 2)), [], r"file: holds no features \(they have the shape \(0, 2\)\)"),
        (np.ones((2, 0)), [0, 1], "file: holds no features"),
        (np.ones((2, 1)), np.ones((2, 0)), "file: holds no labels"),
        (np.float64(1), np.float64(1), "file: holds no features"),
        ([["a"]], [0], "file: its features are of type <U1, not real numbers; store integers or floats"),
        (np.array(["2020-01-01"], "M8[D]"), [0], "file: its features are of type datetime64"),
        ([[1.0, 2], [3, np.inf]], [0, 1], r"file: sample 1 \(counted from 0\): a feature is inf; "),
    ],
)
def test_features_that_cannot_be_used(features: Any, labels: Any, text: str) -> None:
    with pytest.raises(DataError, match=text):
        dataset(features, labels)


@pytest.mark.parametrize("column", [0, 1, 2, -1, -3])
def test_take_column(column: int) -> None:
    table = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    rest, taken = take_column(table, column, "file")
    np.testing.assert_array_equal(taken, table[:, column])
    np.testing.assert_array_equal(rest, [[x for x in row if x not in taken] for row in table.tolist()])
    assert rest.dtype == np.uint8
    assert rest.flags.c_contiguous


@pytest.mark.parametrize("column", [3, -4])
def test_take_column_out_of_range(column: int) -> None:
    text = f"file: there is no label column {column} in rows of 3 columns; give --label-column 0 to 2, or -1"
    with pytest.raises(DataError, match=text):
        take_column(np.ones((1, 3)), column, "file")


@given(
    hnp.arrays(hnp.scalar_dtypes() | hnp.unicode_string_dtypes(), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)),
    st.booleans(),
)
def test_any_array_gives_the_contract_or_a_data_error(labels: Any, regression: bool) -> None:
    features = np.ones((len(labels) if labels.ndim else 1, 1))
    try:
        data = dataset(features, labels, regression=regression)
    except DataError:
        return
    assert len(data.targets) == len(labels)
    if regression:
        assert data.targets.dtype == np.float64
        assert data.targets.ndim == 2
        return
    assert data.targets.dtype == np.int32
    assert data.n_classes is not None
    assert 0 <= data.targets.min() <= data.targets.max() < data.n_classes
    np.testing.assert_array_equal(data.targets, labels.ravel())


def test_a_single_class_is_refused_unless_the_classes_are_named() -> None:
    """A constant first column is more likely the wrong one than a task."""
    samples = Samples(np.zeros((3, 2)), np.zeros(3), by_sample("file"))
    with pytest.raises(DataError, match=r"every label is 0, .*--label-column -1 is the last"):
        to_dataset("file", samples)
    assert to_dataset("file", samples, n_classes=2).n_classes == 2
