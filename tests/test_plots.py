"""The pictures show what they are given, and need no window system."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from mlp_xp.comparison import Comparison, SeedSpread, Training
from mlp_xp.plots import MOST_CHARACTERS, MOST_POINTS, plot_comparison, plot_replicas, plot_run, png
from mlp_xp.settings import Settings


def rows(n: int, accuracy: float | None) -> list[dict[str, Any]]:
    return [
        {"epoch": i, "loss": 2.0 / (i + 1), "test_loss": 2.1 / (i + 1), "accuracy": accuracy, "seconds": 0.1}
        | {"sha256_chain": ""}
        for i in range(n)
    ]


def labels(panel: Axes) -> list[str]:
    legend = panel.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def comparison(n_steps: int, *shifts: float) -> Comparison:
    losses = np.linspace(2.0, 0.1, n_steps)
    trainings = [
        Training(f"library{i}", {"device": "cpu"}, rows(1, 0.5), losses + shift) for i, shift in enumerate(shifts)
    ]
    return Comparison(Settings(epochs=1), "made up", trainings)


@pytest.mark.parametrize("n_epochs", [1, 5])
def test_a_run_shows_losses_and_accuracy(n_epochs: int) -> None:
    figure = plot_run(np.linspace(2.0, 0.1, 10 * n_epochs), rows(n_epochs, 0.75), "digits on numpy")
    losses, accuracy = figure.axes
    assert labels(losses) == ["each batch", "epoch's mean", "test"]
    batches, means, tests = losses.get_lines()
    assert np.size(batches.get_xdata()) == 10 * n_epochs
    np.testing.assert_array_equal(means.get_xdata(), np.arange(n_epochs) + 0.5)
    np.testing.assert_array_equal(tests.get_xdata(), np.arange(n_epochs) + 1)
    np.testing.assert_array_equal(accuracy.get_lines()[0].get_ydata(), [75.0] * n_epochs)
    assert [text.get_text() for text in accuracy.texts] == ["75.00 %"]
    assert png(figure).startswith(b"\x89PNG\r\n\x1a\n")


def spread(mean: float) -> dict[str, float]:
    return {"mean": mean, "standard_deviation": 0.1 * mean, "least": 0.8 * mean, "most": 1.3 * mean}


def replicated_rows(n: int, accuracy: float | None) -> list[dict[str, Any]]:
    spreads: list[dict[str, Any]] = [
        {name: spread(row[name]) for name in ("loss", "test_loss")} for row in rows(n, accuracy)
    ]
    return [row | {"accuracy": None if accuracy is None else spread(accuracy)} for row in spreads]


@pytest.mark.parametrize("accuracy", [0.75, None])
@pytest.mark.parametrize("n_steps", [5, 50, 2000])
def test_replicas_show_means_with_bands(n_steps: int, accuracy: float | None) -> None:
    losses = np.linspace(2.0, 0.1, n_steps)[:, None] * [0.9, 1.1, 1.0]
    figure = plot_replicas(losses, replicated_rows(5, accuracy), "digits on numpy, 3 seeds")
    panel = figure.axes[0]
    width = -(-n_steps // MOST_POINTS)
    assert labels(panel) == ["each batch" if width == 1 else "mean of 7 batches", "epoch's mean", "test"]
    batches, means, tests = panel.get_lines()
    heights = np.asarray(batches.get_ydata())
    assert heights.size == -(-n_steps // width) <= MOST_POINTS
    assert heights[0] == pytest.approx(losses[:width].mean())
    assert np.asarray(means.get_ydata())[0] == 2.0
    np.testing.assert_array_equal(means.get_xdata(), np.arange(5) + 0.5)
    np.testing.assert_array_equal(tests.get_xdata(), np.arange(5) + 1)
    of_all, of_deviation = (band.get_paths()[0].get_extents() for band in panel.collections[4:6])  # the test's
    np.testing.assert_allclose([of_all.y0, of_all.y1], [0.8 * 2.1 / 5, 1.3 * 2.1])
    np.testing.assert_allclose([of_deviation.y0, of_deviation.y1], [0.9 * 2.1 / 5, 1.1 * 2.1])
    assert len(figure.axes) == (1 if accuracy is None else 2)
    if accuracy is not None:
        assert [text.get_text() for text in figure.axes[1].texts] == ["75.00 %\n± 7.50 %"]
    assert png(figure)


def test_replicas_without_a_loss_can_be_drawn() -> None:
    assert png(plot_replicas(np.zeros((10, 2)), [dict.fromkeys(("loss", "test_loss", "accuracy"), spread(0.0))], "0"))


@pytest.mark.parametrize(("shift", "deviation"), [(1e-5, 0.5), (0.0, 0.5), (0.0, 0.0)])
def test_a_comparison_shows_the_spread_between_seeds(shift: float, deviation: float) -> None:
    both = replace(comparison(700, 0.0, shift), seeds=SeedSpread(4, np.full(700, deviation)))
    below = (figure := plot_comparison(both)).axes[1]
    assert labels(below)[1:] == ["tolerance", "standard deviation between 4 seeds"]
    heights = np.asarray(below.get_lines()[-1].get_ydata())
    np.testing.assert_allclose(heights, np.full(-(-700 // 3), deviation))
    assert below.get_yscale() == "log"
    assert png(figure)


def test_a_regression_has_no_accuracy_to_show() -> None:
    figure = plot_run(np.linspace(2.0, 0.1, 10), rows(2, None), "line on numpy")
    assert len(figure.axes) == 1
    assert figure.axes[0].get_xlabel() == "epochs"
    assert png(figure)


def test_losses_of_zero_can_be_drawn() -> None:
    """The float32 loss of a perfect batch is 0, which a log axis does not have."""
    assert png(plot_run(np.asarray([1.0, 0.1, 0.0, 0.0]), [{**row, "loss": 0.0} for row in rows(2, 1.0)], "perfect"))


def test_a_comparison_shows_every_curve_its_difference_and_the_tolerance() -> None:
    figure = plot_comparison(comparison(200, 0.0, 1e-5, 0.0))
    above, below = figure.axes
    assert labels(above) == ["library0 (cpu)", "library1 (cpu)", "library2 (cpu)"]
    assert labels(below) == ["library1 (cpu)", "library2 (cpu): 0 everywhere", "tolerance"]
    assert below.get_yscale() == "log"
    np.testing.assert_allclose(np.asarray(below.get_lines()[0].get_ydata(), np.float64), 1e-5)
    widths = [line.get_linewidth() for line in above.get_lines()]
    assert widths == sorted(set(widths), reverse=True)  # the last one drawn hides none below it
    assert above.get_ylabel() == "loss of each batch"
    assert png(figure)


def test_many_steps_are_averaged_above_and_all_shown_below() -> None:
    figure = plot_comparison(comparison(4801, 0.0, 1e-5))
    above, below = figure.axes
    width = -(-4801 // MOST_POINTS)
    line = above.get_lines()[0]
    assert np.size(line.get_xdata()) <= MOST_POINTS
    losses = np.linspace(2.0, 0.1, 4801)
    heights = np.asarray(line.get_ydata())
    assert heights[0] == pytest.approx(losses[:width].mean())
    assert heights[-1] == pytest.approx(losses[(heights.size - 1) * width :].mean())
    assert above.get_ylabel() == f"loss, mean of {width} batches"
    assert np.size(below.get_lines()[0].get_xdata()) == 4801
    assert png(figure)


@pytest.mark.parametrize("n_steps", [0, 1, 150])
def test_a_curve_that_diverged_is_drawn_as_far_as_it_goes(n_steps: int) -> None:
    both = comparison(2000, 0.0, 1e-5)
    first, second = both.trainings
    cut = replace(second, step_losses=second.step_losses[:n_steps], diverged="epoch 0, step 7: the loss is nan")
    above, below = (figure := plot_comparison(replace(both, trainings=[first, cut]))).axes
    assert labels(above) == ["library0 (cpu)", "library1 (cpu): diverged"]
    assert labels(below) == ["library1 (cpu)", "tolerance"]
    assert np.size(above.get_lines()[1].get_xdata()) == -(-n_steps // 7)
    assert np.size(below.get_lines()[0].get_xdata()) == n_steps
    assert png(figure)


NAMES = {
    "mathematics that is none": ("a_$x_{1$.csv", "a_$x_{1$.csv"),
    "a fraction of nothing": ("a$\\frac$b", "a$\\frac$b"),
    "bytes that are no text": (os.fsdecode(b"caf\xe9.csv"), "caf\ufffd.csv"),
    "characters that are none": ("a\0b\nc\x1b\ufffe", "a\ufffdb\ufffdc\ufffd\ufffd"),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_from_outside_are_shown_as_they_are(name: str) -> None:
    given, shown = NAMES[name]
    run = plot_run(np.linspace(2.0, 0.1, 10), rows(2, None), given)
    replicas = plot_replicas(np.ones((10, 2)), replicated_rows(2, None), given)
    both = comparison(10, 0.0, 1e-5)
    trainings = [replace(training, description={"device": given}) for training in both.trainings]
    compared = plot_comparison(replace(both, data_name=given, trainings=trainings))
    assert [figure.get_suptitle() for figure in (run, replicas)] == [shown, shown]
    assert compared.get_suptitle().startswith(f"{shown}, native")
    assert labels(compared.axes[0]) == [f"library{i} ({shown})" for i in range(2)]
    assert compared.axes[1].get_ylabel() == f"difference from\nlibrary0 ({shown})"
    for figure in (run, replicas, compared):
        assert png(figure)


def test_a_name_as_long_as_a_file_is_cut() -> None:
    figure = plot_run(np.linspace(2.0, 0.1, 10), rows(2, None), f"{'x' * 10**6} on numpy")
    assert re.fullmatch(r"x+…x+ on numpy", figure.get_suptitle())
    assert len(figure.get_suptitle()) == MOST_CHARACTERS
    assert png(figure)


def test_no_pyplot() -> None:
    """It would keep every figure and look for a window system."""
    code = "import sys, mlp_xp.plots; print('matplotlib.pyplot' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
