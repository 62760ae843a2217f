"""The split is the lab's and scikit-learn's, index for index; a digest tells what a run was trained on."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from mlp_xp.datasets import Dataset, Split
from mlp_xp.errors import DataError, SettingsError


def numbered(n_samples: int) -> Dataset:
    """Rows that tell their own index."""
    index = np.arange(n_samples)
    return Dataset("numbered", np.column_stack([index, index + 0.5]), (index % 3).astype(np.int32), 3)


TABLE = np.arange(12.0).reshape(6, 2)
LABELS = [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": np.zeros(6)}, r"the features have the shape \(6,\), not .*; give a table"),
        ({"features": np.zeros((6, 2, 2))}, r"the features have the shape \(6, 2, 2\)"),
        ({"features": np.zeros((6, 0))}, r"shape \(6, 0\).*; give a table with at least one row and one column"),
        ({"features": np.zeros((0, 2)), "targets": []}, r"shape \(0, 2\)"),
        ({"features": [[1, 2], [3]]}, "its features cannot be made into a NumPy array .*; give rows of one length"),
        (
            {"features": np.full((6, 2), "1")},
            "its features are of type <U1, not real numbers; store integers or floats",
        ),
        ({"features": TABLE.astype(complex)}, "its features are of type complex128"),
        ({"features": TABLE[:5]}, "5 rows of features but 6 of targets; give features and targets that belong"),
        ({"targets": np.int64(3)}, "6 rows of features but 0 of targets"),
        ({"targets": LABELS, "n_classes": 2}, "label 2 is not among 0 … 1; number the classes from 0, or raise"),
        ({"targets": [0, 1, 2, -1, 0, 1]}, "label -1 is not among 0 … 2; number the classes from 0"),
        ({"targets": np.zeros(6)}, r"must be integers .*, not float64 of shape \(6,\); give y\.astype\(int\)"),
        ({"targets": np.ones(6, bool)}, "must be integers .*, not bool"),
        ({"targets": np.eye(3, dtype=int)[LABELS]}, r"not int64 of shape \(6, 3\); .*the argmax of one-hot rows"),
        ({"n_classes": 1}, "n_classes = 1: must be a whole number ≥ 2; give the number of classes, or None"),
        ({"n_classes": 3.0}, "n_classes = 3.0: must be a whole number"),
        ({"n_classes": True}, "n_classes = True: must be"),
        ({"n_classes": None}, r"the targets must be floats .*, not int64 of shape \(6,\); give y\.reshape"),
        ({"n_classes": None, "targets": np.zeros(6)}, r"not float64 of shape \(6,\)"),
        ({"n_classes": None, "targets": np.zeros((6, 1), int)}, r"not int64 of shape \(6, 1\)"),
        ({"n_classes": None, "targets": np.zeros((6, 0))}, r"not float64 of shape \(6, 0\)"),
        ({"n_classes": None, "targets": [[1.0]] * 5 + [[np.nan]]}, "a target is nan; remove the row or give it a"),
        ({"scale": 0.0}, "scale = 0.0: must be a finite number > 0; give a factor such as 1/256"),
        ({"scale": -1}, "scale = -1: must be"),
        ({"scale": np.float32("nan")}, "scale = np.float32.nan.: must be"),
        ({"scale": float("inf")}, "scale = inf: must be"),
        ({"scale": 10**400}, "scale = 1000.*: must be"),
        ({"scale": "1/256"}, "scale = '1/256': must be"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"mine: .*{message}"):
        Dataset(**{"name": "mine", "features": TABLE, "targets": LABELS, "n_classes": 3, **fields})


def test_lists_and_numpys_numbers_become_plain() -> None:
    plain = Dataset("mine", TABLE, np.asarray(LABELS), 3, 0.5)
    assert plain.features is TABLE
    other = Dataset("mine", TABLE.tolist(), LABELS, np.int64(3), np.float32(0.5))  # type: ignore[arg-type]
    assert (type(other.n_classes), type(other.scale)) == (int, float)
    assert other.digest() == plain.digest()


@pytest.mark.parametrize("n_samples", [2, 3, 10, 999, 60_000])
def test_split_is_the_labs_formula(n_samples: int) -> None:
    order = np.random.RandomState(2020).permutation(n_samples)
    n_test = -(-n_samples // 5)
    train, test = numbered(n_samples).split()
    np.testing.assert_array_equal(test.features[:, 0], order[:n_test])
    np.testing.assert_array_equal(train.features[:, 0], order[n_test:])
    np.testing.assert_array_equal(train.targets, order[n_test:] % 3)


def test_the_labs_split_has_its_sizes() -> None:
    train, test = numbered(60_000).split()
    assert (train.n_samples, test.n_samples) == (48_000, 12_000)


@pytest.mark.parametrize("test_size", [0.1, 0.2, 1 / 3, 0.5, 0.99])
@pytest.mark.parametrize("random_state", [0, 2020])
@pytest.mark.parametrize("n_samples", [101, 1000])
def test_split_is_scikit_learns(n_samples: int, random_state: int, test_size: float) -> None:
    data = numbered(n_samples)
    theirs = train_test_split(data.features, data.targets, test_size=test_size, random_state=random_state)
    split = data.split(test_size, random_state)
    ours = [split.train.features, split.test.features, split.train.targets, split.test.targets]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_split_keeps_everything_but_the_rows() -> None:
    data = Dataset("images", np.full((10, 4), 200, np.uint8), np.zeros((10, 1)), None, 1 / 256)
    split = data.split()
    assert isinstance(split, Split)
    for part, n_samples in zip(split, (8, 2), strict=True):
        assert part.features.shape == (n_samples, 4)
        assert part.targets.shape == (n_samples, 1)
        assert part.features.dtype == np.uint8
        assert (part.name, part.n_classes, part.scale) == ("images", None, 1 / 256)


@pytest.mark.parametrize("test_size", [0.0, 1.0, -0.1, 20, float("nan"), "0.2", None])
def test_split_refuses_a_share_that_is_none(test_size: Any) -> None:
    with pytest.raises(SettingsError, match=r"test size is .*between 0 and 1"):
        numbered(10).split(test_size)


@pytest.mark.parametrize("random_state", [-1, 2**32, 1.5, None, "2020", np.random.RandomState(0)])
def test_split_refuses_a_random_state_that_is_no_seed(random_state: Any) -> None:
    with pytest.raises(SettingsError, match=r"random state is .*; give a whole number from 0 to 2\*\*32 - 1"):
        numbered(10).split(random_state=random_state)


def test_split_takes_numpys_numbers() -> None:
    ours, theirs = (numbered(10).split(*each) for each in ((0.5, 3), (np.float32(0.5), np.int64(3))))
    np.testing.assert_array_equal(ours.test.features, theirs.test.features)


@pytest.mark.parametrize(("n_samples", "test_size"), [(1, 0.2), (2, 0.7)])
def test_split_leaves_something_to_train_on(n_samples: int, test_size: float) -> None:
    with pytest.raises(DataError, match=f"numbered: {n_samples} samples leave none to train on"):
        numbered(n_samples).split(test_size)


def test_take_gives_rows_in_order() -> None:
    taken = numbered(9).take(np.array([7, 0, 7]))
    np.testing.assert_array_equal(taken.features, [[7, 7.5], [0, 0.5], [7, 7.5]])
    np.testing.assert_array_equal(taken.targets, [1, 0, 1])
    assert (taken.n_samples, taken.n_features) == (3, 2)


def test_digest_is_of_values_not_of_memory() -> None:
    data = numbered(6)
    known = "53a7fbcce7f4b32e"
    for other in (
        dataclasses.replace(data, name="another name"),
        dataclasses.replace(data, features=np.asfortranarray(data.features)),
        dataclasses.replace(data, features=data.features.astype(">f8"), targets=data.targets.astype(">i4")),
        dataclasses.replace(data, features=np.repeat(data.features, 2, axis=0)[::2]),
    ):
        assert other.digest() == data.digest()
    assert data.digest().startswith(known)


def test_digest_sees_every_change() -> None:
    data = numbered(6)
    changed = data.features.copy()
    changed[5, 1] = np.nextafter(changed[5, 1], 9)
    others = [
        dataclasses.replace(data, features=changed),
        dataclasses.replace(data, features=data.features.astype(np.float32)),
        dataclasses.replace(data, features=data.features.reshape(3, 4), targets=data.targets[:3]),
        dataclasses.replace(data, targets=data.targets[::-1]),
        dataclasses.replace(data, n_classes=4),
        dataclasses.replace(data, scale=0.5),
        data.take(np.arange(5)),
    ]
    assert len({data.digest(), *(other.digest() for other in others)}) == len(others) + 1


def test_importing_the_package_is_cheap() -> None:
    late = ["sklearn", "urllib.request", "http.client", "ssl", "tqdm", "platformdirs", "pandas", "matplotlib"]
    code = f"import sys, mlp_xp.datasets; print([name for name in {late} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
