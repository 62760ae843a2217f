"""The lab's notebook runs from top to bottom on the small digits, and its committed outputs tell nothing private."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbclient", reason="the notebook needs nbclient; pip install 'mlp-xp[notebook]'")
pytest.importorskip("ipykernel", reason="the notebook needs a Python kernel; pip install 'mlp-xp[notebook]'")

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import run_notebook


def printed(notebook: Any) -> str:
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    return "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")


def accuracies(notebook: Any) -> list[float]:
    return [float(percent) for percent in re.findall(r"^#summary: .* ([\d.]+)%$", printed(notebook), re.MULTILINE)]


def shown_sources(notebook: Any) -> list[str]:
    data = [output.get("data", {}) for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return ["".join(shown["text/markdown"]) for shown in data if "text/markdown" in shown]


def test_it_runs_and_learns_and_the_committed_one_shows_the_same_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLP_XP_NOTEBOOK_DATA", "digits")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))  # nobody's start-up files
    notebook = run_notebook.execute(run_notebook.NOTEBOOK)
    assert len(accuracies(notebook)) == 20
    assert accuracies(notebook)[-1] > 90
    committed = json.loads(run_notebook.NOTEBOOK.read_text(encoding="utf-8"))
    remedy = "the code that lab.ipynb shows has changed: python scripts/run_notebook.py, with MNIST at hand"
    assert shown_sources(committed) == shown_sources(notebook), remedy


def test_committed_outputs_are_a_whole_run_on_mnist_and_small() -> None:
    text = run_notebook.NOTEBOOK.read_text(encoding="utf-8")
    notebook = json.loads(text)
    counts = [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert "48,000 images of 784 pixels" in printed(notebook)
    assert accuracies(notebook)[-1] >= 97.2
    assert not re.search(r"/(home|root|tmp|work|usr|Users)/", printed(notebook))
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert all(cell["metadata"] == {} for cell in notebook["cells"])
    assert len(text) < 1_000_000
