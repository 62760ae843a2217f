"""Everything that decides a training's result besides its data; what a run records."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any

from mlp_xp.activations import ACTIVATIONS
from mlp_xp.arithmetic import ARITHMETICS
from mlp_xp.errors import SettingsError
from mlp_xp.initializers import INITIALIZERS
from mlp_xp.losses import LOSSES
from mlp_xp.optimizers import OPTIMIZERS, SGD, Adam, Optimizer

DTYPES = ("float32", "float64")
PRETRAININGS = ("none", "layerwise")
REALS = ("learning_rate", "epsilon", "momentum", "beta_1", "beta_2", "l2", "dropout", "max_gradient_norm")
LEAST_EXACT = 2.0**-100
"""Products with a smaller setting could be subnormal numbers, which some libraries take for 0."""
MOST_UNITS = 2**28
"""Of a layer: two such ones have more weights than any machine holds, and not more than NumPy can count."""
SEEDS = 2**128
"""Below it are as many bits as NumPy's own seeds have; a seed's digits are part of a folder's name."""

CHOICES: Mapping[str, Iterable[str]] = {
    "activation": ACTIVATIONS,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "init": INITIALIZERS,
    "pretrain": PRETRAININGS,
    "dtype": DTYPES,
    "arithmetic": ARITHMETICS,
}
"""The settings that are names, each with its allowed ones."""


def plain(value: Any) -> Any:
    """Return a number (such as NumPy's) as Python's own, which JSON can hold; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_real(value: object) -> bool:
    """Tell whether it is a finite number of Python's own, and no truth value."""
    # Compared, not converted: an int may be too large for a float.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _require(holds: bool, name: str, settings: Settings, wanted: str) -> None:
    if not holds:
        raise SettingsError(f"{name} = {getattr(settings, name)!r}: must be {wanted}")


def _require_choice(name: str, value: object, allowed: Iterable[str]) -> None:
    choices = list(allowed)
    if value not in choices:
        close = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise SettingsError(f"{name} = {value!r}: must be one of {', '.join(choices)}{hint}")


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters of a training.

    Parameters
    ----------
    hidden_layer_sizes : tuple of int
        Units of every hidden layer; empty for a linear model.
    activation : str
        Of the hidden layers: a name in `mlp_xp.activations.ACTIVATIONS`.
    loss : str
        A name in `mlp_xp.losses.LOSSES`.
    optimizer : str
        "sgd" or "adam".
    learning_rate : float
        > 0.
    momentum : float
        In [0, 1); of SGD, and 0 for any other.
    nesterov : bool
        Whether SGD's momentum is Nesterov's.
    beta_1, beta_2, epsilon : float
        Of Adam.
    l2 : float
        Penalty l2 / 2 × the sum of all squared weights, ≥ 0.
    dropout : float
        Share of the hidden units that are left out in a step, in [0, 1).
    max_gradient_norm : float or None
        A longer gradient, of the penalty too, is shortened to that norm, > 0; None for never.
    residual : bool
        Whether hidden layers that have as many units as inputs add these to what they hand on.
    batch_norm : bool
        Whether what the units of the hidden layers are given is normalised over the batch, which then needs 2 rows.
    pretrain : str
        "none", or "layerwise": the hidden layers are first trained one after another (`mlp_xp.pretraining`).
    pretrain_epochs : int
        Of each hidden layer, ≥ 1.
    batch_size : int
        Rows of a step; the last, partial batch of an epoch is left out.
    epochs : int
        ≥ 1.
    init : str
        A name in `mlp_xp.initializers.INITIALIZERS`.
    seed : int
        ≥ 0 and < 2¹²⁸; decides the initial parameters, every epoch's order, and the units that dropout leaves out.
    dtype : str
        "float32" or "float64"; "" (the default) is float32, and float64 in exact arithmetic, which has no other.
    arithmetic : str
        A name in `mlp_xp.arithmetic.ARITHMETICS`.

    Raises
    ------
    SettingsError
        If a value is not among those allowed.
    """

    hidden_layer_sizes: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    loss: str = "cross_entropy"
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    l2: float = 0.0
    dropout: float = 0.0
    max_gradient_norm: float | None = None
    residual: bool = False
    batch_norm: bool = False
    pretrain: str = "none"
    pretrain_epochs: int = 1
    batch_size: int = 50
    epochs: int = 20
    init: str = "pytorch"
    seed: int = 0
    dtype: str = ""
    arithmetic: str = "native"

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, plain(getattr(self, field.name)))
        sizes = self.hidden_layer_sizes
        _require(isinstance(sizes, Iterable), "hidden_layer_sizes", self, "a list such as (256, 256)")
        # A list, as JSON gives it, would make the settings unhashable.
        object.__setattr__(self, "hidden_layer_sizes", tuple(map(plain, sizes)))
        if not self.dtype:
            object.__setattr__(self, "dtype", "float64" if self.arithmetic == "exact" else "float32")
        for name, allowed in CHOICES.items():
            _require_choice(name, getattr(self, name), allowed)
        _require(self.arithmetic != "exact" or self.dtype == "float64", "dtype", self, "float64 in exact arithmetic")
        _require(
            all(_whole(n, 1) and n <= MOST_UNITS for n in self.hidden_layer_sizes),
            "hidden_layer_sizes",
            self,
            f"whole numbers ≥ 1 and ≤ {MOST_UNITS}",
        )
        for name, least in (("batch_size", 1), ("epochs", 1), ("pretrain_epochs", 1), ("seed", 0)):
            _require(_whole(getattr(self, name), least), name, self, f"a whole number ≥ {least}")
        _require(self.seed < SEEDS, "seed", self, f"a whole number < {SEEDS}")
        for name in ("learning_rate", "epsilon"):
            _require(is_real(getattr(self, name)) and getattr(self, name) > 0, name, self, "a number > 0")
        for name in ("momentum", "beta_1", "beta_2", "dropout"):
            _require(is_real(getattr(self, name)) and 0 <= getattr(self, name) < 1, name, self, "a number in [0, 1)")
        _require(self.momentum == 0 or self.optimizer == "sgd", "momentum", self, "0 unless optimizer = 'sgd'")
        _require(is_real(self.l2) and self.l2 >= 0, "l2", self, "a number ≥ 0")
        norm = self.max_gradient_norm
        _require(norm is None or (is_real(norm) and norm > 0), "max_gradient_norm", self, "a number > 0, or None")
        reals = [name for name in REALS if getattr(self, name) is not None]
        for name in reals:  # 1 and 1.0 are the same setting: they must be recorded alike
            object.__setattr__(self, name, float(getattr(self, name)) + 0.0)
        if self.arithmetic == "exact":
            for name in reals:
                value = getattr(self, name)
                _require(value == 0 or value >= LEAST_EXACT, name, self, f"≥ {LEAST_EXACT:.2g} in exact arithmetic")
        for name in ("nesterov", "residual", "batch_norm"):
            _require(isinstance(getattr(self, name), bool), name, self, "True or False")
        _require(not self.nesterov or self.momentum > 0, "nesterov", self, "False unless momentum > 0")
        for name, off in (("residual", False), ("batch_norm", False), ("pretrain", "none")):
            _require(
                bool(self.hidden_layer_sizes) or getattr(self, name) == off, name, self, f"{off} without hidden layers"
            )
        _require(self.batch_size > 1 or not self.batch_norm, "batch_size", self, "at least 2 with batch_norm")

    @property
    def n_pretraining_epochs(self) -> int:
        """Epochs of all hidden layers' pre-training."""
        return self.pretrain_epochs * len(self.hidden_layer_sizes) if self.pretrain == "layerwise" else 0

    def make_optimizer(self) -> Optimizer:
        """Return the optimiser these settings describe."""
        if self.optimizer == "adam":
            return Adam(self.learning_rate, self.beta_1, self.beta_2, self.epsilon)
        return SGD(self.learning_rate, self.momentum, self.nesterov)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON can hold them."""
        return {**asdict(self), "hidden_layer_sizes": list(self.hidden_layer_sizes)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Return the settings that `to_dict` wrote.

        Raises
        ------
        SettingsError
            If a name is unknown or a value is not allowed.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise SettingsError(f"unknown setting {unknown[0]!r}")
        return cls(**values)


PRESETS: Mapping[str, Settings] = {
    "lab": Settings(hidden_layer_sizes=(256, 256), batch_size=200, learning_rate=0.1, epochs=20),
}
"""Named settings; "lab" is the university lab's, which leaves initialisation at PyTorch's default."""
