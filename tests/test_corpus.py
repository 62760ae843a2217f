"""Files that made a loader fail once, and their kin, tried as `scripts/fuzz.py` tries its own: none may do so again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fuzz_targets import Target, make_targets, try_file

CORPUS = Path(__file__).parent / "corpus"
FILES = sorted(path.relative_to(CORPUS).as_posix() for path in CORPUS.glob("*/*"))

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by Linux's /proc")


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    """All loaders by name."""
    return make_targets(tmp_path_factory.mktemp("targets"))


@pytest.mark.parametrize("file", FILES)
def test_a_file_gives_data_or_an_error_of_our_own(targets: dict[str, Target], file: str) -> None:
    _, wrong = try_file(targets[Path(file).parent.name], (CORPUS / file).read_bytes(), most_seconds=8.0)
    assert wrong is None


def test_what_every_loader_can_read_is_read(targets: dict[str, Target]) -> None:
    """A target that refused everything would find nothing."""
    for target in targets.values():
        for content in target.seeds:
            target.path.write_bytes(content)
            target.read()


def test_a_loader_that_fails_is_noticed(targets: dict[str, Target], tmp_path: Path) -> None:
    def fail() -> None:
        raise KeyError("x")

    kept: list[bytes] = []
    path, content = tmp_path / "x", b"0,1\n"
    assert try_file(Target([], path, lambda: None), content)[1] is None
    assert try_file(Target([], path, fail), content)[1] == "builtins.KeyError: 'x'"
    greedy = Target([], path, lambda: kept.append(b"x" * 200_000_000))
    assert str(try_file(greedy, content)[1]).endswith("MB of memory for 4 bytes")
    assert try_file(targets["csv"], content, most_seconds=0.0)[1] is not None
