"""Run the lab's notebook from top to bottom and keep its outputs, without anything of the machine or the hour.

python scripts/run_notebook.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent / "lab.ipynb"


def execute(path: Path) -> Any:
    """Return the notebook with the outputs of a fresh run; raises what the first failing cell raises."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, record_timing=False, coalesce_streams=True).execute()
    notebook.metadata.language_info = {"name": "python"}
    return notebook


if __name__ == "__main__":
    nbformat.write(execute(NOTEBOOK), NOTEBOOK)
