"""The solver "lbfgs": SciPy's, over the objective and gradient of all rows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import OptimizeResult, minimize
from sklearn.exceptions import ConvergenceWarning

from mlp_xp.arithmetic import Arithmetic
from mlp_xp.array_types import Array
from mlp_xp.batches import DeviceData
from mlp_xp.estimators.problem import Problem
from mlp_xp.estimators.user_warnings import warn
from mlp_xp.losses import encode_targets
from mlp_xp.network import Layer, Parameters
from mlp_xp.objective import Objective

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from mlp_xp.estimators.multilayer_perceptron import BaseMultilayerPerceptron

CONVERGED, REACHED_A_LIMIT, CALLBACK_STOPPED = 0, 1, 99
"""What SciPy calls the ends of a minimisation; any other is a line search that failed."""


@dataclass(frozen=True)
class GradientStep:
    """A step for `Backend.scan`: the objective of all rows and its gradient; the carried parameters stay."""

    objective: Objective
    arithmetic: Arithmetic

    def __call__(
        self, carry: Parameters, x: tuple[Array, ...], constants: DeviceData
    ) -> tuple[Parameters, tuple[Array, ...]]:
        """Take the penalty's strength and, if the rows have weights, their shares: `Objective.value_and_gradient`."""
        l2, *weights = x
        targets = encode_targets(constants.targets, self.objective.network.layer_sizes[-1], self.arithmetic)
        shares = weights[0] if weights else None
        value, gradient = self.objective.value_and_gradient(
            carry, constants.features, targets, self.arithmetic, shares, l2
        )
        return carry, (value, *(layer.weight for layer in gradient), *(layer.bias for layer in gradient))


def fit_lbfgs(estimator: BaseMultilayerPerceptron, problem: Problem) -> Parameters:
    """Train from the estimator's parameters on, and tell it in its fitted attributes how that goes."""

    def after_iteration(coefs: list[NDArray[Any]], intercepts: list[NDArray[Any]], loss: float) -> bool:
        estimator.n_iter_ += 1
        estimator.t_ += len(problem.targets)
        estimator.loss_curve_.append(loss)
        estimator._take_loss(loss)
        estimator._say(f"Iteration {estimator.n_iter_}, loss = {loss:.8f}")
        if not estimator.callbacks:
            return False
        estimator._remember(problem.to_device(tuple(map(Layer, coefs, intercepts))))
        return estimator._call_back()

    start = estimator._host_parameters
    estimator.n_iter_ = 0
    coefs, intercepts, loss, estimator.n_iter_ = minimize_lbfgs(
        problem,
        [layer.weight for layer in start],
        [layer.bias for layer in start],
        max_iter=estimator.max_iter,
        max_fun=estimator.max_fun,
        tol=estimator.tol,
        callback=after_iteration,
    )
    estimator._take_loss(loss)  # known even where no iteration was needed
    return problem.to_device(tuple(map(Layer, coefs, intercepts)))


def minimize_lbfgs(
    problem: Problem,
    coefs: list[NDArray[Any]],
    intercepts: list[NDArray[Any]],
    *,
    max_iter: int,
    max_fun: int,
    tol: float,
    callback: Callable[[list[NDArray[Any]], list[NDArray[Any]], float], bool],
) -> tuple[list[NDArray[Any]], list[NDArray[Any]], float, int]:
    """Minimise the objective over all rows by L-BFGS-B.

    Byrd, Lu, Nocedal and Zhu, "A limited memory algorithm for bound constrained optimization", SIAM J. Sci. Comput.
    16, 1995. The rows stay on the device; the parameters and the gradient, which SciPy wants as one vector on the
    host, travel once per evaluation.

    Parameters
    ----------
    problem : Problem
    coefs, intercepts : lists of ndarrays
        Where to begin.
    max_iter, max_fun : int
        Most iterations, most evaluations.
    tol : float
        The largest component of the gradient at which it stops.
    callback : callable
        Called after every iteration with coefs, intercepts and loss; stops if it returns true.

    Returns
    -------
    coefs, intercepts : lists of ndarrays
    loss : float
    n_iter : int

    Warns
    -----
    ConvergenceWarning
        If it stopped before it converged, and no callback wanted that.
    """
    shapes = [array.shape for array in (*coefs, *intercepts)]
    ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    step = GradientStep(problem.objective, problem.arithmetic)
    backend, dtype = problem.backend, problem.dtype
    weights = np.ones(len(problem.targets)) if problem.weights is None else problem.weights
    total = weights.sum()
    inputs = [backend.asarray(np.array([problem.alpha / total]), dtype)]
    if problem.weights is not None:
        inputs.append(backend.asarray((weights / total)[None], dtype))

    def unpack(vector: NDArray[Any]) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        arrays = [vector[a:b].reshape(shape) for a, b, shape in zip(ends, ends[1:], shapes, strict=False)]
        return arrays[: len(coefs)], arrays[len(coefs) :]

    def evaluate(vector: NDArray[Any]) -> tuple[float, NDArray[np.float64]]:
        parameters = problem.to_device(tuple(map(Layer, *unpack(vector))))
        _, ys = backend.scan(step, parameters, tuple(inputs), problem.data)
        value, *gradient = (backend.to_host(y)[0] for y in ys)
        return float(value), np.concatenate([array.ravel() for array in gradient], dtype=np.float64)

    def after_iteration(intermediate_result: OptimizeResult) -> None:
        if callback(*unpack(intermediate_result.x.copy()), float(intermediate_result.fun)):
            raise StopIteration

    result = minimize(
        evaluate,
        np.concatenate([array.ravel() for array in chain(coefs, intercepts)], dtype=np.float64),
        method="L-BFGS-B",
        jac=True,
        callback=after_iteration,
        options={"maxfun": max_fun, "maxiter": max_iter, "gtol": tol},
    )
    if result.status not in (CONVERGED, CALLBACK_STOPPED):
        more = "Increase the number of iterations (max_iter) or of evaluations (max_fun), or s"
        warn(
            f"lbfgs failed to converge after {result.nit} iteration(s) (status={result.status}):\n{result.message}\n\n"
            f"{more if result.status == REACHED_A_LIMIT else 'S'}cale the data.",
            ConvergenceWarning,
        )
    return *unpack(result.x), float(result.fun), int(result.nit)
