"""The pictures show what they are given, and need no window system."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from mlp_xp.comparison import Comparison, Training
from mlp_xp.plots import MOST_POINTS, plot_comparison, plot_run, png
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


def test_no_pyplot() -> None:
    """It would keep every figure and look for a window system."""
    code = "import sys, mlp_xp.plots; print('matplotlib.pyplot' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
