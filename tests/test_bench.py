"""The benchmark script: its statistics, and small rounds from end to end. Nothing here is about speed."""

from __future__ import annotations

import contextlib
import gc
import json
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import bench
import bench_contenders
import bench_evaluation
import bench_fit
import bench_growth
import bench_processes
import bench_rounds
import bench_training
import bench_unsupervised
from bench_plots import plot
from bench_report import Report, Request, left_out_lines, ratio, summarize
from bench_rounds import Contender, Entry, chosen, interleave
from bench_workloads import Workload
from mlp_xp.backend import open_backend
from mlp_xp.datasets import load, mnist
from mlp_xp.datasets.dataset import Dataset
from mlp_xp.errors import BackendUnavailable
from mlp_xp.settings import Settings

ONCE = Request("float32", ["numpy"], 1)

pytestmark = [  # PyTorch's own, where it traces
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning"),
]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_rounds, "PAUSE", 0.0)


@pytest.fixture
def only_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """What PyTorch would compile it traces and runs as it is: a C++ compiler is not everywhere, and slow."""
    with contextlib.suppress(ModuleNotFoundError):
        import torch

        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


def contender(
    name: str,
    role: Literal["floor", "project", "peer"] = "project",
    device: str = "cpu",
    turn: Callable[[int], float] = float,
    against: str | None = None,
) -> Contender:
    return Contender(name, role, device, turn, against=against)


def digits(n_rows: int = 360) -> Dataset:
    return load("digits").split().test.take(np.arange(n_rows))


def small(dtype: str, batch_size: int = 100, n_rows: int = 360) -> Workload:
    settings = Settings(hidden_layer_sizes=(8, 8), batch_size=batch_size, learning_rate=0.2, dtype=dtype)
    return Workload("small", settings, digits(n_rows))


def made(names: list[str], registry: dict[str, Entry], workload: Workload) -> list[Contender]:
    """Return contenders, or skip the test where one cannot run."""
    contenders: list[Contender] = []
    for name in names:
        try:
            each = registry[name].make(workload)
        except (ModuleNotFoundError, BackendUnavailable) as error:
            pytest.skip(str(error))
        contenders += [each] if isinstance(each, Contender) else each
    return contenders


def test_ratio_is_the_median_of_the_rounds_ratios() -> None:
    # The second round was slow for both, the third for the first alone.
    assert ratio([2.0, 20.0, 9.0], [1.0, 10.0, 1.0]) == 2.0


def test_contenders_take_turns_and_the_first_round_is_not_counted() -> None:
    log: list[tuple[str, int]] = []

    def turn(name: str, number: int) -> float:
        log.append((name, number))
        assert not gc.isenabled()
        return math.nan

    values, left_out = interleave([contender(name, turn=partial(turn, name)) for name in "ab"], rounds=2)
    assert log == [("b", 0), ("a", 0), ("a", 1), ("b", 1), ("b", 2), ("a", 2)]
    assert [len(mine) for mine in values.values()] == [2, 2]
    assert left_out == {}
    assert gc.isenabled()


def test_who_fails_in_the_first_round_is_left_out_and_the_others_go_on() -> None:
    def no_compiler(_: int) -> float:
        raise RuntimeError("no C++ compiler\nand many lines more")

    contenders = [contender("works"), contender("fails", turn=no_compiler)]
    values, left_out = interleave(contenders, 3, bench_rounds.own_measure)
    assert values == {"works": [1.0, 2.0, 3.0]}
    assert left_out == {"fails": "RuntimeError: no C++ compiler"}


def test_who_cannot_be_made_is_left_out_with_the_reason() -> None:
    def not_installed(_: Workload) -> Contender:
        raise ModuleNotFoundError("No module named 'peer'")

    registry = {"peer": Entry(not_installed), "other peer": Entry(not_installed), "one": Entry(contender)}
    contenders, left_out = bench_rounds.enter(list(registry), registry, "name")
    assert [c.name for c in contenders] == ["name"]
    assert left_out_lines(left_out) == ["left out: peer, other peer (No module named 'peer')"]


def test_each_device_has_its_own_floor() -> None:
    contenders = [
        contender("floor numpy", "floor"),
        contender("floor jax", "floor", "cuda:0"),
        contender("floor cupy", "floor", "cuda:0"),
        contender("numpy"),
        contender("cupy", device="cuda:0"),
        contender("elsewhere", device="tpu:0"),
        contender("eager", "peer"),
        contender("slow peer", "peer"),
        contender("many", against="numpy"),
    ]
    seconds = [
        [4.0] * 3,
        [1.0] * 3,
        [2.0] * 3,
        [6.0, 5.0, 60.0],
        [3.0] * 3,
        [7.0] * 3,
        [8.0] * 3,
        [9.0] * 3,
        [12.0] * 3,
    ]
    values = {c.name: mine for c, mine in zip(contenders, seconds, strict=True)}
    results = summarize(contenders, values)
    assert [r.median for r in results] == [1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 8.0, 9.0, 12.0]
    by_name = {r.contender: r for r in results}
    assert by_name["cupy"].to_floor == 3.0
    assert by_name["numpy"].to_floor == 1.5
    assert by_name["numpy"].to_best_peer == 0.75
    assert by_name["numpy"].ratios["slow peer"] == 6.0 / 9.0
    assert (by_name["numpy"].least, by_name["numpy"].most) == (5.0, 60.0)
    assert by_name["elsewhere"].to_floor is None
    assert by_name["many"].to_floor == 2.0


def test_table_has_a_line_per_contender() -> None:
    contenders = [contender("floor numpy", "floor"), contender("mlp_xp x"), contender("gone")]
    results = summarize(contenders, {"floor numpy": [1.0, 1.0], "mlp_xp x": [1.5, 1.75]})
    lines = str(Report("made-up", "a title", results, {"gone": "no reason"})).splitlines()
    assert lines[:2] == ["a title", "left out: gone (no reason)"]
    assert [line.split() for line in lines[3:]] == [
        ["floor", "numpy", "cpu", "1.000", "1.000", "-", "1.000", "1.00"],
        ["mlp_xp", "x", "cpu", "1.625", "1.500", "-", "1.750", "1.62"],
    ]


def test_table_has_the_ratio_to_the_best_peer_if_there_is_one() -> None:
    contenders = [contender("mlp_xp x", device="cuda:0"), contender("a peer", "peer")]
    results = summarize(contenders, {"mlp_xp x": [3.0], "a peer": [1.5]})
    lines = str(Report("made-up", "a title", results, {})).splitlines()
    assert lines[-1].split() == ["mlp_xp", "x", "cuda:0", "3.000", "3.000", "-", "3.000", "-", "2.00"]
    assert bench.accelerators([Report("made-up", "a title", results, {})]) == ["cuda:0"]


def test_a_floor_comes_with_whoever_is_asked_for() -> None:
    registry = dict.fromkeys(["numpy", "floor-numpy", "floor-torch", "floor-jax"], Entry(contender))
    registry["eager"] = Entry(contender, "floor-torch")
    assert chosen(None, registry, ["numpy"]) == ["floor-numpy", "numpy"]
    assert chosen(["eager", "unknown here"], registry, ["numpy"]) == ["floor-numpy", "floor-torch", "eager"]


def test_floor_multiplies_the_matrices_of_a_step_and_no_others() -> None:
    weights = [np.ones(shape) for shape in pairwise([7, 5, 4, 3])]
    products = bench_contenders.multiplications(np, np.ones((2, 7)), weights)
    shapes = [result.shape for *_, result in products]
    assert shapes == [(2, 5), (2, 4), (2, 3), (4, 3), (2, 4), (5, 4), (2, 5), (7, 5)]
    for a, b, result in products:
        np.testing.assert_array_equal(a @ b, result)


def test_a_compiled_floor_has_every_gradient_of_its_last_batch() -> None:
    pytest.importorskip("jax")
    workload = small("float64", batch_size=100, n_rows=300)
    weights = [layer.weight for layer in workload.parameters]
    epochs = []
    for name, make in (("numpy", bench_contenders._products), ("jax", bench_contenders._compiled_products)):
        backend = open_backend(name)
        epochs.append(make(backend, workload, [backend.asarray(weight) for weight in weights]))
    gradients = epochs[1]()
    assert [gradient.shape for gradient in gradients] == [weight.shape for weight in reversed(weights)]
    products = bench_contenders.multiplications(np, workload.features[200:], weights)
    for gradient, (*_, expected) in zip(gradients, products[3::2], strict=True):
        np.testing.assert_allclose(np.asarray(gradient), expected, rtol=1e-10)
    assert len(epochs[0]()) == 8


@pytest.mark.usefixtures("only_traced")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["jax", "torch", *bench_training.PEERS])
def test_everyone_trains_the_same_network(name: str, dtype: str) -> None:
    """With a single batch of all rows the order does not matter, and all losses must agree."""
    reference, peer = made(["numpy", name], bench_training.TRAINING, small(dtype, batch_size=100, n_rows=100))
    losses = [[each.turn(number) for number in range(4)] for each in (reference, peer)]
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(losses[1], losses[0], rtol=tolerance)
    assert losses[0][-1] < losses[0][0]


@pytest.mark.usefixtures("only_traced")
@pytest.mark.parametrize("name", ["numpy", "numpy-exact", "jax", *bench_training.PEERS])
def test_everyone_learns_from_batches(name: str) -> None:
    (learner,) = made([name], bench_training.TRAINING, small("float32"))
    losses = [learner.turn(number) for number in range(8)]
    assert losses[-1] < losses[0]


def test_scikit_learn_has_one_output_of_two_classes_and_the_same_first_loss() -> None:
    settings = Settings(hidden_layer_sizes=(8,), batch_size=100, learning_rate=1e-9)
    data = Dataset("two", digits(100).features, np.arange(100) % 2, 2, 1 / 16)
    ours, theirs = made(["numpy", "scikit-learn"], bench_training.TRAINING, Workload("two", settings, data))
    assert theirs.description["outputs"] == 1
    np.testing.assert_allclose(theirs.turn(0), ours.turn(0), rtol=1e-5)


@pytest.mark.parametrize("name", ["numpy", "jax", "torch"])
@pytest.mark.parametrize("registry", [bench_training.TRAINING, bench_evaluation.EVALUATION])
def test_floors_take_their_turn(name: str, registry: dict[str, Entry]) -> None:
    for each in made([f"floor-{name}"], registry, small("float32")):
        assert each.role == "floor"
        assert math.isnan(each.turn(0))


@pytest.mark.usefixtures("only_traced")
@pytest.mark.parametrize("name", ["jax", "torch", "pytorch-eager", "pytorch-compiled", "jax-optax"])
def test_everyone_evaluates_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_evaluation, "PEER_CHUNKS", (360, 90))
    reference, *others = made(["numpy", name], bench_evaluation.EVALUATION, small("float64", 1))
    losses = [each.turn(0) for each in others]
    assert len(losses) == (1 if name in ("jax", "torch") else 2)
    np.testing.assert_allclose(losses, reference.turn(0), rtol=1e-12)


def test_evaluation_and_replicas_report() -> None:
    report = bench_evaluation.evaluate(ONCE, partial(small, batch_size=1))
    assert [r.contender for r in report.results if r.role == "project"] == ["mlp_xp numpy"]
    assert any(r.contender == "floor numpy, 360 rows at once" for r in report.results)
    report = bench_training.train_replicas(ONCE, small)
    by_name = {r.contender: r for r in report.results}
    assert by_name["mlp_xp numpy, one"].to_floor == 1.0
    assert (
        by_name["mlp_xp numpy, 16 replicas"].to_floor
        == by_name["mlp_xp numpy, 16 replicas"].ratios["mlp_xp numpy, one"]
    )


def made_fits(report: Report) -> dict[str, Any]:
    """Return the results of a report of fits, none of which was left out, by the contenders' names."""
    assert report.left_out == {}
    assert report.reference == "scikit-learn"
    return {r.contender: r for r in report.results}


def test_fits_are_beside_scikit_learns_of_the_same_case(monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[tuple[str, float]] = []

    def measure(contender: Contender, number: int) -> float:
        losses.append((contender.name, contender.turn(number)))
        return 1.0 if contender.role == "peer" else 3.0

    monkeypatch.setattr(bench_fit, "interleave", partial(interleave, measure=measure))
    reports = [
        bench_fit.fit(lambda: digits(100), 2, ONCE),
        bench_unsupervised.fit_kmeans(lambda: digits(100), (3, 40), ONCE),
    ]
    for report, cases in zip(reports, (("adam", "sgd"), ("k=3", "k=40")), strict=True):
        by_name = made_fits(report)
        assert set(by_name) == {f"{who} {case}" for who in ("mlp_xp numpy", "scikit-learn") for case in cases}
        for case in cases:
            assert by_name[f"mlp_xp numpy {case}"].to_floor == 3.0
            assert by_name[f"scikit-learn {case}"].role == "peer"
            results = [loss for name, loss in losses if name.endswith(f" {case}")]
            assert len(results) == 4
            np.testing.assert_allclose(results, results[0], rtol=1e-5)
    assert reports[1].title == "kmeans: digits, 100 rows of 64, 10 iterations, float32"


def test_principal_components_are_beside_scikit_learns() -> None:
    pytest.importorskip("mlp_xp.decomposition", reason="PCA is not there yet")
    report = bench_unsupervised.fit_pca(lambda: digits(100), 5, ONCE)
    assert set(made_fits(report)) == {f"{who} 5 components" for who in ("mlp_xp numpy", "scikit-learn")}


def test_growth_finds_a_known_exponent() -> None:
    sizes = [10, 20, 40, 80]
    assert bench_growth.exponent(sizes, [3.0 * size**1.5 for size in sizes]) == pytest.approx(1.5)


def test_growth_reports_every_axis() -> None:
    axes = {"batch": (25, 50), "width": (8, 16), "depth": (1, 2), "rows": (200, 400)}
    growth = bench_growth.grow(ONCE, axes)
    assert [(line.axis, line.contender, line.sizes) for line in growth.lines] == [
        (axis, "mlp_xp numpy", list(sizes)) for axis, sizes in axes.items()
    ]
    assert all(math.isfinite(line.exponent) and min(line.medians) > 0 for line in growth.lines)
    assert str(growth).count("exponent") == 4
    json.dumps(growth.to_dict())
    assert plot([growth], "here").startswith(b"\x89PNG")
    assert bench_growth.point("depth", 5, "float32").layer_sizes == (784, *[256] * 5, 10)


def test_cold_start_reports_seconds() -> None:
    report = bench_processes.cold_start(ONCE)
    assert report.left_out == {}
    assert {r.contender for r in report.results} == {"imports + epoch", "mlp-xp train, first line", "mlp-xp --help"}
    assert all(r.median > 0 for r in report.results)


def test_a_process_that_prints_no_line_is_an_error() -> None:
    with pytest.raises(Exception, match="no #summary"):
        bench_processes.seconds_to_first_line([bench_processes.MLP_XP[0], "-c", "print('hello')"])


def test_memory_reports_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("resource")
    monkeypatch.setattr(mnist, "available", lambda: False)
    report = bench_processes.memory(ONCE, digits(200), times=(2, 3, 10**9))
    assert {r.contender for r in report.results} == {
        "imports",
        "2 × 200 rows in IDX files",
        "3 × 200 rows in IDX files",
    }
    assert "GB" in report.left_out["1000000000 × 200 rows in IDX files"]
    assert all(5 < r.median < 5000 for r in report.results)


def test_repeated_rows_are_read_back(tmp_path: Path) -> None:
    data = load(bench_processes.write_repeated(digits(20), 3, tmp_path))
    np.testing.assert_array_equal(data.features, np.tile(digits(20).features, (3, 1)))
    np.testing.assert_array_equal(data.targets, np.tile(digits(20).targets, 3))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_round_from_end_to_end(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(_: Workload) -> Contender:
        raise ModuleNotFoundError("No module named 'peer'")

    monkeypatch.setitem(bench.WORKLOADS, "small", partial(bench_training.train, small))
    monkeypatch.setitem(bench_training.TRAINING, "peer", Entry(missing))
    files = tmp_path / "bench.json", tmp_path / "bench.png"
    arguments = f"--workloads small --contenders numpy,peer --rounds 2 --dtype {dtype}".split()
    bench.main([*arguments, "--json", str(files[0]), "--plot", str(files[1])])
    out = capsys.readouterr().out
    assert f"small: 64-8-8-10, batch 100, 3 steps an epoch, {dtype}, on digits" in out
    assert "left out: peer (No module named 'peer')" in out
    content = json.loads(files[0].read_text())
    assert {"cpu", "cores", "system", "python"} <= set(content["machine"])
    (workload,) = content["workloads"]
    assert workload["unit"] == "s"
    assert {r["contender"] for r in workload["results"]} == {"mlp_xp numpy", "floor numpy"}
    for r in workload["results"]:
        assert len(r["values"]) == 2
        assert 0 < r["least"] <= r["median"] <= r["most"] < math.inf
        assert "blas" in r["description"]
    assert files[1].read_bytes().startswith(b"\x89PNG")


def test_all_workloads_and_nobody_to_draw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    def nothing(name: str, request: Request) -> Report:
        asked.append((name, request))
        return Report(name, "nobody could run", [], {})

    for name in bench.WORKLOADS:
        monkeypatch.setitem(bench.WORKLOADS, name, partial(nothing, name))
    bench.main(["--workloads", "all", "--plot", str(tmp_path / "empty.png")])
    assert asked == [(name, Request("float32", None, None)) for name in bench.WORKLOADS]
    assert (tmp_path / "empty.png").exists()


@pytest.mark.parametrize("arguments", ["--contenders numpy,abacus", "--workloads labs", "--rounds 0"])
def test_unknown_names_are_refused(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(arguments.split())
    assert "there are" in capsys.readouterr().err or arguments == "--rounds 0"
