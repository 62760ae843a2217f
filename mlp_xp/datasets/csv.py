"""CSV: the fast reader is NumPy's; where it stops, a second pass finds the line and says what is wrong."""

from __future__ import annotations

import csv
import math
import warnings
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from mlp_xp.datasets.files import MOST_OF_A_LINE, data_error, open_text
from mlp_xp.datasets.targets import Samples, take_column
from mlp_xp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray


def read(path: Path, *, label_column: int = 0, header: bool | None = None) -> Samples:
    """Read a table with its labels in one of the columns; see `read_table`."""
    header = has_header(path) if header is None else header
    features, labels = take_column(read_table(path, header=header), label_column, path)
    return Samples(features, labels, lambda row: f"{path}:{_line_of(path, row, header)}")


def read_table(path: Path, *, header: bool | None = None) -> NDArray[Any]:
    """Read all numbers of a file, gzip or plain.

    Parameters
    ----------
    path : Path
        Comma-separated text. Blank lines are passed over, numbers may be quoted.
    header : bool or None
        Whether the first row holds names; None to find out (see `has_header`).

    Returns
    -------
    ndarray of shape (n_rows, n_columns)
        uint8 if every number is written as an integer from 0 to 255, else float64.

    Raises
    ------
    DataError
        A row of another length, a cell that is empty, no number or not finite (each with its line); no rows;
        a file that cannot be read.
    """
    header = has_header(path) if header is None else header
    reason = "a number is not finite"
    for kind in (np.uint8, np.float64):
        with open_text(path) as lines, warnings.catch_warnings():
            # Warnings are errors here: of no rows, and of older NumPy reading 1.5 as 1 and 300 as 44.
            warnings.simplefilter("error")
            if header:
                next(_rows(path, lines), None)
            try:
                table = np.loadtxt(lines, kind, comments=None, delimiter=",", quotechar='"', ndmin=2)
            except DataError:  # a ValueError, too
                raise
            except (ValueError, Warning) as error:
                reason = str(error)
                continue
        if kind is np.uint8 or np.isfinite(table).all():
            return table
    raise _first_fault(path, header, reason)


def has_header(path: Path) -> bool:
    """Tell whether a cell of the first row is text (an empty cell is not: it is a fault in the data).

    Raises
    ------
    DataError
        There is no row; the file cannot be read.
    """
    with open_text(path) as lines:
        _, cells = next(_rows(path, lines), (0, []))
    if not cells:
        raise _no_rows(path, header=False)
    return any(cell.strip() and _number(cell) is None for cell in cells)


def _rows(path: Path, lines: IO[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the cells of each row that is not blank."""
    length = 0

    def bounded(lines: Iterable[str]) -> Iterator[str]:
        nonlocal length
        for line in lines:
            length += len(line)
            if length > MOST_OF_A_LINE:  # of one row: its quotes go on over the ends of lines
                problem = f"its row has more than {MOST_OF_A_LINE:,} characters"
                raise data_error(f"{path}:{reader.line_num + 1}", problem, "write a sample per line")
            yield line

    reader = csv.reader(bounded(lines))
    try:
        for cells in reader:
            length = 0
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        raise data_error(f"{path}:{reader.line_num}", f"not CSV ({error})", "is it a text file?") from error


def _line_of(path: Path, row: int, header: bool) -> int:
    with open_text(path) as lines:
        for index, (line, _) in enumerate(_rows(path, lines), start=-1 if header else 0):
            if index == row:
                return line
    raise AssertionError(f"{path} has changed: row {row} is gone")


def _number(cell: str) -> float | None:
    """Return the number a cell holds, or None; Python's 1_000 and non-ASCII digits are no numbers here."""
    try:
        return float(cell) if cell.isascii() and "_" not in cell else None
    except ValueError:
        return None


def _first_fault(path: Path, header: bool, reason: str) -> DataError:
    """Return the error that names the first bad row; `reason` is for a file whose fault only NumPy sees."""
    with open_text(path) as lines:
        rows = _rows(path, lines)
        if header:
            next(rows, None)
        width = 0
        for line, cells in rows:
            width = width or len(cells)
            if fault := _fault(cells, width):
                return data_error(f"{path}:{line}", *fault)
    if not width:
        if _is_open(path):
            return data_error(path, "a quote is not closed, so the rest of the file is a single cell", "close it")
        return _no_rows(path, header)
    return data_error(path, f"NumPy cannot read it ({reason})", "write it as plain comma-separated numbers")


def _is_open(path: Path) -> bool:
    """Tell whether the file ends within quotes."""
    with open_text(path) as lines:
        try:
            for _ in csv.reader(lines, strict=True):
                pass
        except csv.Error as error:
            return "unexpected end" in str(error)
    return False


def _no_rows(path: Path, header: bool) -> DataError:
    return data_error(path, "a header and no rows" if header else "no rows", "give at least one row of numbers")


def _fault(cells: list[str], width: int) -> tuple[str, str] | None:
    """Return what is wrong with a row and how to mend it, or None."""
    if len(cells) != width:
        return f"expected {width} columns, found {len(cells)}", "give every row the same number of columns"
    for column, cell in enumerate(cells, start=1):
        place, number = f"column {column} of {width}", _number(cell)
        if not cell.strip():
            return f"{place} is empty", "write a number there, or remove the row or the trailing comma"
        if number is None:
            return f"{place} is not a number: {_shortened(cell)!r}", _remedy(cell)
        if not math.isfinite(number):
            return f"{place} is not finite: {_shortened(cell.strip())!r}", "remove the row or replace the value"
    return None


def _shortened(cell: str) -> str:
    return cell if len(cell) <= 40 else cell[:37] + "..."


def _remedy(cell: str) -> str:
    if "\0" in cell or "\ufffd" in cell:
        return "save the file as UTF-8 text"
    if ";" in cell or "\t" in cell.strip():
        return "separate the columns by commas"
    return "write names and categories as numbers"
