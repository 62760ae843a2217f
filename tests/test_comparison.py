"""Which differences of two curves are taken for rounding, and where the largest one is."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from mlp_xp.backend import Backend, open_backend
from mlp_xp.comparison import TOLERANCES, Comparison, Difference, Place, SeedSpread, Training, compare
from mlp_xp.datasets import Dataset, Split
from mlp_xp.errors import SettingsError, TrainingDiverged
from mlp_xp.randomness import batch_order
from mlp_xp.settings import Settings
from mlp_xp.training import train

SETTINGS = Settings(hidden_layer_sizes=(16,), epochs=2, batch_size=100)
N_STEPS = 300


def comparison(dtype: str, change: dict[int, float], reference: np.ndarray | None = None) -> Comparison:
    """Return a comparison of two curves over 3 epochs of 100 steps that differ at some steps."""
    first = np.ones(N_STEPS) if reference is None else reference
    second = first.copy()
    for step, difference in change.items():
        second[step] += difference
    row = {"epoch": 2, "loss": 1.0, "test_loss": 1.0, "accuracy": 0.5, "seconds": 0.25, "sha256_chain": "0"}
    other = row | {"sha256_chain": "1" if change else "0"}
    trainings = [
        Training("a", {"device": "cpu"}, [row] * 3, first),
        Training("b", {"device": "cpu"}, [other] * 3, second),
    ]
    return Comparison(Settings(dtype=dtype, epochs=3), "made up", trainings)


@pytest.mark.parametrize(
    ("dtype", "change", "within"),
    [
        ("float64", {}, True),
        ("float64", {0: 9e-13, 299: -9e-13}, True),
        ("float64", {299: 2e-12}, False),
        ("float32", {99: 9e-7, 100: 4e-3}, True),
        ("float32", {99: 2e-6}, False),
        ("float32", {100: -6e-3}, False),
        ("float32", {100: float("nan")}, False),
    ],
)
def test_the_tolerance_is_that_of_the_dtype(dtype: str, change: dict[int, float], within: bool) -> None:
    assert comparison(dtype, change).within_tolerance is within


def test_the_largest_difference_is_found_with_its_place() -> None:
    both = comparison("float32", {3: 1e-7, 217: -3e-4})
    difference = both.difference(both.trainings[1])
    assert difference.at == Place(2, 17)
    assert difference.value == pytest.approx(3e-4)
    assert difference.first_outside is None


def test_the_first_step_outside_is_found_although_others_are_farther_off() -> None:
    both = comparison("float32", {98: 9e-7, 99: 2e-6, 100: 6e-3, 217: 0.5})
    assert both.difference(both.trainings[1]) == Difference(
        0.5, Place(2, 17), Place(0, 99), within_tolerance=False, same_bits=False
    )
    both = comparison("float64", {0: float("nan")})
    assert both.difference(both.trainings[1]).first_outside == Place(0, 0)


def test_the_tolerance_grows_with_the_largest_loss_so_far_and_no_later_one() -> None:
    losses = np.ones(N_STEPS)
    losses[200] = 1000.0
    assert comparison("float64", {200: 9e-10, 299: 9e-10}, losses).within_tolerance
    assert not comparison("float64", {199: 9e-10}, losses).within_tolerance
    assert not comparison("float64", {0: 2e-12}, np.full(N_STEPS, 1e-6)).within_tolerance


def test_json_holds_it() -> None:
    both = comparison("float32", {150: 0.5})
    values = json.loads(json.dumps(both.to_dict(), allow_nan=False))
    assert values["within_tolerance"] is False
    assert values["tolerance"] == {"early_steps": 100, "early": 1e-6, "late": 5e-3}
    assert [backend["name"] for backend in values["backends"]] == ["a", "b"]
    second = values["backends"][1]
    place = {"epoch": 1, "step": 50}
    assert second["difference"] == {
        "value": 0.5,
        "at": place,
        "first_outside": place,
        "within_tolerance": False,
        "same_bits": False,
    }
    assert second["diverged"] is None
    assert second["seconds"] == 0.75
    assert second["step_losses"] == both.trainings[1].step_losses.tolist()


@pytest.mark.parametrize(
    ("change", "deviation", "sentence"),
    [
        (
            {217: 0.03, 3: 0.01},
            0.3,
            "the largest difference between backends, 3.00e-02 (b (cpu), epoch 2, step 17), is 0.1 times the spread "
            "between 4 seeds in that epoch, 3.00e-01 (standard deviation of a batch's loss): less than the seed alone "
            "changes",
        ),
        ({217: 0.33}, 0.3, "3.30e-01 .* is 1.1 times the spread .*: as much as the seed alone changes"),
        ({217: 0.9}, 0.3, "9.00e-01 .* is 3 times the spread .*: more than the seed alone changes"),
        ({217: 0.9}, 0.0, "9.00e-01 .* is beyond the spread .* 0.00e\\+00 .*: more than the seed alone changes"),
        ({}, 0.3, "the backends' curves do not differ; the spread between 4 seeds in epoch 0 is 1.00e\\+00"),
    ],
)
def test_a_difference_is_held_against_the_spread_between_seeds(
    change: dict[int, float], deviation: float, sentence: str
) -> None:
    """That of the same epoch: the other ones' is 1."""
    deviations = np.ones(N_STEPS)
    deviations[200:] = deviation
    both = replace(comparison("float32", change), seeds=SeedSpread(4, deviations))
    found = both.beside_seeds()
    assert found == sentence or re.search(sentence, found)
    assert both.to_dict()["seeds"] == {"n": 4, "standard_deviation": deviations.tolist()}


def test_the_spread_of_an_epoch_is_the_root_of_its_mean_square() -> None:
    seeds = SeedSpread(2, np.asarray([9.0, 9.0, 1.0, 7.0]))
    assert seeds.of_epoch(1, 2) == 5.0


def test_without_seeds_or_without_another_curve_there_is_nothing_to_hold_against_them() -> None:
    both = comparison("float32", {})
    assert "seeds" not in both.to_dict()
    with pytest.raises(SettingsError, match="compare with replicas=N"):
        both.beside_seeds()
    first, second = both.trainings
    none = [first, replace(second, step_losses=np.empty(0), curve=[], diverged="epoch 0, step 0: the loss is nan")]
    alone = replace(both, trainings=none, seeds=SeedSpread(2, np.ones(N_STEPS)))
    assert alone.beside_seeds().startswith("no other backend finished an epoch")


def test_the_seeds_are_those_of_the_reference(backend: Backend, numpy_backend: Backend, digits: Split) -> None:
    told: list[Backend] = []
    result = compare(SETTINGS, digits, [backend, numpy_backend], lambda which, _: told.append(which), replicas=3)
    assert told == [backend] * 4 + [numpy_backend] * 2
    curves = [
        np.concatenate([epoch.step_losses for epoch in train(replace(SETTINGS, seed=seed), digits, backend)])
        for seed in range(3)
    ]
    assert result.seeds is not None
    assert result.seeds.n == 3
    np.testing.assert_allclose(result.seeds.standard_deviation, np.std(curves, axis=0, ddof=1), atol=1e-5)


def test_a_seed_that_diverges_is_named_with_the_backend(numpy_backend: Backend) -> None:
    """One of three rows is beyond bounds; it is left out of the reference's only batch, and not of the next seed's."""
    targets = np.asarray([[0.0], [1e30], [0.0]])
    line = Dataset("line", np.ones((3, 1)), targets, None)
    without = [1 not in batch_order(3, 2, seed, 0) for seed in range(50)]
    seed = next(i for i in range(50) if without[i : i + 2] == [True, False])
    settings = Settings((), loss="squared_error", batch_size=2, epochs=1, seed=seed)
    with pytest.raises(TrainingDiverged, match=rf"^numpy: seed {seed + 1}: epoch 0, step 0: the loss is inf"):
        compare(settings, Split(line, line.take(np.asarray([0]))), [numpy_backend, numpy_backend], replicas=2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_backend_stays_within_the_tolerance(
    backend: Backend, numpy_backend: Backend, digits: Split, dtype: str
) -> None:
    """Over enough steps for the late tolerance to have its turn."""
    told = []
    result = compare(
        replace(SETTINGS, dtype=dtype, batch_size=20),
        digits,
        [numpy_backend, backend],
        lambda which, epoch: told.append((which, epoch.epoch)),
    )
    assert result.within_tolerance
    assert told == [(numpy_backend, 0), (numpy_backend, 1), (backend, 0), (backend, 1)]
    first, second = result.trainings
    assert second.step_losses.shape == (2 * (1437 // 20),)
    assert second.step_losses.size > TOLERANCES["float32"].early_steps
    assert [row["epoch"] for row in second.curve] == [0, 1]
    assert result.difference(first).value == 0.0


def test_in_exact_arithmetic_every_backend_has_the_same_bits(
    backend: Backend, numpy_backend: Backend, digits: Split
) -> None:
    result = compare(replace(SETTINGS, arithmetic="exact", dtype=""), digits, [numpy_backend, backend])
    assert result.tolerance == (0, 0.0, 0.0)
    difference = result.difference(result.trainings[1])
    assert difference == Difference(0.0, Place(0, 0), None, within_tolerance=True, same_bits=True)


def test_in_exact_arithmetic_the_last_bit_matters() -> None:
    """Of a loss, and also of parameters alone, which no loss shows any more."""
    exact = Settings(arithmetic="exact", epochs=3)
    ulp = np.finfo(np.float64).eps
    both = replace(comparison("float64", {299: ulp}), settings=exact)
    assert both.difference(both.trainings[1]).first_outside == Place(2, 99)
    hidden = replace(comparison("float64", {299: 0.0}), settings=exact)
    assert hidden.difference(hidden.trainings[1]).first_outside is None
    assert not hidden.within_tolerance
    assert replace(comparison("float64", {}), settings=exact).within_tolerance


@pytest.mark.usefixtures("wrong_backends")
def test_wrong_backends_leave_it(numpy_backend: Backend, digits: Split) -> None:
    wrong = [open_backend(name) for name in ("tf32", "bfloat", "scaled")]
    result = compare(SETTINGS, digits, [numpy_backend, *wrong])
    assert not any(result.difference(training).within_tolerance for training in result.trainings[1:])


@pytest.mark.usefixtures("wrong_backends")
def test_a_reference_that_diverges_names_the_backend(numpy_backend: Backend, digits: Split) -> None:
    with pytest.raises(TrainingDiverged, match=r"infinite: epoch 0, step 0: the loss is"):
        compare(SETTINGS, digits, [open_backend("infinite"), numpy_backend])


@pytest.mark.usefixtures("wrong_backends")
def test_another_training_that_diverges_leaves_the_rest(numpy_backend: Backend, digits: Split) -> None:
    """And of itself the epochs that it finished."""
    result = compare(SETTINGS, digits, [numpy_backend, open_backend("infinite"), open_backend("late"), numpy_backend])
    first, at_once, late, last = result.trainings
    assert at_once.diverged == "epoch 0, step 0: the loss is nan"
    assert (at_once.curve, at_once.step_losses.size) == ([], 0)
    assert result.difference(at_once) == Difference(None, None, None, within_tolerance=False, same_bits=False)
    assert re.fullmatch(r"epoch 1, step \d+: the loss is nan", late.diverged or "")
    assert [row["loss"] for row in late.curve] == [first.curve[0]["loss"]]
    np.testing.assert_array_equal(late.step_losses, first.step_losses[:14])
    assert result.difference(late) == Difference(0.0, Place(0, 0), None, within_tolerance=False, same_bits=False)
    assert last.diverged is None
    assert result.difference(last).within_tolerance
    assert not result.within_tolerance
    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert [backend["diverged"] for backend in values["backends"]] == [None, at_once.diverged, late.diverged, None]
