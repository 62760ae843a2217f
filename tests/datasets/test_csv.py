"""CSV: what is read, and for each fault the line that an editor shows and the remedy."""

from __future__ import annotations

import gzip
import os
import re
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlp_xp.datasets import csv, load, load_features
from mlp_xp.datasets.files import MOST_OF_A_LINE
from mlp_xp.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def table(path: Path, text: str | bytes, **options: Any) -> Any:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return csv.read_table(path, **options)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("1,2\n3,4\n", [[1, 2], [3, 4]]),
        ("1,2\n3,4", [[1, 2], [3, 4]]),
        ("1,2\r\n3,4\r\n", [[1, 2], [3, 4]]),
        ("1,2\r3,4\r", [[1, 2], [3, 4]]),
        ("\n\n1,2\n\n3,4\n\n", [[1, 2], [3, 4]]),
        ("\ufeff1,2\n", [[1, 2]]),
        (' 1 ,"2"\n+3,\t4\n', [[1, 2], [3, 4]]),
        ("7\n", [[7]]),
        ("7\n8\n", [[7], [8]]),
        ("0,255\n", [[0, 255]]),
    ],
)
def test_small_integers_stay_bytes(path: Path, text: str, rows: list[list[int]]) -> None:
    got = table(path, text)
    assert got.dtype == np.uint8
    assert got.tolist() == rows


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("256,1\n", [[256, 1]]),
        ("-1,1\n", [[-1, 1]]),
        ("-0,1\n", [[0, 1]]),
        ("1e2,1\n", [[100, 1]]),
        ("1.0,1\n", [[1, 1]]),
        ("1,2\n3,1.5\n", [[1, 2], [3, 1.5]]),
        ("65537,4294967297\n", [[65537, 4294967297]]),
        ("18446744073709551617,1\n", [[2.0**64, 1]]),
        ("1e300,5e-324\n", [[1e300, 5e-324]]),
        ("0.1,.5\n", [[0.1, 0.5]]),
    ],
)
def test_other_numbers_become_floats_and_never_wrap(path: Path, text: str, rows: list[list[float]]) -> None:
    got = table(path, text)
    assert got.dtype == np.float64
    assert got.tolist() == rows


@pytest.mark.parametrize(
    ("header", "found"),
    [("a,b", True), ("label,0", True), ('"a,b\nc",d', True), ("#1,2", True), (",a", True), ("1,2", False)],
)
def test_header_is_detected(path: Path, header: str, found: bool) -> None:
    path.write_text(f"\n{header}\n3,4\n")
    assert csv.has_header(path) is found
    assert csv.read_table(path).tolist() == ([[3, 4]] if found else [[1, 2], [3, 4]])


def test_header_can_be_forced(path: Path) -> None:
    assert table(path, "0,1\n3,4\n", header=True).tolist() == [[3, 4]]
    with pytest.raises(DataError, match=r"table\.csv:1: column 1 of 2 is not a number: 'a'; "):
        table(path, "a,b\n3,4\n", header=False)


def test_header_need_not_be_utf8(path: Path) -> None:
    assert table(path, "größe,b\n3,4\n".encode("latin-1")).tolist() == [[3, 4]]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("1,2\n3\n", "2: expected 2 columns, found 1; give every row"),
        ("1,2\n\n\n3,4,5\n", "4: expected 2 columns, found 3; "),
        ("a,b\n1,2\n3,4,\n", "3: expected 2 columns, found 3; "),
        ("1,2,\n", "1: column 3 of 3 is empty; .*trailing comma"),
        ("1,,2\n", "1: column 2 of 3 is empty; "),
        ("1,2\n3, \n", "2: column 2 of 2 is empty; "),
        ("1,2\n3,x\n", "2: column 2 of 2 is not a number: 'x'; write names and categories as numbers"),
        ("1,2\r\n3,4\r\n5,x\r\n", "3: column 2 of 2 is not a number: 'x'"),
        ("1,2\n3,4#5\n", "2: column 2 of 2 is not a number: '4#5'"),
        ("1,2\n#3,4\n", "2: column 1 of 2 is not a number: '#3'"),
        ("1,2\n3,#4\n", "2: column 2 of 2 is not a number: '#4'"),
        ("1,2\n1_0,2\n", "2: column 1 of 2 is not a number: '1_0'"),
        ("1,2\n0x10,2\n", "2: column 1 of 2 is not a number: '0x10'"),
        ("1,2\n１,2\n", "2: column 1 of 2 is not a number: '１'"),
        ("1,2\n" + "y" * 99 + ",2\n", "2: column 1 of 2 is not a number: 'y{37}\\.\\.\\.'; "),
        ("1;2\n3;4\n", "2: column 1 of 1 is not a number: '3;4'; separate the columns by commas"),
        ("1\t2\n3\t4\n", "2: column 1 of 1 is not a number: .*; separate the columns by commas"),
        ("1,2\n3,nan\n", "2: column 2 of 2 is not finite: 'nan'; remove the row"),
        ("1,2\n0.5,1\n3,NaN\n", "3: column 2 of 2 is not finite: 'NaN'; "),
        ("nan,2\n3,4\n", "1: column 1 of 2 is not finite: 'nan'; "),
        ("1,2\n-inf,4\n", "2: column 1 of 2 is not finite: '-inf'; "),
        ("1,2\n1e400,4\n", "2: column 1 of 2 is not finite: '1e400'; "),
        ('1,2\n"3\n",x\n', "3: column 2 of 2 is not a number: 'x'"),
        (b"1,2\n3,\xff\n", "2: column 2 of 2 is not a number: .*; save the file as UTF-8"),
        ("1,2\n3,4\n".encode("utf-16"), "2: .* is not a number: .*; save the file as UTF-8"),
        ("1" * 200_000 + "," + "2" * 200_000, "1: not CSV .*field limit"),
    ],
)
def test_the_first_bad_row_is_named(path: Path, text: str | bytes, fault: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}:{fault}"):
        table(path, text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no rows; "),
        ("\n \n".replace(" ", ""), "no rows; "),
        ("\ufeff", "no rows; "),
        ("a,b\n", "a header and no rows; give at least one row"),
        ('"0","1\n1,2\n', "a quote is not closed, so the rest of the file is a single cell; close it"),
        ('"a\nb",c\n', "a header and no rows; give at least one row"),
    ],
)
def test_files_without_rows(path: Path, text: str, fault: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: {fault}"):
        table(path, text)


def test_gzip_is_read_whatever_the_name(path: Path) -> None:
    assert table(path, gzip.compress(b"a,b\n1,2\n")).tolist() == [[1, 2]]


def test_corrupt_gzip(path: Path) -> None:
    whole = gzip.compress(b"1,2\n" * 9999)
    for broken in (whole[:-9], whole[:30] + b"\0\0\0\0" + whole[34:], whole + b"more"):
        with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: corrupt gzip \(.+\); get or make"):
            table(path, broken)


def test_a_folder_is_not_a_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\); check the path"):
        csv.read_table(tmp_path)


@pytest.mark.parametrize(("column", "labels"), [(0, [1, 0]), (1, [2, 3]), (-1, [9, 8]), (-3, [1, 0])])
def test_load_takes_labels_from_a_column(path: Path, column: int, labels: list[int]) -> None:
    path.write_text("1,2,9\n0,3,8\n")
    data = load(str(path), label_column=column)
    assert data.targets.tolist() == labels
    assert data.features.shape == (2, 2)
    assert data.features.dtype == np.uint8
    assert (data.name, data.n_classes, data.scale) == (str(path), max(labels) + 1, 1.0)


def test_load_images(path: Path) -> None:
    path.write_text("label,p0,p1\n3,0,255\n1,7,0\n")
    data = load(path)
    assert data.features.tolist() == [[0, 255], [7, 0]]
    assert data.features.dtype == np.uint8
    assert (data.targets.tolist(), data.n_classes, data.scale) == ([3, 1], 4, 1 / 256)


def test_load_for_a_regression(path: Path) -> None:
    path.write_text("0.5,1\n-2,3\n")
    data = load(path, regression=True)
    assert data.targets.tolist() == [[0.5], [-2.0]]
    assert data.features.dtype == np.float64


def test_faults_in_labels_name_their_line(path: Path) -> None:
    path.write_text("y,x\n\n0,1\n\n1.5,2\n")
    with pytest.raises(DataError, match=rf"{re.escape(str(path))}:5: label 1\.5 is fractional; "):
        load(path)
    path.write_text("0,1\n\n5,2\n")
    with pytest.raises(DataError, match=rf"{re.escape(str(path))}:3: label 5 is not below 5, the number of"):
        load(path, n_classes=5)
    with pytest.raises(DataError, match=r"there is no label column 2 in rows of 2 columns; "):
        load(path, label_column=2)


def test_a_column_of_labels_alone_is_no_data(path: Path) -> None:
    path.write_text("0\n1\n")
    with pytest.raises(DataError, match="holds no features"):
        load(path)


def test_load_features(path: Path) -> None:
    path.write_text("a,b,c\n7,0,255\n8,7,0\n")
    assert load_features(path, n_features=3).tolist() == [[7, 0, 255], [8, 7, 0]]
    assert load_features(path, n_features=2, label_column=0).tolist() == [[0, 255], [7, 0]]
    assert load_features(path, n_features=3, header=True).dtype == np.uint8


@pytest.mark.parametrize(
    ("n_features", "options", "remedy"),
    [
        (2, {}, "leave it out: --label-column 0"),
        (3, {"label_column": 0}, "give a file with the columns that the model was trained on"),
        (4, {}, "give a file with the columns"),
    ],
)
def test_load_features_of_another_number(path: Path, n_features: int, options: dict[str, Any], remedy: str) -> None:
    path.write_text("7,0,255\n")
    found = 3 - len(options)
    text = rf"table\.csv: has {found} features per row, the model wants {n_features}; .*{remedy}"
    with pytest.raises(DataError, match=text):
        load_features(path, n_features=n_features, **options)


@in_one_folder
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)))
def test_bytes_survive(path: Path, values: Any) -> None:
    np.savetxt(path, values, fmt="%d", delimiter=",")
    got = csv.read_table(path)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, values)


@in_one_folder
@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_floats_survive(path: Path, values: Any) -> None:
    path.write_text("".join(",".join(map(repr, row)) + "\n" for row in values.tolist()))
    np.testing.assert_array_equal(csv.read_table(path), values)


@in_one_folder
@given(
    st.text(alphabet='0123456789.,,,-+e "\n\r\t;#na\0é', max_size=40)
    | st.binary(max_size=40)
    | st.binary(max_size=9).map(lambda bits: gzip.compress(b"1,2\n3,4\n")[:-9] + bits),
    st.sampled_from([None, True, False]),
)
def test_any_text_gives_numbers_or_a_data_error(path: Path, text: str | bytes, header: bool | None) -> None:
    try:
        got = table(path, text, header=header)
    except DataError as error:
        text = str(error)
        # The second pass found the fault: it never has to quote NumPy.
        assert text.startswith(str(path))
        assert "NumPy cannot read it" not in text
    else:
        assert got.ndim == 2
        assert np.isfinite(got).all()


def test_a_pipe_is_no_table(tmp_path: Path) -> None:
    """To open one would wait until somebody writes to it."""
    os.mkfifo(tmp_path / "x.csv")
    with pytest.raises(
        DataError, match=r"x\.csv: cannot be read \(it is a pipe or a device, not a file\); check the path"
    ):
        csv.read_table(tmp_path / "x.csv")


@pytest.mark.parametrize("header", [True, False, None])
def test_a_small_file_that_inflates_beyond_all_bounds(tmp_path: Path, header: bool | None) -> None:
    """A line after line of zeros is a thousandth of its size; ten megabytes of it are believed, twenty are not."""
    line, path = b"0,0,0,0,0,0,0,0\n", tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(line * 600_000))
    assert csv.read_table(path, header=False).shape == (600_000, 8)
    path.write_bytes(gzip.compress(line * 1_300_000))
    with pytest.raises(
        DataError, match=r"x\.csv\.gz: inflates to more than 16,777,216 bytes, .*; decompress it yourself"
    ):
        csv.read_table(path, header=header)


@pytest.mark.parametrize("header", [True, False, None])
def test_one_line_without_an_end_does_not_fill_the_memory(tmp_path: Path, header: bool | None) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b"0" * 100_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"a line has more than 2,097,152 bytes; write a sample per line"):
            csv.read_table(path, header=header)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000_000


def test_the_longest_line_is_read_and_a_longer_one_is_not(path: Path) -> None:
    widest = b"0," * (MOST_OF_A_LINE // 2 - 1) + b"0\n"
    path.write_bytes(widest * 3)
    assert csv.read_table(path).shape == (3, MOST_OF_A_LINE // 2)
    path.write_bytes(b"0,0\n" + b"0," * MOST_OF_A_LINE + b"0\n")
    with pytest.raises(DataError, match=r"a line has more than 2,097,152 bytes; "):
        csv.read_table(path)


def test_a_row_that_goes_on_over_many_lines_is_bounded_too(path: Path) -> None:
    path.write_bytes(b'"10\n",' * 400_000)
    with pytest.raises(DataError, match=r"table\.csv:349526: its row has more than 2,097,152 characters; write"):
        csv.read_table(path)


def test_a_quote_that_is_part_of_a_name_ends_with_its_line(path: Path) -> None:
    path.write_bytes(b'label,5" pipe\n' + b"0,1\n1,2\n" * 400_000)
    assert csv.read_table(path).shape == (800_000, 2)


def test_an_error_quotes_the_beginning_of_a_long_cell(path: Path) -> None:
    path.write_bytes(b"0," + b"9" * 100_000 + b"\n")
    with pytest.raises(DataError, match=r"column 2 of 2 is not finite: '9{37}\.\.\.'; "):
        csv.read_table(path)
