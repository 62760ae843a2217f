"""What decides a training: only possible values come in, and they survive a file."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from mlp_xp.digests import ADDED
from mlp_xp.errors import SettingsError
from mlp_xp.optimizers import SGD, Adam
from mlp_xp.settings import PRESETS, Settings

SMALL = ("learning_rate", "epsilon", "momentum", "beta_1", "beta_2", "l2", "dropout", "max_gradient_norm")
"""Settings that exact arithmetic takes only where products with them cannot be subnormal."""

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"activation": "rel"}, r"activation = 'rel': must be one of .*\(did you mean 'relu'\?\)"),
    ({"loss": "mse"}, "loss = 'mse': must be one of cross_entropy, binary_cross_entropy, squared_error, poisson"),
    ({"optimizer": "SGD"}, "optimizer = 'SGD': must be one of"),
    ({"init": None}, "init = None: must be one of"),
    ({"dtype": "float16"}, r"dtype = 'float16': must be one of float32, float64 \(did you mean"),
    ({"arithmetic": "exotic"}, "arithmetic = 'exotic': must be one of"),
    ({"hidden_layer_sizes": 64}, r"hidden_layer_sizes = 64: must be a list such as \(256, 256\)"),
    ({"hidden_layer_sizes": (64, 0)}, r"hidden_layer_sizes = \(64, 0\): must be whole numbers ≥ 1"),
    ({"hidden_layer_sizes": (1, 10**22)}, "must be whole numbers ≥ 1 and ≤ 268435456"),
    ({"hidden_layer_sizes": "64"}, "must be whole numbers ≥ 1"),
    ({"batch_size": 0}, "batch_size = 0: must be a whole number ≥ 1"),
    ({"batch_size": 10.0}, "batch_size = 10.0: must be a whole number ≥ 1"),
    ({"epochs": True}, "epochs = True: must be a whole number ≥ 1"),
    ({"seed": -1}, "seed = -1: must be a whole number ≥ 0"),
    ({"seed": 2**128}, f"seed = {2**128}: must be a whole number < {2**128}"),
    ({"learning_rate": 0.0}, "learning_rate = 0.0: must be a number > 0"),
    ({"learning_rate": float("nan")}, "learning_rate = nan: must be a number > 0"),
    ({"learning_rate": float("inf")}, "learning_rate = inf: must be a number > 0"),
    ({"learning_rate": 10**400}, "learning_rate = 1000.*: must be a number > 0"),
    ({"learning_rate": "0.1"}, "learning_rate = '0.1': must be a number > 0"),
    ({"epsilon": 0}, "epsilon = 0: must be a number > 0"),
    ({"momentum": 1.0}, r"momentum = 1.0: must be a number in \[0, 1\)"),
    ({"momentum": 0.9, "optimizer": "adam"}, "momentum = 0.9: must be 0 unless optimizer = 'sgd'"),
    ({"l2": 10**400}, "l2 = 1000.*: must be a number ≥ 0"),
    ({"beta_1": -0.1}, r"beta_1 = -0.1: must be a number in \[0, 1\)"),
    ({"beta_2": None}, r"beta_2 = None: must be a number in \[0, 1\)"),
    ({"l2": -1.0}, "l2 = -1.0: must be a number ≥ 0"),
    *(({"dropout": value}, rf"dropout = {value}: must be a number in \[0, 1\)") for value in (1.0, -0.1, True, None)),
    *(
        ({"max_gradient_norm": value}, f"max_gradient_norm = {value}: must be a number > 0, or None")
        for value in (0, -1.0, float("inf"), True)
    ),
    *(
        ({name: 2.0**-101, "arithmetic": "exact"}, rf"{name} = 3.94\S+: must be ≥ 7.9e-31 in exact arithmetic")
        for name in SMALL
    ),
    ({"nesterov": "no"}, "nesterov = 'no': must be True or False"),
    ({"nesterov": True}, "nesterov = True: must be False unless momentum > 0"),
    ({"learning_rat": 0.1}, "unknown setting 'learning_rat'"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=[str(values) for values, _ in REFUSED])
def test_impossible_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.from_dict(values)


def test_exact_arithmetic_takes_small_numbers_and_zeros() -> None:
    least = 2.0**-100
    Settings(arithmetic="exact", learning_rate=least, epsilon=least, momentum=least, beta_1=least, l2=least)
    Settings(arithmetic="exact", dropout=least, max_gradient_norm=least)
    Settings(arithmetic="exact", momentum=0.0, beta_1=0.0, beta_2=0.0, l2=0.0, dropout=0.0, max_gradient_norm=None)
    Settings(learning_rate=2.0**-101)  # native arithmetic promises no bits


def test_the_labs_preset_is_the_labs() -> None:
    lab = PRESETS["lab"]
    assert lab.hidden_layer_sizes == (256, 256)
    assert (lab.activation, lab.loss, lab.optimizer, lab.init) == ("relu", "cross_entropy", "sgd", "pytorch")
    assert (lab.learning_rate, lab.batch_size, lab.epochs) == (0.1, 200, 20)
    assert (lab.momentum, lab.l2, lab.dtype, lab.arithmetic) == (0.0, 0.0, "float32", "native")


def test_json_holds_all_of_them() -> None:
    settings = Settings(
        (3, 4), momentum=0.9, nesterov=True, l2=0.1, dropout=0.3, max_gradient_norm=2, dtype="float64", seed=10**30
    )
    again = Settings.from_dict(json.loads(json.dumps(settings.to_dict())))
    assert again == settings
    assert hash(again) == hash(settings)  # equal settings share a compiled step


def test_a_file_from_before_a_setting_existed_means_its_default() -> None:
    old = {name: value for name, value in Settings().to_dict().items() if name not in ADDED}
    assert len(old) == len(Settings().to_dict()) - 6
    assert Settings.from_dict(old) == Settings(dropout=0.0, max_gradient_norm=None, residual=False, batch_norm=False)
    assert Settings.from_dict(old).pretrain == "none"


def test_numpys_numbers_become_plain_ones() -> None:
    settings = Settings(
        hidden_layer_sizes=np.asarray([8, 4]),  # type: ignore[arg-type]
        batch_size=np.int64(10),  # type: ignore[arg-type]
        learning_rate=np.float32(0.5),  # type: ignore[arg-type]
    )
    assert json.loads(json.dumps(settings.to_dict()))["hidden_layer_sizes"] == [8, 4]
    assert settings == Settings(hidden_layer_sizes=(8, 4), batch_size=10, learning_rate=0.5)


def test_the_optimizer_is_the_one_described() -> None:
    sgd = Settings(learning_rate=0.2, momentum=0.9, nesterov=True)
    adam = Settings(optimizer="adam", learning_rate=0.3, beta_1=0.8, beta_2=0.9, epsilon=1e-6)
    for settings, expected in ((sgd, SGD(0.2, 0.9, True)), (adam, Adam(0.3, 0.8, 0.9, 1e-6))):
        optimizer: Any = settings.make_optimizer()
        assert type(optimizer) is type(expected)
        assert asdict(optimizer) == asdict(expected)  # of optimisers that differ in the rate alone, == says equal
