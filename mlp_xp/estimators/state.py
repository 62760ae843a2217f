"""The state of a training that a fitted estimator holds: which attributes it is, and that none of them is missing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from mlp_xp.estimators.multilayer_perceptron import BaseMultilayerPerceptron

HISTORY = (
    "n_iter_",
    "t_",
    "loss_",
    "loss_curve_",
    "best_loss_",
    "validation_scores_",
    "best_validation_score_",
    "_no_improvement_count",
)
"""How the training went, under scikit-learn's names, in plain numbers and lists; of ``loss_`` see `complete`."""


def begin_anew(estimator: BaseMultilayerPerceptron, layer_sizes: tuple[int, ...]) -> None:
    """Draw the parameters as scikit-learn does, so that the same ``random_state`` begins at the same ones.

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010,
    section 4.2.
    """
    factor = 2.0 if estimator.activation in ("logistic", "sigmoid") else 6.0
    estimator.coefs_, estimator.intercepts_ = [], []
    for n_in, n_out in pairwise(layer_sizes):
        bound = np.sqrt(factor / (n_in + n_out))
        estimator.coefs_.append(estimator._random_state.uniform(-bound, bound, (n_in, n_out)))
        estimator.intercepts_.append(estimator._random_state.uniform(-bound, bound, n_out))
    estimator.n_layers_ = len(layer_sizes)
    estimator.out_activation_ = estimator._out_activation
    for name in (*HISTORY, "validation_loss_curve_", "_progress"):
        estimator.__dict__.pop(name, None)
    complete(estimator)


def complete(estimator: BaseMultilayerPerceptron) -> None:
    """Add what a training by the estimator's settings needs and is missing or None; keep all that is there.

    What is missing depends on where the state comes from: everything at a beginning; of scikit-learn's estimators what
    they do not have; after a change of ``solver`` or ``early_stopping`` what the other one had no use for. ``loss_``
    stays missing until the first epoch is over.
    """
    validates = estimator.early_stopping and estimator.solver != "lbfgs"
    losses = [*(getattr(estimator, "loss_curve_", None) or []), getattr(estimator, "loss_", math.inf)]
    beginning: dict[str, Any] = {
        "n_iter_": 0,
        "t_": 0,
        "loss_curve_": [],
        "best_loss_": None if validates else min(losses),
        "validation_scores_": [] if validates else None,
        "best_validation_score_": -math.inf if validates else None,
        "validation_loss_curve_": [] if validates else None,
        "_no_improvement_count": 0,
    }
    for name, value in beginning.items():
        if getattr(estimator, name, None) is None:
            setattr(estimator, name, value)


@contextmanager
def unchanged_if_refused(estimator: BaseEstimator) -> Iterator[None]:
    """Put all attributes, and a generator that was given, back as they were if the ``with`` block raises.

    The block must replace lists, not change them.
    """
    before = dict(estimator.__dict__)
    given = estimator.random_state if isinstance(estimator.random_state, np.random.RandomState) else None
    drawn: Any = None if given is None else given.get_state()
    try:
        yield
    except BaseException:
        if given is not None:
            given.set_state(drawn)
        estimator.__dict__.clear()
        estimator.__dict__.update(before)
        raise


def require_fitted_layers(estimator: BaseMultilayerPerceptron, layer_sizes: tuple[int, ...]) -> None:
    """Refuse settings or targets that need another network than the one that was fitted.

    Raises
    ------
    ValueError
        Which names both.
    """
    remedy = "give what it was fitted with, or begin anew: fit with warm_start=False"
    fitted = (estimator.coefs_[0].shape[0], *(weight.shape[1] for weight in estimator.coefs_))
    if layer_sizes != fitted:
        raise ValueError(
            f"the fitted network has the layers {fitted}, features and outputs included, but hidden_layer_sizes="
            f"{estimator.hidden_layer_sizes!r} and the data ask for {layer_sizes}; {remedy}"
        )
    if estimator.out_activation_ != estimator._out_activation:
        raise ValueError(
            f"the fitted network predicts by {estimator.out_activation_!r}, but the loss or the classes ask for "
            f"{estimator._out_activation!r}; {remedy}"
        )
