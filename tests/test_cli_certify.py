"""``mlp-xp certify``: the bits of every sum, or the reason why a training cannot be exact."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from mlp_xp.arithmetic.certificate import certificate
from mlp_xp.cli import main

Captured = pytest.CaptureFixture[str]


def table(text: str) -> list[list[str]]:
    """Return the cells of the table, of which two or more spaces keep one from the next."""
    return [[cell for cell in line.split("  ") if cell.strip()] for line in text.splitlines() if "  " in line]


def test_every_sum_of_the_lab_has_its_line(capsys: Captured) -> None:
    assert main(["certify", "--preset", "lab"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    header, *rows = ([cell.strip() for cell in row] for row in table(output.out))
    assert header == ["where", "sum of", "terms", "bits of the factors + of adding", "of 53 bits"]
    entries = certificate((64, 256, 256, 10), 200)
    assert len(rows) == len(entries)
    for (where, what, terms, bits, together), entry in zip(rows, entries, strict=True):
        assert where == ("loss" if entry.layer is None else f"layer {entry.layer}")
        assert what == entry.sum
        assert int(terms.replace(",", "")) == entry.terms
        assert sum(map(int, bits.split(" + "))) == int(together) == entry.bits <= 53
    assert output.out.splitlines()[-1] == (
        "every sum is an integer of at most 53 bits times a power of two: none can round"
    )


def test_a_line_can_be_added_up_by_hand(capsys: Captured) -> None:
    """Adding 64 products takes 6 bits, as 64 is 2**6; 1,437 numbers take 11."""
    assert main(["certify", "--hidden", "", "--batch-size", "1437"]) == 0
    rows = [[cell.strip() for cell in row] for row in table(capsys.readouterr().out)]
    assert rows[1][:3] == ["layer 0", "x W", "64"]
    assert rows[1][3].endswith(" + 6")
    assert rows[3][:3] == ["layer 0", "delta", "1,437"]
    assert rows[3][3].endswith(" + 11")


def test_a_scale_that_is_no_power_of_two_is_refused_with_the_nearest(capsys: Captured) -> None:
    assert main(["certify", "--scale", "1/255"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("mlp-xp: error: exact arithmetic takes a scale that is a power of two")
    assert output.err.endswith("the nearest is 0.00390625 (1/256)\n")
    assert main(["certify", "--scale", "1/256"]) == 0


def test_a_batch_that_is_too_large_is_refused_with_the_largest(tmp_path: Path, capsys: Captured) -> None:
    np.save(tmp_path / "rows.npy", np.column_stack([np.arange(12000) % 2, np.arange(12000) / 12000]))
    arguments = ["certify", "--data", str(tmp_path / "rows.npy"), "--hidden", "4", "--batch-size"]
    assert main([*arguments, "8193"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert re.match("mlp-xp: error: exact arithmetic: layer 0: .* 8193 .*: choose batch_size ≤ 8192\n", output.err)
    assert main([*arguments, "8192"]) == 0


def test_what_is_certified_is_what_trains(capsys: Captured) -> None:
    """And what is refused does not train."""
    options = ["--hidden", "4", "--epochs", "1", "--scale", "1/255"]
    assert main(["train", "--arithmetic", "exact", *options]) == 2
    trained = capsys.readouterr().err
    assert main(["certify", *options]) == 2
    assert capsys.readouterr().err == trained


def test_the_help_says_what_the_table_means(capsys: Captured) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["certify", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "the bits of the factors of a term plus those that adding so many terms can take" in text
    assert "Exit code: 0 if all fit, 2 if they do not" in text
