"""``mlp-xp study kmeans``: what it measures on every library, that its claims can fail, and what it writes."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from numpy.typing import NDArray
from sklearn.datasets import load_iris

from mlp_xp.backend import Backend, open_backend
from mlp_xp.cli import main
from mlp_xp.cluster import KMeans
from mlp_xp.clustering.deviations import Deviations
from mlp_xp.errors import SettingsError
from mlp_xp.studies.kmeans import (
    METRICS,
    Findings,
    Fitter,
    follow,
    n_steps,
    nearest,
    study,
    study_nested,
)
from mlp_xp.studies.kmeans_figure import draw_kmeans
from mlp_xp.studies.kmeans_report import claims, report
from mlp_xp.studies.outliers import COUNTS

IRIS: NDArray[np.float64] = load_iris().data
CLASSES: NDArray[np.int64] = load_iris().target


@pytest.fixture(scope="module")
def findings() -> Findings:
    return study(IRIS, 150, "iris on numpy", 4, Fitter(open_backend("numpy"), "float64", "native"), 0)


@pytest.mark.parametrize(("dtype", "arithmetic"), [("float64", "native"), ("float32", "native"), ("float64", "exact")])
def test_all_claims_hold_on_every_library(backend: Backend, dtype: str, arithmetic: str) -> None:
    ticks: list[str] = []
    found = study(IRIS, 150, "iris", 4, Fitter(backend, dtype, arithmetic), 0, ticks.append)
    assert [claim for claim in claims(found) if not claim.holds] == []
    assert len(ticks) == n_steps(4)
    assert [run.metric for run in found.runs] == list(METRICS)
    for metric, nested in found.nested.items():
        assert [fit.k for fit in nested] == [1, 2, 3, 4]
        middle = IRIS.mean(axis=0) if metric == "l2" else np.median(IRIS, axis=0)
        alone = ((IRIS - middle) ** 2).sum() if metric == "l2" else np.abs(IRIS - middle).sum()
        assert nested[0].objective == pytest.approx(alone, rel=1e-5)
        assert float(nested[0].deviations.within) == pytest.approx(float(nested[0].deviations.total), rel=1e-5)
    assert float(found.exact.total) == pytest.approx(IRIS.var(axis=0).sum(), rel=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_half_steps_are_lloyds(backend: Backend, metric: str) -> None:
    begin = IRIS[[0, 1, 2]] + np.random.default_rng(0).uniform(size=(3, 4))  # no row is as near to two of them
    run = follow(IRIS, begin, metric, Fitter(backend, "float64", "native"))
    assert run.is_over
    assert len(run.objectives) == 2 * len(run.path) - 1
    centers, expected = begin, []
    for _ in range(len(run.path)):
        each = np.abs(IRIS[:, None] - centers)
        labels = (each**2 if metric == "l2" else each).sum(axis=-1).argmin(axis=1)
        for _ in range(2):
            residuals = IRIS - centers[labels]
            expected.append((residuals**2 if metric == "l2" else np.abs(residuals)).sum())
            middle = np.mean if metric == "l2" else np.median
            centers = np.stack([middle(IRIS[labels == j], axis=0) for j in range(3)])
    np.testing.assert_allclose(run.objectives, expected[: len(run.objectives)], rtol=1e-12)
    np.testing.assert_allclose(run.path[-1], centers, rtol=1e-12)
    assert run.labels.tolist() == nearest(IRIS, run.path[-1], metric).tolist()


def test_a_cluster_that_is_empty_raises_nothing(backend: Backend) -> None:
    rows = np.asarray([[0.0], [1.0], [10.0], [11.0], [100.0]])
    run = follow(rows, np.asarray([[0.0], [50.0], [1000.0]]), "l2", Fitter(backend, "float64", "native"))
    assert len(np.unique(run.labels)) == 3
    assert all(after <= before for before, after in pairwise(run.objectives))


def test_each_fit_begins_where_the_one_before_ended(numpy_backend: Backend) -> None:
    begin = IRIS[[0, 1, 2]]
    nested = study_nested(IRIS, begin, "l2", Fitter(numpy_backend, "float64", "native"), lambda _: None)
    centers = IRIS[:0]
    for k, fit in enumerate(nested, start=1):
        alone = KMeans(k, init=np.concatenate([centers, begin[k - 1 : k]]), tol=0.0).fit(IRIS)
        assert (fit.k, fit.n_iter) == (k, alone.n_iter_)
        assert fit.objective == pytest.approx(alone.inertia_, rel=1e-12)
        centers = alone.cluster_centers_


def wrong(findings: Findings) -> dict[str, Findings]:
    """Return findings each of which contradicts one claim, by the beginning of that claim."""
    rise = 1.0 + 2.0 * findings.tolerance
    runs, nested = findings.runs, findings.nested

    def risen(i: int) -> Findings:
        higher = [*runs[i].objectives, rise * runs[i].objectives[-1]]
        return replace(findings, runs=[run._replace(objectives=higher) if run is runs[i] else run for run in runs])

    def grown(metric: str) -> Findings:
        higher = nested[metric][0].objective * (1.0 + 2.0 * findings.tolerance)
        fits = [fit._replace(objective=higher) if fit.k == 2 else fit for fit in nested[metric]]
        return replace(findings, nested={**nested, metric: fits})

    total, within, between = nested["l1"][1].deviations
    apart = nested["l1"][1]._replace(deviations=Deviations(total * rise * rise, within, between))
    exact = findings.exact
    return {
        "l2: neither": risen(0),
        "l1: neither": risen(1),
        "it stops": replace(findings, runs=[runs[0], runs[1]._replace(is_over=False)]),
        "l2: J does not grow": grown("l2"),
        "l1: J does not grow": grown("l1"),
        "the deviation": replace(findings, nested={**nested, "l1": [nested["l1"][0], apart, *nested["l1"][2:]]}),
        "in exact arithmetic": replace(findings, exact=exact._replace(total=exact.total + Fraction(1, 10**30))),
        "l1's centres move": replace(
            findings, shifts=[shift._replace(shift=1.0) if shift.metric == "l1" else shift for shift in findings.shifts]
        ),
    }


def test_each_claim_can_fail(findings: Findings) -> None:
    texts = [claim.text for claim in claims(findings)]
    cases = wrong(findings)
    assert len(cases) == len(texts)
    for text, (beginning, case) in zip(texts, cases.items(), strict=True):
        assert text.startswith(beginning)
        assert [claim.text for claim in claims(case) if not claim.holds] == [text]
        assert not report(case, {}).holds


def test_fits_that_would_go_on_are_told(findings: Findings) -> None:
    l2 = [fit._replace(is_over=fit.k != 3) for fit in findings.nested["l2"]]
    assert [c.text for c in claims(replace(findings, nested={**findings.nested, "l2": l2})) if not c.holds] == [
        "it stops after finitely many steps"
    ]


def test_the_report_is_json(findings: Findings) -> None:
    again = json.loads(json.dumps(report(findings, {"device": "cpu"}).to_dict(), allow_nan=False))
    assert set(again) == {
        *("study", "title", "table", "claims", "backend", "dtype", "arithmetic", "n_rows", "n_rows_given"),
        *("n_features", "tolerance", "worked_case", "runs", "nested", "exact_deviations", "outliers"),
    }
    assert [row["clusters"] for row in again["table"]] == ["1", "2", "3", "4"]
    assert again["exact_deviations"]["total"] == str(findings.exact.total)
    assert len(again["outliers"]) == 2 * 9 * len(COUNTS)
    assert np.shape(again["worked_case"]["points"]) == (150, 2)
    assert again["runs"][0]["objectives"] == findings.runs[0].objectives
    assert "the first 150 of 900 rows" in report(replace(findings, n_given=900), {}).title


def legend(panel: Axes) -> list[str]:
    found = panel.get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


def test_the_picture_shows_what_was_found(findings: Findings) -> None:
    worked, falling, shares, outliers, centers = draw_kmeans(findings).axes
    n_means, n_medians = (len(run.path) - 1 for run in findings.worked[1])
    names = [f"means (l2), {n_means} iterations", f"medians (l1), {n_medians} iterations", "where they begin"]
    assert legend(worked) == names
    assert sum(np.size(line.get_xdata()) for line in worked.get_lines()[:3]) == 150
    heights = np.asarray(falling.get_lines()[0].get_ydata())
    assert np.all(np.diff(heights) <= 0.0)
    within, between = ([bar.get_height() for bar in bars] for bars in shares.containers)
    np.testing.assert_allclose(np.add(within, between), 1.0)
    assert [bar.get_y() for bar in shares.containers[1]] == within
    assert [line.get_label() for line in outliers.get_lines()][::3] == ["l2, 1 outlier", "l1, 1 outlier"]
    assert legend(centers) == ["l2: means", "l1: medians"]
    np.testing.assert_array_equal(centers.get_lines()[0].get_ydata(), findings.runs[0].path[-1][0])


def test_centres_that_are_images_are_shown_as_such(numpy_backend: Backend) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 25))
    panel = draw_kmeans(study(rows, 30, "made up", 3, Fitter(numpy_backend, "float64", "native"), 0)).axes[-1]
    images = panel.get_images()[0].get_array()
    assert images is not None
    assert images.shape == (2 * 6 - 1, 3 * 6 - 1)


@pytest.mark.parametrize("n_clusters", [1, 5])
@pytest.mark.parametrize("arithmetic", ["native", "exact"])
def test_few_rows_are_enough(numpy_backend: Backend, n_clusters: int, arithmetic: str) -> None:
    rows = np.asarray([[0.0], [1.0], [10.0], [11.0], [100.0]])
    found = study(rows, 5, "five", n_clusters, Fitter(numpy_backend, "float64", arithmetic), 0)
    assert report(found, {}).holds
    draw_kmeans(found)


@pytest.mark.parametrize("n_clusters", [0, 151])
def test_as_many_clusters_as_rows_at_most(numpy_backend: Backend, n_clusters: int) -> None:
    with pytest.raises(SettingsError, match=f"clusters = {n_clusters}: must be from 1 to .* 150"):
        study(IRIS, 150, "iris", n_clusters, Fitter(numpy_backend, "float64", "native"), 0)


def test_the_command_writes_three_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savetxt(tmp_path / "iris.csv", np.column_stack([CLASSES, IRIS]), delimiter=",")
    arguments = ["study", "kmeans", "--data", str(tmp_path / "iris.csv"), "--clusters", "2", "--arithmetic", "exact"]
    assert main([*arguments, "--out", str(tmp_path / "o")]) == 0
    output = capsys.readouterr()
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"kmeans.txt", "kmeans.json", "kmeans.png"}
    assert (tmp_path / "o" / "kmeans.txt").read_text() == output.out
    assert output.out.count("\nholds  ") == 8
    result = json.loads((tmp_path / "o" / "kmeans.json").read_text())
    assert (result["arithmetic"], result["n_rows"], len(result["table"])) == ("exact", 120, 2)


def test_too_many_clusters_are_an_error_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savetxt(tmp_path / "iris.csv", np.column_stack([CLASSES, IRIS]), delimiter=",")
    assert main(["study", "kmeans", "--data", str(tmp_path / "iris.csv"), "--clusters", "121"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines()[-1] == (
        "mlp-xp: error: clusters = 121: must be from 1 to the number of rows that are looked at, 120"
    )


def write_far(path: Path, offset: float) -> Path:
    rows = offset + np.random.default_rng(0).normal(size=(60, 3))
    path.write_text("".join(f"{i % 3},{','.join(map(repr, row))}\n" for i, row in enumerate(rows.tolist())))
    return path


@pytest.mark.parametrize("study", ["kmeans --clusters 3", "pca"])
@pytest.mark.parametrize("offset", [1e3, 1e6])
def test_rows_far_from_0_have_what_rounding_leaves_them(tmp_path: Path, study: str, offset: float) -> None:
    data = write_far(tmp_path / "far.csv", offset)
    assert main(["study", *study.split(), "--data", str(data)]) == 0


def test_rows_that_exact_arithmetic_makes_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_far(tmp_path / "far.csv", 1e9)
    command = ["study", "kmeans", "--clusters", "3", "--data", str(data)]
    assert main(command) == 0
    output = capsys.readouterr()
    assert "holds  in exact arithmetic it is so exactly: rounded to its bits, all rows are the same" in output.out
    assert output.err.count("3 such columns are constant") == 1
    assert main([*command, "--arithmetic", "exact"]) == 2
    assert "the rows are all the same; standardise the columns" in capsys.readouterr().err.splitlines()[-1]
    assert main(["study", "kmeans", "--arithmetic", "exact", "--dtype", "float32"]) == 2
    assert "dtype = 'float32': must be float64 in exact arithmetic" in capsys.readouterr().err
