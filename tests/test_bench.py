"""The benchmark script: its statistics, its table, and a small round from end to end. Nothing here is about speed."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bench
import bench_contenders
from mlp_xp.datasets import load
from mlp_xp.settings import Settings


class Sleeper:
    """A contender that only remembers when it was its turn."""

    def __init__(self, name: str, log: list[tuple[str, int]], device: str = "cpu") -> None:
        self.name, self.device, self.log = name, device, log
        self.description: dict[str, Any] = {}

    def epoch(self, number: int) -> None:
        self.log.append((self.name, number))


def tiny(dtype: str) -> bench_contenders.Workload:
    settings = Settings(hidden_layer_sizes=(8, 8), batch_size=100, dtype=dtype)
    return bench_contenders.Workload("tiny", settings, load("digits").split().test)


def test_ratio_is_the_median_of_the_rounds_ratios() -> None:
    # The second round was slow for both, the third for the first alone.
    assert bench.ratio([2.0, 20.0, 9.0], [1.0, 10.0, 1.0]) == 2.0
    assert bench.ratio([1.0], None) is None


def test_contenders_take_turns_and_the_first_round_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "PAUSE", 0.0)
    log: list[tuple[str, int]] = []
    seconds = bench.interleave([Sleeper("a", log), Sleeper("b", log)], rounds=2)
    assert log == [("b", 0), ("a", 0), ("a", 1), ("b", 1), ("b", 2), ("a", 2)]
    assert [len(mine) for mine in seconds] == [2, 2]


def test_each_device_has_its_own_floor() -> None:
    contenders = [
        Sleeper("floor numpy", []),
        Sleeper("floor jax", [], "cuda:0"),
        Sleeper("floor cupy", [], "cuda:0"),
        Sleeper("mlp_xp numpy", []),
        Sleeper("mlp_xp cupy", [], "cuda:0"),
        Sleeper("elsewhere", [], "tpu:0"),
        Sleeper("PyTorch eager", []),
    ]
    seconds = [[4.0] * 3, [1.0] * 3, [2.0] * 3, [6.0, 5.0, 60.0], [3.0] * 3, [7.0] * 3, [8.0] * 3]
    results = bench.summarize(contenders, seconds)
    assert [r.median for r in results] == [1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 8.0]
    by_name = {r.contender: r for r in results}
    assert by_name["mlp_xp cupy"].to_floor == 3.0
    assert by_name["mlp_xp numpy"].to_floor == 1.5
    assert by_name["mlp_xp numpy"].to_pytorch == 0.75
    assert (by_name["mlp_xp numpy"].least, by_name["mlp_xp numpy"].most) == (5.0, 60.0)
    assert by_name["elsewhere"].to_floor is None


def test_table_has_a_line_per_contender() -> None:
    seconds = [[1.0, 1.0], [1.5, 1.75]]
    lines = bench.table(bench.summarize([Sleeper("floor numpy", []), Sleeper("mlp_xp x", [])], seconds)).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["floor", "numpy", "cpu", "1.0000", "1.0000", "-", "1.0000", "1.00", "-"],
        ["mlp_xp", "x", "cpu", "1.6250", "1.5000", "-", "1.7500", "1.62", "-"],
    ]


def test_floor_multiplies_the_matrices_of_a_step_and_no_others() -> None:
    sizes = [7, 5, 4, 3]
    weights = [np.ones(shape) for shape in pairwise(sizes)]
    shapes = sorted(product.shape for product in bench_contenders.matmuls(np, np.ones((2, 7)), weights))
    assert shapes == sorted([(2, 5), (2, 4), (2, 3), (2, 4), (2, 5), (7, 5), (5, 4), (4, 3)])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_round_from_end_to_end(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(_: bench_contenders.Workload) -> bench_contenders.Contender:
        raise ModuleNotFoundError("No module named 'peer'")

    monkeypatch.setitem(bench_contenders.WORKLOADS, "tiny", tiny)
    monkeypatch.setitem(bench_contenders.CONTENDERS, "peer", missing)
    files = tmp_path / "bench.json", tmp_path / "bench.png"
    arguments = f"--workloads tiny --contenders numpy,peer --rounds 2 --dtype {dtype}".split()
    bench.main([*arguments, "--json", str(files[0]), "--plot", str(files[1])])
    out = capsys.readouterr().out
    assert f"tiny: 64-8-8-10, batch 100, 3 steps an epoch, {dtype}, on digits" in out
    assert "left out: peer (No module named 'peer')" in out
    content = json.loads(files[0].read_text())
    assert {"cpu", "cores", "system", "python"} <= set(content["machine"])
    (workload,) = content["workloads"]
    assert {r["contender"] for r in workload["results"]} == {"mlp_xp numpy", "floor numpy"}
    for r in workload["results"]:
        assert len(r["seconds"]) == 2
        assert 0 < r["least"] <= r["median"] <= r["most"] < math.inf
        assert "blas" in r["description"]
    assert files[1].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["jax", "torch", "pytorch-eager", "floor-jax", "floor-torch"])
def test_every_contender_trains(name: str) -> None:
    contenders, left_out = bench.enter([name], tiny("float32"))
    if left_out:
        pytest.skip(left_out[name])
    for contender in contenders:
        contender.epoch(0)


@pytest.mark.parametrize("arguments", ["--contenders numpy,abacus", "--workloads labs", "--rounds 0"])
def test_unknown_names_are_refused(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(arguments.split())
    assert "there are" in capsys.readouterr().err or arguments == "--rounds 0"
