"""``mlp-xp study pca``: what it measures on every library, that its claims can fail, and what it writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_iris

from mlp_xp.backend import Backend, open_backend
from mlp_xp.cli import main
from mlp_xp.datasets import Dataset, npy
from mlp_xp.datasets.stored import StoredTable
from mlp_xp.errors import DataError
from mlp_xp.studies.pca import (
    COPIES,
    KINDS,
    MOVES,
    RIVALS,
    SOLVERS,
    Findings,
    Moved,
    angles,
    dimensions,
    n_steps,
    orthonormal,
    rotation,
    shown,
    study,
)
from mlp_xp.studies.pca_figure import draw_pca
from mlp_xp.studies.pca_report import claims, report
from mlp_xp.studies.rows import image_side, take_rows

IRIS: NDArray[np.float64] = load_iris().data
CLASSES: NDArray[np.int64] = load_iris().target


@pytest.fixture(scope="module")
def findings() -> Findings:
    return study(IRIS, "iris on numpy", open_backend("numpy"), "float64", "covariance_eigh", 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_all_claims_hold_on_every_library(backend: Backend, dtype: str, solver: str) -> None:
    ticks: list[str] = []
    found = study(IRIS, "iris", backend, dtype, solver, 1, ticks.append)
    assert [claim.text for claim in claims(found) if not claim.holds] == []
    assert len(ticks) == n_steps(*IRIS.shape)
    epsilon = float(np.finfo(dtype).eps)
    assert found.epsilon == epsilon
    eigenvalues = np.linalg.eigvalsh(np.cov(IRIS.T))[::-1]
    np.testing.assert_allclose(found.axes.variances, eigenvalues, atol=200 * epsilon * eigenvalues[0])
    assert list(found.errors) == [1, 2, 3, 4]
    for k, error in found.errors.items():
        assert error == pytest.approx(eigenvalues[k:].sum(), abs=200 * epsilon * eigenvalues[0])
    assert {k: len(errors) for k, errors in found.rivals.items()} == {1: RIVALS, 2: RIVALS}
    assert [moved.kind for moved in found.moved] == 2 * MOVES * KINDS
    assert [name for name, _, _ in found.worked] == list(COPIES)
    np.testing.assert_allclose(found.worked[0][2].components[0], [0.0, 1.0], atol=8 * epsilon)


@pytest.mark.parametrize("shape", [(5, 30), (6, 1), (2, 2), (40, 40)])
def test_claims_hold_of_any_shape(numpy_backend: Backend, shape: tuple[int, int]) -> None:
    rows = 1.0 + np.random.default_rng(0).normal(size=shape)
    found = study(rows, "made up", numpy_backend, "float64", "covariance_eigh", 0)
    assert [claim for claim in claims(found) if not claim.holds] == []
    assert set(shown(min(shape))) <= set(dimensions(min(shape)))
    draw_pca(found, rows, None)


def test_angles_and_rotations() -> None:
    rng = np.random.default_rng(0)
    matrix = rotation(4, rng)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(4), atol=1e-14)
    assert np.linalg.det(matrix) == pytest.approx(1.0)
    tilted = np.eye(3)[[0, 2]] * np.cos(0.1) + np.eye(3)[[1, 0]] * [[np.sin(0.1)], [0.0]]
    np.testing.assert_allclose(angles(np.eye(3)[:2], tilted / np.linalg.norm(tilted, axis=1)[:, None])[0], np.sin(0.1))
    np.testing.assert_allclose(angles(np.eye(3)[:2], np.eye(3)[[1, 0]]), [1.0, 0.0], atol=1e-15)
    assert np.linalg.matrix_rank(np.concatenate([orthonormal(np.ones((1, 3))), np.ones((1, 3))])) == 1


def wrong(findings: Findings) -> dict[str, Findings]:
    """Return findings each of which contradicts one claim, by the beginning of that claim."""
    axes, tolerance = findings.axes, findings.tolerance
    name, points, worked = findings.worked[0]
    turned = worked._replace(components=worked.components[::-1])
    longer = axes._replace(components=1.001 * axes.components)
    moved = findings.moved[0]
    by_kind = {
        kind: [one._replace(angles=one.angles + one.bounds) if one.kind == kind else one for one in findings.moved]
        for kind in KINDS
    }
    assert isinstance(moved, Moved)
    return {
        "w1 of": replace(findings, worked=[(name, points, turned)]),
        "the axes have length": replace(findings, axes=longer),
        "translations": replace(findings, moved=by_kind["translation"]),
        "scalings": replace(findings, moved=by_kind["scaling"]),
        "rotations": replace(findings, moved=by_kind["rotation"]),
        "the variances along": replace(findings, total_variance=findings.total_variance + 2 * tolerance),
        "the reconstruction's": replace(findings, errors={**findings.errors, 2: findings.errors[2] + 2 * tolerance}),
        "no other": replace(findings, rivals={1: [findings.errors[1] - 2 * tolerance]}),
    }


def test_each_claim_can_fail(findings: Findings) -> None:
    texts = [claim.text for claim in claims(findings)]
    cases = wrong(findings)
    assert len(cases) == len(texts)
    for text, (beginning, case) in zip(texts, cases.items(), strict=True):
        assert text.startswith(beginning)
        assert [claim.text for claim in claims(case) if not claim.holds] == [text]
        assert not report(case, {}).holds
        assert f"FAILS  {text}" in report(case, {}).text()


def test_the_report_is_json(findings: Findings) -> None:
    ours = report(findings, {"numpy": "2", "device": "cpu"}).to_dict()
    again = json.loads(json.dumps(ours, allow_nan=False))
    assert set(again) == {
        *("study", "title", "table", "claims", "backend", "dtype", "solver", "n_rows", "n_features", "tolerance"),
        *("total_variance", "explained_variance", "axes_needed", "reconstruction_errors", "other_subspaces"),
        *("worked_case", "moved"),
    }
    assert [row["axes"] for row in again["table"]] == ["1", "2", "4"]
    assert again["table"][0]["share of variance"] == "92.46%"
    assert again["axes_needed"] == {"90%": 1, "95%": 2, "99%": 3}
    assert again["solver"] == "covariance_eigh"
    assert all(claim["holds"] is True for claim in again["claims"])


def shares_of_iris() -> NDArray[np.float64]:
    eigenvalues = np.linalg.eigvalsh(np.cov(IRIS.T))[::-1]
    return np.asarray(eigenvalues / eigenvalues.sum(), dtype=np.float64)


def test_the_picture_shows_what_was_found(findings: Findings) -> None:
    worked, variances, loadings, reconstructed, plane, errors = draw_pca(findings, IRIS, CLASSES).axes
    assert [text.get_text() for text in worked.texts if text.get_text() in COPIES] == list(COPIES)
    assert sum(text.get_text() == "w1" for text in worked.texts) == len(COPIES)
    np.testing.assert_allclose(np.asarray(variances.get_lines()[0].get_ydata()), np.cumsum(shares_of_iris()))
    assert {text.get_text() for text in variances.texts} == {"90%: 1", "95%: 2", "99%: 3"}
    assert len(loadings.patches) == 3 * 4
    assert [line.get_label() for line in reconstructed.get_lines()] == ["as it is", "2 axes"]
    np.testing.assert_array_equal(reconstructed.get_lines()[0].get_ydata(), IRIS[0])
    assert sum(len(np.asarray(dots.get_offsets())) for dots in plane.collections) == 150
    drawn, tilted, best = errors.get_lines()
    assert np.size(drawn.get_xdata()) == np.size(tilted.get_xdata()) == RIVALS // 2 * 2
    np.testing.assert_array_equal(best.get_xdata(), [1, 2, 3])


def test_images_are_shown_as_such_and_many_classes_as_shades(numpy_backend: Backend) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 25))
    found = study(rows, "made up", numpy_backend, "float64", "full", 0)
    figure = draw_pca(found, rows, np.arange(40))
    images = figure.axes[2].get_images()[0].get_array()
    assert images is not None
    assert images.shape == (3 * 6 - 1, 4 * 6 - 1)
    assert [label.get_text() for label in figure.axes[3].get_yticklabels()][:2] == ["as it is", "20 axes"]
    assert figure.axes[-1].get_ylabel() == "class"


def test_the_command_writes_three_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savetxt(tmp_path / "iris.csv", np.column_stack([CLASSES, IRIS]), delimiter=",")
    arguments = ["study", "pca", "--data", str(tmp_path / "iris.csv"), "--solver", "full", "--out", str(tmp_path / "o")]
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"pca.txt", "pca.json", "pca.png"}
    assert (tmp_path / "o" / "pca.txt").read_text() == output.out
    assert output.out.count("\nholds  ") == 8
    assert json.loads((tmp_path / "o" / "pca.json").read_text())["solver"] == "full"
    assert (tmp_path / "o" / "pca.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("table", "arguments", "message"),
    [
        ("0,1,2\n1,1,2\n" * 9, "", "the rows do not vary; give at least two that differ"),
        ("0,1,2\n1,1e300,3\n" * 9, "--dtype float32", "which float32 cannot hold; use --dtype float64"),
        ("0,1,2\n1,2,3\n" * 9, "--backend nump", "unknown backend 'nump'; known, closest first: numpy"),
    ],
)
def test_what_cannot_be_studied_is_said_in_a_line(
    table: str, arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "table.csv").write_text(table)
    assert main(["study", "pca", "--data", str(tmp_path / "table.csv"), *arguments.split()]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err.splitlines()[-1]
    assert output.err.splitlines()[-1].startswith("mlp-xp: error: ")


def test_rows_are_scaled_and_come_from_files_too(tmp_path: Path) -> None:
    np.save(tmp_path / "iris.npy", np.column_stack([CLASSES, IRIS]))
    in_file = npy.read(tmp_path / "iris.npy", largest_in_memory=0).features
    assert isinstance(in_file, StoredTable)
    for features in (in_file, IRIS):
        data = Dataset("iris", features, CLASSES, 3, 0.5)
        np.testing.assert_array_equal(take_rows(data, "float64", 20), 0.5 * IRIS[:20])
        rounded = take_rows(data, "float32")
        assert rounded.dtype == np.float64
        np.testing.assert_array_equal(rounded, (0.5 * IRIS).astype(np.float32))
        with pytest.raises(DataError, match="do not vary"):
            take_rows(data, "float64", 1)


def test_a_square_number_of_features_is_an_image_unless_it_is_small() -> None:
    assert [image_side(n) for n in (784, 64, 25, 16, 4, 30)] == [28, 8, 5, None, None, None]
