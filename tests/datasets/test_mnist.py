"""MNIST: where it is looked for, that it is the original, and what is said when it cannot be had."""

from __future__ import annotations

import gzip
import hashlib
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mlp_xp.datasets import load, mnist
from mlp_xp.errors import DataError, DownloadError

if TYPE_CHECKING:
    from pathlib import Path

PIXELS, CLASSES = bytes(range(0, 240, 10)), bytes([3, 0, 1, 3])
CONTENTS = {
    "train-images-idx3-ubyte": b"\0\0\x08\x03\0\0\0\x04\0\0\0\x03\0\0\0\x02" + PIXELS,
    "train-labels-idx1-ubyte": b"\0\0\x08\x01\0\0\0\x04" + CLASSES,
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a tiny MNIST that is nowhere yet, an empty cache folder, and mirrors that answer nothing."""
    files = [mnist.File(name, len(content), hashlib.sha256(content).hexdigest()) for name, content in CONTENTS.items()]
    monkeypatch.setattr(mnist, "FILES", tuple(files))
    monkeypatch.setattr(mnist, "MIRRORS", ("http://127.0.0.1:9/a/", "http://127.0.0.1:9/b/"))
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name, **_: tmp_path / "cache" / name)
    monkeypatch.delenv("MLP_XP_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache" / "mlp-xp" / "mnist"


def provide(folder: Path, *, dotted: bool = False, compressed: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in CONTENTS.items():
        name = name.replace("-idx", ".idx") if dotted else name
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


def check() -> None:
    data = load("mnist")
    assert data.features.tolist() == np.frombuffer(PIXELS, np.uint8).reshape(4, 6).tolist()
    assert data.features.dtype == np.uint8
    assert (data.name, data.targets.tolist(), data.scale) == ("mnist", [3, 0, 1, 3], 1 / 256)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("dotted", [True, False])
@pytest.mark.parametrize("subfolder", [".", "mnist"])
def test_found_in_the_variables_folder(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subfolder: str, dotted: bool, compressed: bool
) -> None:
    provide(tmp_path / "mine" / subfolder, dotted=dotted, compressed=compressed)
    assert not mnist.available()
    monkeypatch.setenv("MLP_XP_DATA", str(tmp_path / "mine"))
    assert mnist.available()
    check()
    assert not cache.exists()


def test_found_in_the_cache_folder(cache: Path) -> None:
    provide(cache)
    check()


def test_the_variable_comes_first(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provide(tmp_path / "mine")
    cache.mkdir(parents=True)
    (cache / "train-images-idx3-ubyte.gz").write_bytes(b"broken")
    monkeypatch.setenv("MLP_XP_DATA", str(tmp_path / "mine"))
    check()


def test_a_variable_that_leads_nowhere_is_told(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provide(cache)
    monkeypatch.setenv("MLP_XP_DATA", str(tmp_path / "nowhere"))
    with pytest.warns(UserWarning, match=r"MLP_XP_DATA=.*nowhere lacks train-images.*; looking elsewhere"):
        check()


def test_a_file_that_is_not_the_original(cache: Path) -> None:
    provide(cache, compressed=False)
    path = cache / "train-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: not the known file: the SHA-256 .*; delete it"):
        load("mnist")


def test_downloaded_into_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(urls: list[str], target: Path, **options: Any) -> Path:
        asked.append((urls, options))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gzip.compress(CONTENTS[target.stem]))
        return target

    monkeypatch.setattr(mnist, "download", download)
    check()
    assert sorted(path.name for path in cache.iterdir()) == [f"{name}.gz" for name in sorted(CONTENTS)]
    assert [urls for urls, _ in asked] == [
        [f"http://127.0.0.1:9/{mirror}/{name}.gz" for mirror in "ab"] for name in CONTENTS
    ]
    images = CONTENTS["train-images-idx3-ubyte"]
    assert asked[0][1] == {
        "size": len(images),
        "sha256": hashlib.sha256(images).hexdigest(),
        "progress": False,
    }
    check()
    assert len(asked) == 2


def test_without_a_network_one_error_names_the_three_ways(cache: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        load("mnist")
    text = str(caught.value)
    assert text.startswith("MNIST is not on this machine (MLP_XP_DATA is not set) and could not be downloaded.")
    for part in (
        "http://127.0.0.1:9/a/train-images-idx3-ubyte.gz: ",
        "http://127.0.0.1:9/b/train-images-idx3-ubyte.gz: ",
        "1. set MLP_XP_DATA to the folder that holds train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz",
        f"2. put these two files into {cache};",
        "3. connect this machine to the network",
    ):
        assert part in text
    assert list(cache.iterdir()) == []


@pytest.mark.usefixtures("cache")
def test_without_a_network_the_variable_is_still_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLP_XP_DATA", str(tmp_path / "nowhere"))
    with (
        pytest.warns(UserWarning, match="looking elsewhere"),
        pytest.raises(DownloadError, match=r"\(MLP_XP_DATA=.*nowhere lacks train-images"),
    ):
        load("mnist")


def test_the_sizes_are_those_of_the_arrays() -> None:
    assert [file.size for file in mnist.FILES] == [16 + 60_000 * 784, 8 + 60_000]


@pytest.fixture
def original() -> None:
    """Skip where the real files are not on this machine: tests do not download."""
    if not mnist.available():
        pytest.skip(f"no MNIST in ${mnist.VARIABLE} or {mnist.cache_folder()}")


@pytest.mark.mnist
@pytest.mark.usefixtures("original")
def test_the_real_files() -> None:
    data = load("mnist")
    assert data.features.shape == (60_000, 784)
    assert data.features.dtype == np.uint8
    assert data.targets[:16].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4, 3, 5, 3, 6, 1, 7]
    assert np.bincount(data.targets).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert (data.n_classes, data.scale) == (10, 1 / 256)
    train, test = data.split()
    assert (train.n_samples, test.n_samples) == (48_000, 12_000)


@pytest.mark.mnist
@pytest.mark.usefixtures("original")
def test_the_real_files_as_a_pair_and_as_a_table(tmp_path: Path) -> None:
    data = load("mnist")
    images, labels = (mnist.find(file) for file in mnist.FILES)
    assert images is not None
    assert labels is not None
    shutil.copy(labels, tmp_path / "labels")
    assert load(f"{images},{tmp_path / 'labels'}").digest() == data.digest()
    some = data.take(np.arange(2000))
    table = np.column_stack([some.targets, some.features])
    np.savetxt(tmp_path / "mnist.csv", table, fmt="%d", delimiter=",")
    assert load(tmp_path / "mnist.csv").digest() == some.digest()
