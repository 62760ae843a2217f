"""The solvers "sgd" and "adam": epochs of batches, until nothing improves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from mlp_xp.array_types import PyTree
from mlp_xp.estimators.problem import Problem
from mlp_xp.estimators.schedules import Schedule
from mlp_xp.estimators.state import draw_layer
from mlp_xp.estimators.user_warnings import warn
from mlp_xp.loop import Loop
from mlp_xp.network import Layer, NormalizedLayer, Parameters
from mlp_xp.optimizers import SGD, Adam, Optimizer
from mlp_xp.pretraining import pretrain_layerwise
from mlp_xp.randomness import PRETRAINING, dropout_keys
from mlp_xp.step import TrainingStep

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mlp_xp.estimators.multilayer_perceptron import BaseMultilayerPerceptron


@dataclass
class Progress:
    """What a training by batches carries from one call of ``partial_fit`` to the next.

    Attributes
    ----------
    optimizer : Optimizer
        The first call's, whatever the settings are now; and so is the schedule, as scikit-learn has it.
    schedule : Schedule
    optimizer_state : pytree
        After the last epoch, which ``coefs_`` are of, too, unless ``early_stopping`` kept those of a better one.
    dropout_seed : int or None
        None until there is dropout.
    """

    optimizer: Optimizer
    schedule: Schedule
    optimizer_state: PyTree
    dropout_seed: int | None = None


class Plan(NamedTuple):
    """What a training by batches goes through.

    Attributes
    ----------
    rows : ndarray of int32, shape (n,)
        Numbers of the rows to train on.
    validation : ndarray of int32, shape (n_samples - n,), or None
        Of those to validate on.
    batch_size : int
    pretrain_epochs : int
        Of every hidden layer, before all of them are trained; 0 for none.
    """

    rows: NDArray[np.int32]
    validation: NDArray[np.int32] | None
    batch_size: int
    pretrain_epochs: int


def make_plan(estimator: BaseMultilayerPerceptron, problem: Problem, *, begins: bool) -> Plan:
    """Return the plan of the estimator's settings; only a training that begins is preceded by another one.

    Raises
    ------
    ValueError
        If the validation set is too small, or exact arithmetic or batch normalisation cannot have such batches.
    """
    rows, validation = split_rows(estimator, problem)
    batch_size = choose_batch_size(estimator, len(rows))
    problem.arithmetic.certify(problem.objective.network.layer_sizes, batch_size, 1.0)
    if estimator.batch_norm and batch_size < 2:
        raise ValueError(
            f"batch_norm=True needs batches of at least 2 rows, but batch_size={estimator.batch_size!r} and "
            f"{len(rows)} rows to train on make batches of {batch_size}"
        )
    pretrain_epochs = int(estimator.pretrain_epochs) if begins and estimator.pretrain else 0
    return Plan(rows, validation, batch_size, pretrain_epochs)


def split_rows(
    estimator: BaseMultilayerPerceptron, problem: Problem
) -> tuple[NDArray[np.int32], NDArray[np.int32] | None]:
    """Return the numbers of the rows to train on, and of those to validate on, if any.

    Raises
    ------
    ValueError
        If there are fewer than two rows to validate on, or one of two classes has a single row.
    """
    everything = np.arange(len(problem.targets), dtype=np.int32)
    if not estimator.early_stopping:
        return everything, None
    # Scikit-learn documents it for all classes, but its code takes the same rows only so.
    stratifies = is_classifier(estimator) and estimator.n_outputs_ == 1
    training, validation = train_test_split(
        everything,
        test_size=estimator.validation_fraction,
        stratify=problem.targets if stratifies else None,
        random_state=estimator._random_state,
    )
    if len(validation) < 2:
        raise ValueError("The validation set is too small. Increase 'validation_fraction' or the size of your dataset.")
    return training, validation


def choose_batch_size(estimator: BaseMultilayerPerceptron, n_rows: int) -> int:
    """Return the rows of a batch."""
    if estimator.batch_size == "auto":
        return min(200, n_rows)
    if estimator.batch_size > n_rows:
        warn("Got `batch_size` less than 1 or larger than sample size. It is going to be clipped.")
    return min(int(estimator.batch_size), n_rows)


def lay_out(
    order: NDArray[np.int32], batch_size: int, weights: NDArray[np.float64] | None, alpha: float, dtype: str
) -> tuple[NDArray[Any], ...]:
    """Return what the steps of an epoch take: row numbers and, unless all rows count alike, shares and penalties.

    Parameters
    ----------
    order : ndarray of int32, shape (n,)
        Row numbers. The last batch may be smaller; it is filled up with its own rows, whose share is 0.
    batch_size : int
    weights : ndarray of float64, shape (n_samples,), or None
        Of all rows.
    alpha : float
    dtype : str
        Of shares and penalties.

    Returns
    -------
    numbers : ndarray of int32, shape (n_steps, batch_size)
    shares : ndarray of shape (n_steps, batch_size)
        Every row's part of its batch's mean.
    l2 : ndarray of shape (n_steps,)
        ``alpha`` / the sum of the batch's weights.
    """
    n_steps = -(-len(order) // batch_size)
    n_last = len(order) - (n_steps - 1) * batch_size
    filled = np.concatenate([order, np.resize(order[-n_last:], batch_size - n_last)]).reshape(n_steps, batch_size)
    if n_last == batch_size and weights is None:
        return (filled,)
    parts = np.ones(filled.shape) if weights is None else weights[filled]
    parts[-1, n_last:] = 0.0
    totals = parts.sum(axis=1)
    totals[totals == 0.0] = math.inf  # a batch of rows without weight teaches nothing
    return filled, (parts / totals[:, None]).astype(dtype), (alpha / totals).astype(dtype)


def fit_stochastic(
    estimator: BaseMultilayerPerceptron, problem: Problem, plan: Plan, parameters: Parameters, *, incremental: bool
) -> Parameters:
    """Train until nothing improves or ``max_iter`` is reached; of ``partial_fit``, a single epoch.

    Parameters
    ----------
    estimator : BaseMultilayerPerceptron
        Holds the settings, and is told how the training goes in its fitted attributes.
    problem : Problem
    plan : Plan
    parameters : tuple of Layer
        Where to begin.
    incremental : bool

    Returns
    -------
    tuple of Layer

    Raises
    ------
    ValueError
        If a loss is not finite.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` was reached.
    """
    rows, validation, batch_size, _ = plan
    progress = _take_up(estimator, problem, parameters, incremental=incremental)
    is_uneven = problem.weights is not None or len(rows) % batch_size != 0
    objective = problem.objective if is_uneven else problem.objective_of_batch(batch_size)
    limit = estimator.max_gradient_norm  # a number of NumPy's own would change the type of what it is multiplied with
    limit = None if limit is None else float(limit)
    step = TrainingStep(objective, progress.optimizer, 1.0, problem.arithmetic, float(estimator.dropout), limit)
    loop = Loop(step, problem.rows, problem.backend, parameters, progress.optimizer_state)
    sizes = np.minimum(batch_size, len(rows) - np.arange(0, len(rows), batch_size))
    estimator.n_iter_ = 0
    try:
        try:
            if plan.pretrain_epochs:
                _pretrain(estimator, problem, plan, loop)
        finally:  # interrupted, it has learnt something, too
            best = loop.parameters
        for _ in range(1 if incremental else estimator.max_iter):
            if estimator.shuffle:
                rows = _shuffle(rows, estimator._random_state)
            inputs = lay_out(rows, batch_size, problem.weights, problem.alpha, problem.dtype)
            keys = _keys(estimator, len(sizes), len(estimator.loss_curve_))
            losses = loop.losses(loop.run(inputs[0], *keys, *inputs[1:]))
            _check_finite(losses, f"iteration {estimator.n_iter_ + 1}", estimator)
            estimator.n_iter_ += 1
            estimator.t_ += len(rows)
            estimator.loss_ = float(losses @ sizes) / len(rows)
            estimator.loss_curve_.append(estimator.loss_)
            estimator._remember(loop.parameters)
            progress.optimizer_state = loop.optimizer_state
            estimator._say(f"Iteration {estimator.n_iter_}, loss = {estimator.loss_:.8f}")
            if validation is None:
                improved = _compare_loss(estimator)
            else:
                improved, is_best = _validate(estimator, problem, loop.parameters, validation)
                best = loop.parameters if is_best else best
            estimator._no_improvement_count = 0 if improved else estimator._no_improvement_count + 1
            learning_rate = progress.schedule.current
            progress.schedule.after_epoch(estimator.t_)
            stops = estimator._no_improvement_count > estimator.n_iter_no_change and _stall(estimator, progress)
            if progress.schedule.current != learning_rate:
                loop.set_learning_rate(progress.schedule.current, problem.dtype)
                progress.optimizer_state = loop.optimizer_state
            if estimator._call_back() or stops:
                break
        else:
            if not incremental:
                warn(
                    f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) reached and the optimization "
                    "hasn't converged yet.",
                    ConvergenceWarning,
                )
    except KeyboardInterrupt:
        warn("Training interrupted by user.")
    return loop.parameters if validation is None else best


def _pretrain(estimator: BaseMultilayerPerceptron, problem: Problem, plan: Plan, loop: Loop) -> None:
    """Train the hidden layers of a loop's network one after another."""
    rows, n_epochs = plan.rows, plan.pretrain_epochs

    def last_layer(stage: int) -> Layer | NormalizedLayer:
        layer = draw_layer(estimator, estimator._layer_sizes[stage + 1], estimator._layer_sizes[-1])
        return problem.to_device((layer,))[0]

    def epochs(stage: int) -> Iterator[tuple[NDArray[Any], ...]]:
        for epoch in range(n_epochs):
            order = _shuffle(rows, estimator._random_state) if estimator.shuffle else rows
            numbers, *further = lay_out(order, plan.batch_size, problem.weights, problem.alpha, problem.dtype)
            number = PRETRAINING + stage * n_epochs + epoch
            yield numbers, *_keys(estimator, len(numbers), number), *further

    for stage, epoch, losses, _ in pretrain_layerwise(loop, last_layer, epochs):
        _check_finite(losses, f"pre-training of layer {stage}, epoch {epoch + 1}", estimator)
        estimator._say(f"Pre-training of layer {stage}, epoch {epoch + 1}, loss = {losses.mean():.8f}")
        estimator._remember(loop.parameters)


def _make_optimizer(estimator: BaseMultilayerPerceptron) -> Optimizer:
    rate = float(estimator.learning_rate_init)
    if estimator.solver == "adam":
        beta_1, beta_2 = float(estimator.beta_1), float(estimator.beta_2)
        return Adam(rate, beta_1, beta_2, float(estimator.epsilon), epsilon_hat=True)
    return SGD(rate, float(estimator.momentum), bool(estimator.nesterovs_momentum and estimator.momentum > 0))


def _take_up(
    estimator: BaseMultilayerPerceptron, problem: Problem, parameters: Parameters, *, incremental: bool
) -> Progress:
    """Return the progress of the last `partial_fit`, or else that of a beginning."""
    if not (incremental and hasattr(estimator, "_progress")):
        optimizer = _make_optimizer(estimator)
        kind = estimator.learning_rate if estimator.solver == "sgd" else "constant"
        schedule = Schedule(kind, float(estimator.learning_rate_init), estimator.power_t)
        estimator._progress = Progress(optimizer, schedule, optimizer.init(parameters, problem.arithmetic))
    progress = estimator._progress
    progress.optimizer_state = problem.cast(progress.optimizer_state)
    if estimator.dropout and progress.dropout_seed is None:
        progress.dropout_seed = int(estimator._random_state.randint(2**31))
    return progress


def _shuffle(rows: NDArray[np.int32], random_state: np.random.RandomState) -> NDArray[np.int32]:
    """Return the rows in the order that ``sklearn.utils.shuffle`` gives them, in half of its time."""
    order = np.arange(len(rows))
    random_state.shuffle(order)
    return rows[order]


def _keys(estimator: BaseMultilayerPerceptron, n_steps: int, epoch: int) -> tuple[NDArray[np.int32], ...]:
    """Return the keys of an epoch's dropout masks, if there is dropout."""
    seed = estimator._progress.dropout_seed
    if not estimator.dropout or seed is None:
        return ()
    return (dropout_keys(n_steps, len(estimator.coefs_) - 1, seed, epoch),)


def _compare_loss(estimator: BaseMultilayerPerceptron) -> bool:
    """Compare the epoch's loss with the best; return whether it is better by ``tol``."""
    improved: bool = estimator.loss_ <= estimator.best_loss_ - estimator.tol
    estimator._take_loss(estimator.loss_)
    return improved


def _validate(
    estimator: BaseMultilayerPerceptron, problem: Problem, parameters: Parameters, validation: NDArray[np.int32]
) -> tuple[bool, bool]:
    """Try the network on the validation rows; return whether the score is better by ``tol``, and whether it is best."""
    losses, predictions = problem.evaluate(parameters, validation)
    weights = None if problem.weights is None else problem.weights[validation]
    is_finite = np.isfinite(predictions).all()
    score = estimator._score_of(predictions, problem.targets[validation], weights) if is_finite else math.nan
    estimator.validation_scores_.append(score)
    estimator.validation_loss_curve_.append(float(np.average(losses, weights=weights)))
    estimator._say(f"Validation score: {score:f}")
    improved = not score < estimator.best_validation_score_ + estimator.tol
    is_best: bool = score > estimator.best_validation_score_
    if is_best:
        estimator.best_validation_score_ = score
    return improved, is_best


def _stall(estimator: BaseMultilayerPerceptron, progress: Progress) -> bool:
    """Return whether the training shall stop, as it has not improved for long."""
    what = "Validation score" if estimator.early_stopping else "Training loss"
    found = (
        f"{what} did not improve more than tol={estimator.tol:f} for {estimator.n_iter_no_change} consecutive epochs."
    )
    goes_on, consequence = progress.schedule.after_stall()
    estimator._say(f"{found} {consequence}")
    estimator._no_improvement_count = 0 if goes_on else estimator._no_improvement_count
    return not goes_on


def _check_finite(losses: NDArray[np.float64], where: str, estimator: BaseMultilayerPerceptron) -> None:
    """Refuse batch losses of which one is not finite."""
    if np.isfinite(losses).all():
        return
    raise ValueError(
        f"Solver produced non-finite parameter weights in {where}, batch {np.argmin(np.isfinite(losses))}. The input "
        "data may contain large values and need to be preprocessed (for instance by StandardScaler); or "
        f"learning_rate_init={estimator.learning_rate_init:g} is too large."
    )
