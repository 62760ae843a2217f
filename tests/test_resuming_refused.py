"""What a training goes on from is looked at first; what cannot be gone on from is said, and left alone."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

import mlp_xp.tensor_files
from mlp_xp.backend import Backend
from mlp_xp.datasets import Dataset, Split
from mlp_xp.errors import RunError, SettingsError
from mlp_xp.resuming import RecordedTraining, resume
from mlp_xp.training import train
from recorded_runs import edit_json
from stopped_runs import NATIVE, N, damage, leave_killed, start, stop_early

pytestmark = pytest.mark.usefixtures("no_pictures", "short_pieces")


@pytest.fixture
def stopped(tmp_path: Path, numpy_backend: Backend, digits: Split) -> Path:
    return leave_killed(tmp_path / "run", digits, numpy_backend)


@pytest.mark.parametrize("n", [None, N], ids=["alone", "replicas"])
@pytest.mark.parametrize("every", [0, 1, 10])
def test_what_has_no_checkpoint_is_not_lost(
    every: int, n: int | None, tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    list(start(tmp_path / "run", NATIVE, digits, numpy_backend, n, checkpoint_every=every))
    for checkpoints in (tmp_path / "run").rglob("checkpoints"):
        shutil.rmtree(checkpoints)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=r"run(/seed-0)? has 4 epochs, but no checkpoint to go on from: .*--overwrite"):
        resume(tmp_path / "run", numpy_backend, digits)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("field", ["-1", "x", "1"])
def test_a_checkpoint_that_does_not_know_its_moment_is_refused(
    field: str, tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    run = tmp_path / "run"
    stop_early(run, NATIVE, digits, numpy_backend, 2)
    (run / "checkpoints" / "interrupted-0-0-0.safetensors").unlink()
    path = run / "checkpoints" / "interrupted-0-10-0.safetensors"
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata() | {"pretrained": field}
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), path, metadata)
    with pytest.raises(RunError, match=r"no checkpoint .* can be used: .*0-10-0.safetensors: not a checkpoint of"):
        RecordedTraining(run)


@pytest.mark.parametrize("error", [errno.EMFILE, errno.EIO, errno.EACCES])
def test_a_checkpoint_that_cannot_be_read_now_is_not_removed(
    error: int, tmp_path: Path, numpy_backend: Backend, digits: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    list(start(run, NATIVE, digits, numpy_backend, None))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def failing(path: Path) -> Any:
        raise OSError(error, os.strerror(error), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(mlp_xp.tensor_files, "open_regular", failing)
        text = rf"epoch-0003\.safetensors: cannot be read: {os.strerror(error)}; mend that, then try again"
        with pytest.raises(RunError, match=text):
            resume(run, numpy_backend, digits)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_link_in_the_place_of_a_replica_is_not_written_through(
    tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    stop_early(tmp_path / "run", NATIVE, digits, numpy_backend, 3, n=N)
    shutil.move(tmp_path / "run" / "seed-1", tmp_path / "mine")
    (tmp_path / "run" / "seed-1").symlink_to(tmp_path / "mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="seed-1 is a link to another place, which is not written to"):
        resume(tmp_path / "run", numpy_backend, digits)
    with pytest.raises(RunError, match=r"seed-1.*: cannot be written: seed-1 in it is a link to another place"):
        start(tmp_path / "run", NATIVE, digits, numpy_backend, N, overwrite=True)
    for path in (tmp_path / "mine").rglob("*"):
        assert path.is_dir() or path.read_bytes() == before[path]


def test_a_name_that_no_checkpoint_has_is_nobodys_business(
    tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    stop_early(tmp_path, NATIVE, digits, numpy_backend, 9)
    strays = [
        tmp_path / "checkpoints" / f"interrupted-{name}.safetensors" for name in ("1-0-1", "01-0-1", "1", "x-0-0")
    ]
    for stray in strays:
        stray.touch()
    assert len(list(resume(tmp_path, numpy_backend, digits))) == 1
    assert all(stray.exists() for stray in strays)
    assert (tmp_path / "checkpoints" / "epoch-0001.safetensors").exists()


def test_a_name_that_no_folder_has(numpy_backend: Backend) -> None:
    with pytest.raises(RunError, match=r"x{300} cannot be read: File name too long; give a run's folder"):
        resume("x" * 300, numpy_backend)


def test_a_file_of_a_run_is_not_the_run(tmp_path: Path, numpy_backend: Backend, digits: Split) -> None:
    stop_early(tmp_path, NATIVE, digits, numpy_backend, 3)
    with pytest.raises(RunError, match=r"run.json is not a run's folder, but a file; give the folder"):
        resume(tmp_path / "run.json", numpy_backend)


def test_what_is_no_backend_is_said(digits: Split) -> None:
    with pytest.raises(SettingsError, match=r"backend is a str: give what mlp_xp.open_backend returns"):
        train(NATIVE, digits, "numpy")  # type: ignore[arg-type]


def test_data_that_were_not_split_are_said(stopped: Path, numpy_backend: Backend, digits: Split) -> None:
    with pytest.raises(SettingsError, match=r"data is a Dataset: give what its split\(\) returns"):
        resume(stopped, numpy_backend, digits.train)  # type: ignore[arg-type]
    assert [epoch.epoch for epoch in resume(stopped, numpy_backend, digits)] == [3]


def damage_all(run: Path) -> None:
    for path in (run / "checkpoints").glob("epoch-*"):
        damage(path)


def drop_line(name: str, number: int) -> Callable[[Path], None]:
    def alter(run: Path) -> None:
        lines = (run / name).read_text().splitlines(keepends=True)
        del lines[number]
        (run / name).write_text("".join(lines))

    return alter


def replace_chains(run: Path) -> None:
    curve = (run / "curve.jsonl").read_text()
    (run / "curve.jsonl").write_text(re.sub(r'("sha256_chain": )"[0-9a-f]+"', rf'\1"{"0" * 64}"', curve))


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no run": (shutil.rmtree, r"holds no run \(run.json is missing\); make one with: mlp-xp train --out"),
    "every checkpoint damaged": (damage_all, "no checkpoint of .* can be used: .*epoch-0002.safetensors: not a check"),
    "no id": (edit_json(lambda d: d.pop("id")), "not the description of a run that can go on: 'id' is missing"),
    "an id that is no text of UTF-8": (edit_json(lambda d: d.update(id="\ud800")), "'id' is "),
    "no checkpoints": (edit_json(lambda d: d.pop("checkpoints")), "run that can go on: 'checkpoints' is missing"),
    "checkpoints in words": (
        edit_json(lambda d: d["checkpoints"].update(every="1")),
        "'every' of 'checkpoints' is '1'",
    ),
    "no rollbacks": (edit_json(lambda d: d.pop("rollbacks")), "run that can go on: 'rollbacks' is missing"),
    "rollbacks of nothing": (edit_json(lambda d: d.update(rollbacks=[3])), "not a run's description: "),
    "a growth in words": (edit_json(lambda d: d.update(largest_growth="inf")), "'largest_growth' is 'inf'"),
    "a growth that is none": (edit_json(lambda d: d.update(largest_growth=0.5)), "'largest_growth' is 0.5"),
    "a growth of 400 digits": (edit_json(lambda d: d.update(largest_growth=10**400)), "'largest_growth' is 1000"),
    "resumed in words": (edit_json(lambda d: d.update(resumed="often")), "not a run's description: "),
    "data without a name": (edit_json(lambda d: d["data"].pop("name")), "'name' of 'data' is None, not a text"),
    "data of a number's name": (edit_json(lambda d: d["data"].update(name=3)), "'name' of 'data' is 3, not a text"),
    "no backend": (edit_json(lambda d: d.pop("backend")), "run that can go on: 'backend' is missing"),
    "a backend of later work alone": (
        edit_json(lambda d: d["resumed"].append({"backend": d.pop("backend")})),
        "run that can go on: 'backend' is missing",
    ),
    "a backend without a name": (
        edit_json(lambda d: d["backend"].pop("name")),
        "'name' of 'backend' is None, not a text",
    ),
    "a backend whose name is none": (
        edit_json(lambda d: d["backend"].update(name=["numpy"])),
        r"'name' of 'backend' is \['numpy'\], not a text",
    ),
    "work on no backend": (
        edit_json(lambda d: d["resumed"].extend([{}, {"backend": d["backend"]}])),
        "run that can go on: 'backend' is missing",
    ),
    "other settings": (
        edit_json(lambda d: d["settings"].update(learning_rate=0.2)),
        "its settings are not those it was",
    ),
    "other data": (
        edit_json(lambda d: d["data"].update(sha256_test="0")),
        "the data are not those .*: sha256_test is ",
    ),
    "a line of the curve lost": (
        drop_line("curve.jsonl", 0),
        "curve.jsonl, line 3: .*; restore the file from a copy, or",
    ),
    "a curve that leads elsewhere": (
        replace_chains,
        "curve.jsonl: it does not lead to the checkpoint epoch-0002.safetensors; restore",
    ),
    "a step lost": (
        drop_line("steps.csv", 3),
        "steps.csv: the losses of epoch 0 are not those of curve.jsonl; restore .* is whole: to go on from an earlier",
    ),
    "a step lost after an earlier checkpoint": (
        drop_line("steps.csv", 20),
        "steps.csv: the losses of epoch 1 .*; the checkpoint epoch-0002.safetensors is whole: ",
    ),
    "one of replicas": (
        edit_json(lambda d: d.update(replicas=2)),
        "is one of 2 replicas, .*; go on with all of them: their replicas.json is missing",
    ),
    "two runs in one": (
        lambda run: (run / "replicas.json").write_text("{}"),
        "has run.json and replicas.json: one run",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_go_on_is_said_and_left_alone(
    name: str, stopped: Path, numpy_backend: Backend, digits: Split
) -> None:
    alter, message = REFUSED[name]
    alter(stopped)
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=message):
        resume(stopped, numpy_backend, digits)
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["curve.jsonl", "steps.csv", "checkpoints"])
def test_links_in_a_strangers_run_lead_nowhere(
    name: str, stopped: Path, tmp_path: Path, numpy_backend: Backend, digits: Split
) -> None:
    """What is behind a link is not written to, not even if it is a run's own file that was moved there."""
    elsewhere = tmp_path / "elsewhere"
    (stopped / name).rename(elsewhere)
    (stopped / name).symlink_to(elsewhere)
    before = {path: path.read_bytes() for path in [elsewhere, *elsewhere.rglob("*")] if path.is_file()}
    with pytest.raises(RunError, match=f"cannot be written: {name} in it is a link to another place; "):
        resume(stopped, numpy_backend, digits)
    assert {path: path.read_bytes() for path in before} == before


SEEDS: dict[str, tuple[Any, str]] = {
    "none": ([], r"'seeds' is \[\], not a list of whole numbers; "),
    "in words": (["0", "1"], r"'seeds' is \['0', '1'\], not a list of whole numbers; "),
    "of nothing": ([None], r"'seeds' is \[None\], not a list of whole numbers; "),
    "fractional": ([0.5, 1.5], r"'seeds' is \[0.5, 1.5\], not a list of whole numbers; "),
    "no list": (2, "'seeds' is 2, not a list of whole numbers; "),
    "with a gap": ([0, 2], r"'seeds' is \[0, 2\], which do not follow each other; "),
    "too many": ([*range(4097)], "it has 4,097 seeds, more than 4,096; "),
}


def test_a_seed_too_long_for_a_folders_name_is_refused(tmp_path: Path, numpy_backend: Backend, digits: Split) -> None:
    folder, last = tmp_path / "run", replace(NATIVE, epochs=1, seed=2**128 - 1)
    with pytest.raises(SettingsError, match=f"seed = {2**128}: must be a whole number < {2**128}"):
        start(folder, last, digits, numpy_backend, 2)
    assert not folder.exists()
    list(start(folder, replace(last, seed=2**128 - 2), digits, numpy_backend, 2))
    path = folder / "replicas.json"
    path.write_text(
        path.read_text().replace(f'"seed": {2**128 - 2}', f'"seed": {"1" * 300}')
    )  # longer than any name of a folder
    with pytest.raises(RunError, match=r"replicas\.json: not a run's description: seed = 1{300}: must be a whole num"):
        RecordedTraining(folder)


@pytest.mark.parametrize("name", SEEDS)
def test_seeds_that_are_none_are_refused(name: str, tmp_path: Path) -> None:
    seeds, message = SEEDS[name]
    (tmp_path / "replicas.json").write_text(json.dumps({"format": 1, "seeds": seeds}))
    with pytest.raises(RunError, match=rf"replicas\.json: {message}"):
        RecordedTraining(tmp_path)


def test_a_folder_is_free_after_a_refusal(stopped: Path, numpy_backend: Backend, digits: Split) -> None:
    other = Dataset("other", digits.train.features, digits.train.targets, 10).split()
    with pytest.raises(RunError, match="the data are not those it was trained on: n_train is "):
        resume(stopped, numpy_backend, other)
    list(resume(stopped, numpy_backend, digits))
