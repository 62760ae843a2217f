"""The rules of the house: equation files import no array library, nobody imports a backend, help is quick."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mlp_xp

PACKAGE = Path(mlp_xp.__file__).parent
BACKENDS = PACKAGE.parent / "backends"
ARRAY_LIBRARIES = {"numpy", "cupy", "jax", "torch", "scipy", "sklearn", "array_api_compat", "array_api_strict"}
EQUATIONS = [
    *(
        PACKAGE / f"{name}.py"
        for name in ("network", "activations", "losses", "objective", "optimizers", "settings", "components")
    ),
    *sorted((PACKAGE / "arithmetic").glob("*.py")),
]


def imported(path: Path) -> set[str]:
    """Return the names of all modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def top_levels(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


@pytest.mark.parametrize("path", EQUATIONS, ids=lambda path: path.name)
def test_equations_import_no_array_library(path: Path) -> None:
    assert not top_levels(path) & ARRAY_LIBRARIES


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_package_imports_no_backend(path: Path) -> None:
    allowed = {"numpy", "sklearn"}  # the host's array type, and the embedded data
    if path.name == "namespaces.py":
        allowed |= {"array_api_compat"}  # tells of which library an array is, and imports only that one
    if path.parent.name == "estimators":
        allowed |= {"scipy"}  # minimises on the host
    assert not top_levels(path) & (ARRAY_LIBRARIES - allowed)
    assert not {name for name in top_levels(path) if name.startswith("mlp_xp_")}


@pytest.mark.parametrize("path", sorted(BACKENDS.glob("*.py")), ids=lambda path: path.name)
def test_backends_know_only_the_contract(path: Path) -> None:
    # One of several modules may import the others of its own library; CUDA's words are the same in all of them.
    library = "_".join(path.stem.split("_")[:3])
    ours = {name for name in imported(path) if name.startswith("mlp_xp") and not name.startswith(library)}
    assert ours <= {"mlp_xp.backend", "mlp_xp.errors", "mlp_xp.array_types", "mlp_xp_cuda_errors"}


def test_help_and_listing_import_no_array_library() -> None:
    code = (
        "import sys, mlp_xp.cli, mlp_xp.backend\n"
        "mlp_xp.backend.list_backends()\n"
        "try: mlp_xp.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print(sorted(set(sys.modules) & {ARRAY_LIBRARIES!r}), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"
