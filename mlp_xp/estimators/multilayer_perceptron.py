"""What the classifier and the regressor share: scikit-learn's interface over this project's network and loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.validation import check_is_fitted

from mlp_xp.activations import ACTIVATIONS
from mlp_xp.arithmetic import ARITHMETICS, make_arithmetic
from mlp_xp.array_types import Array
from mlp_xp.backend import Backend
from mlp_xp.batches import DeviceData
from mlp_xp.estimators.exchange import to_sklearn
from mlp_xp.estimators.inputs import (
    destination,
    follow,
    follow_labels,
    narrow,
    require_same_place,
    take_features,
    take_weights,
    to_host,
    told,
    warn_of_erased,
)
from mlp_xp.estimators.labels import Labels
from mlp_xp.estimators.layer_sizes import LayerSizes
from mlp_xp.estimators.lbfgs import fit_lbfgs
from mlp_xp.estimators.onnx_export import to_onnx
from mlp_xp.estimators.problem import Problem
from mlp_xp.estimators.state import begin_anew, complete, require_fitted_layers, unchanged_if_refused
from mlp_xp.estimators.state_dict import from_state_dict, to_state_dict
from mlp_xp.estimators.stochastic import Plan, Progress, fit_stochastic, make_plan
from mlp_xp.exactness import open_arithmetic
from mlp_xp.inference import PredictionStep, infer
from mlp_xp.network import Layer, Network, NormalizedLayer, Parameters, map_parameters
from mlp_xp.objective import Objective
from mlp_xp.segments import DeviceRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIGMOID = {"logistic": "sigmoid"}
"""scikit-learn's names of activations that have another one here."""
LOSSES_BY_OUTPUT = {
    "softmax": "cross_entropy",
    "logistic": "binary_cross_entropy",
    "identity": "squared_error",
    "exp": "poisson",
}
"""``out_activation_`` -> name in `mlp_xp.losses.LOSSES` of the loss that predicts by it."""


class BaseMultilayerPerceptron(BaseEstimator, ABC):  # type: ignore[misc]
    """A multi-layer perceptron that is fitted and applied where the array it is given lives."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": [LayerSizes()],
        "activation": [StrOptions({*ACTIVATIONS, *SIGMOID})],
        "solver": [StrOptions({"lbfgs", "sgd", "adam"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "max_gradient_norm": [Interval(Real, 0, None, closed="neither"), None],
        "residual": ["boolean"],
        "batch_norm": ["boolean"],
        "pretrain": [StrOptions({"layerwise"}), None],
        "pretrain_epochs": [Interval(Integral, 1, None, closed="left")],
        "callbacks": ["array-like", None],
        "arithmetic": [StrOptions(set(ARITHMETICS))],
    }

    # Set by the subclasses' __init__, as scikit-learn wants it: one parameter, one attribute.
    hidden_layer_sizes: Any
    activation: str
    solver: str
    alpha: float
    batch_size: Any
    learning_rate: str
    learning_rate_init: float
    power_t: float
    max_iter: int
    shuffle: bool
    random_state: Any
    tol: float
    verbose: Any
    warm_start: bool
    momentum: float
    nesterovs_momentum: bool
    early_stopping: bool
    validation_fraction: float
    beta_1: float
    beta_2: float
    epsilon: float
    n_iter_no_change: float
    max_fun: int
    dropout: float
    max_gradient_norm: float | None
    residual: bool
    batch_norm: bool
    pretrain: str | None
    pretrain_epochs: int
    callbacks: Any
    arithmetic: str

    # Fitted.
    coefs_: list[Array]
    intercepts_: list[Array]
    scales_: list[Array]
    running_means_: list[Array]
    running_variances_: list[Array]
    best_loss_: Any
    best_validation_score_: Any
    validation_scores_: Any
    validation_loss_curve_: Any
    classes_: Any
    _labels: Labels
    loss_curve_: list[float]
    n_iter_: int
    t_: int
    _no_improvement_count: int
    _progress: Progress

    def _keep(self, arguments: dict[str, Any]) -> None:
        """Make every argument of ``__init__`` an attribute of that name, and nothing else, as scikit-learn wants it."""
        for name, value in arguments.items():
            if name not in ("self", "__class__"):
                setattr(self, name, value)

    @property
    @abstractmethod
    def _out_activation(self) -> str:
        """scikit-learn's name of what makes a prediction of the logits, once y has been seen."""

    @abstractmethod
    def _take_targets(self, y: Any, X: Array, call: str) -> NDArray[Any]:
        """Check y and return what the network learns, int32 labels or a table of floats, on the host.

        Parameters
        ----------
        y : array-like
        X : array
        call : {"fit", "fit again", "partial_fit"}
            "fit again" for one that goes on from the last one.
        """

    @abstractmethod
    def _score_of(self, predictions: NDArray[Any], targets: NDArray[Any], weights: NDArray[np.float64] | None) -> float:
        """Return accuracy or R² of predictions of shape (n, n_outputs), on the host."""

    def _meet_classes(self, y: Any, classes: Any) -> None:
        """Check the classes that `partial_fit` is given; a regression has none."""

    def _class_weights(self, targets: NDArray[Any]) -> NDArray[np.float64] | None:  # noqa: ARG002
        return None  # a regression has no classes

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, *, incremental: bool, classes: Any = None
    ) -> BaseMultilayerPerceptron:
        with destination(X).working(), unchanged_if_refused(self):
            problem, parameters, plan = self._prepare(X, y, sample_weight, incremental, classes)
        with problem.backend.working():
            if plan is None:
                parameters = fit_lbfgs(self, problem)
            else:
                parameters = fit_stochastic(self, problem, plan, parameters, incremental=incremental)
        self._remember(parameters)
        xp = problem.backend.xp
        arrays = [array for layer in parameters for array in layer]
        loss = getattr(self, "loss_", 0.0)  # interrupted in its first epoch, a training has none
        if not (np.isfinite(loss) and all(bool(xp.all(xp.isfinite(array))) for array in arrays)):
            raise ValueError(
                f"Solver produced non-finite parameter weights or loss ({loss}). The input data may contain "
                "large values and need to be preprocessed."
            )
        return self

    def _prepare(
        self, X: Any, y: Any, sample_weight: Any, incremental: bool, classes: Any
    ) -> tuple[Problem, Parameters, Plan | None]:
        """Check all that is given and set, and bring the state to where the training begins or goes on.

        Returns
        -------
        Problem
        Parameters
        Plan or None
            None for "lbfgs".
        """
        self._validate_params()
        hidden = self._hidden_sizes()
        self._check_combinations(incremental)
        if incremental:
            self._meet_classes(y, classes)
        is_first = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        X, backend = take_features(self, X, reset=is_first)
        targets = self._take_targets(y, X, "partial_fit" if incremental else "fit" if is_first else "fit again")
        if hasattr(self, "_labels"):
            self.classes_ = follow_labels(self._labels.classes, backend)
        weights = take_weights(sample_weight, X)
        of_classes = self._class_weights(targets)
        if of_classes is not None:
            weights = of_classes if weights is None else weights * of_classes
            if not (incremental or weights.any()):
                raise ValueError(
                    "sample_weight and class_weight leave no row with a weight above 0: nothing is left to learn from"
                )
        self.n_outputs_ = self._count_outputs(targets)
        layer_sizes = (X.shape[1], *hidden, self.n_outputs_)
        self._random_state = check_random_state(self.random_state)
        if is_first:
            begin_anew(self, layer_sizes)
        else:
            require_same_place(self, backend, self.coefs_[0], "partial_fit" if incremental else "fit")
            require_fitted_layers(self, layer_sizes)
            complete(self)
        # A training that goes on keeps the type that it began with.
        is_double = (X if is_first else self.coefs_[0]).dtype == backend.xp.float64
        dtype = "float64" if is_double or self.arithmetic == "exact" else "float32"
        problem = self._make_problem(X, targets, weights, layer_sizes, backend, dtype)
        parameters = problem.to_device(self._parameters)
        self._remember(parameters)
        return problem, parameters, None if self.solver == "lbfgs" else make_plan(self, problem, begins=is_first)

    def _hidden_sizes(self) -> tuple[int, ...]:
        sizes = self.hidden_layer_sizes
        hidden = tuple(int(n) for n in sizes) if isinstance(sizes, Iterable) else (int(sizes),)
        if any(n <= 0 for n in hidden):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {list(hidden)}.")
        return hidden

    def _check_combinations(self, incremental: bool) -> None:
        """Refuse settings that contradict each other, and callbacks that cannot be called."""
        for name in ("early_stopping", "pretrain"):
            if incremental and getattr(self, name):
                raise ValueError(f"partial_fit does not support {name}={getattr(self, name)!r}")
        if not all(map(callable, self.callbacks or ())):
            raise ValueError(f"callbacks={self.callbacks!r} must be a list of callables or None")
        if self.solver == "lbfgs":
            for name, value, allowed in (
                ("dropout", self.dropout, 0),
                ("max_gradient_norm", self.max_gradient_norm, None),
                ("batch_norm", self.batch_norm, False),
                ("pretrain", self.pretrain, None),
                ("arithmetic", self.arithmetic, "native"),
            ):
                if value != allowed:
                    raise ValueError(
                        f"{name}={value!r} needs solver='sgd' or 'adam': SciPy's L-BFGS, which solver='lbfgs' calls, "
                        f"has nothing of the kind; with it, {name} must be {allowed!r}"
                    )

    def _count_outputs(self, targets: NDArray[Any]) -> int:
        return int(targets.shape[1])

    def _make_problem(
        self,
        X: Array,
        targets: NDArray[Any],
        weights: NDArray[np.float64] | None,
        layer_sizes: tuple[int, ...],
        backend: Backend,
        dtype: str,
    ) -> Problem:
        """Put together what a solver needs; X stays where it is."""
        arithmetic = open_arithmetic(self.arithmetic, backend, dtype)
        X = narrow(self, X, arithmetic.dtype, backend.xp)
        device_targets = backend.asarray(targets, "int32" if targets.dtype == np.int32 else dtype)
        features = arithmetic.round_activation(X)
        if self.arithmetic == "exact":
            warn_of_erased(X, features, backend)
        data = DeviceData(features, device_targets)
        objective = self._make_objective(layer_sizes)
        return Problem(objective, float(self.alpha), data, targets, weights, backend, arithmetic, dtype)

    def _make_objective(self, layer_sizes: tuple[int, ...]) -> Objective:
        activation = SIGMOID.get(self.activation, self.activation)
        network = Network(layer_sizes, activation, residual=bool(self.residual), batch_norm=bool(self.batch_norm))
        if self.residual and not any(network.shortcuts):
            raise ValueError(
                f"residual=True needs a hidden layer that has as many units as inputs, but the layers are {layer_sizes}"
            )
        return Objective(network, LOSSES_BY_OUTPUT[self.out_activation_])

    @property
    def _parameters(self) -> Parameters:
        """The fitted layers, wherever they are."""
        n = len(self.scales_)
        normalized = (self.scales_, self.running_means_, self.running_variances_)
        hidden = map(NormalizedLayer, self.coefs_[:n], self.intercepts_[:n], *normalized)
        return (*hidden, *map(Layer, self.coefs_[n:], self.intercepts_[n:]))

    @property
    def _layer_sizes(self) -> tuple[int, ...]:
        """Units of the fitted layers, features and outputs included."""
        return (self.coefs_[0].shape[0], *(weight.shape[1] for weight in self.coefs_))

    @property
    def _host_parameters(self) -> Parameters:
        return map_parameters(to_host, self._parameters)

    def _remember(self, parameters: Parameters) -> None:
        self.coefs_ = [layer.weight for layer in parameters]
        self.intercepts_ = [layer.bias for layer in parameters]
        normalized = [layer for layer in parameters if isinstance(layer, NormalizedLayer)]
        self.scales_ = [layer.scale for layer in normalized]
        self.running_means_ = [layer.mean for layer in normalized]
        self.running_variances_ = [layer.variance for layer in normalized]

    def _say(self, text: str) -> None:
        if self.verbose:
            print(text)  # noqa: T201 - scikit-learn's users expect it there

    def _call_back(self) -> bool:
        """Call all callbacks; return whether one of them wants to stop."""
        answers = [callback(self) for callback in self.callbacks or ()]
        return any(answers)

    def _take_loss(self, loss: float) -> None:
        self.loss_ = loss
        self.best_loss_ = min(loss, self.best_loss_)

    @told
    def _forward(self, X: Any, method: str) -> tuple[Array, Backend]:
        """Return the predictions of rows, shape (n, n_outputs), where the rows are."""
        check_is_fitted(self)
        X, backend = take_features(self, X, reset=False)
        require_same_place(self, backend, self.coefs_[0], method)
        xp = backend.xp
        dtype = X.dtype
        is_double = self.arithmetic == "exact" or self.coefs_[0].dtype == xp.float64
        arithmetic = make_arithmetic(self.arithmetic, backend, "float64" if is_double else "float32").for_inference()

        def cast(array: Array) -> Array:
            return xp.astype(array, arithmetic.dtype, copy=False)

        parameters = map_parameters(cast, self._parameters)
        features = arithmetic.round_activation(narrow(self, X, arithmetic.dtype, xp))
        rows = DeviceRows(DeviceData(features, None), backend)
        step = PredictionStep(self._make_objective(self._layer_sizes), 1.0, arithmetic)
        n = X.shape[0]
        ((values,),) = infer(step, parameters, rows, np.arange(n, dtype=np.int32), backend)
        return xp.astype(xp.reshape(values, (-1, self._layer_sizes[-1]))[:n, :], dtype, copy=False), backend

    def move_to(self, X: Any) -> BaseMultilayerPerceptron:
        """Move what was fitted to where an array is; a next `partial_fit` begins with a new optimiser.

        Parameters
        ----------
        X : array
            Of any library, on any device; what is not an array means NumPy.

        Returns
        -------
        self
        """
        check_is_fitted(self)
        backend = destination(X)
        # Exact arithmetic has float64 alone, and needs all of its bits wherever it goes.
        move = backend.asarray if self.arithmetic == "exact" else partial(follow, backend=backend)
        self._remember(map_parameters(move, self._host_parameters))
        if hasattr(self, "classes_"):
            self.classes_ = follow_labels(self._labels.classes, backend)
        self.__dict__.pop("_progress", None)
        return self

    def to_sklearn(self) -> Any:
        """Return scikit-learn's estimator of the same name, fitted alike, on the host.

        Raises
        ------
        NotFittedError
            If this one is not fitted.
        ValueError
            If scikit-learn has no such activation, no shortcuts or no batch normalisation.
        """
        return to_sklearn(self)

    def state_dict(self) -> dict[str, Array]:
        """Return the parameters for a ``torch.nn.Sequential``; see `mlp_xp.estimators.state_dict.to_state_dict`."""
        return to_state_dict(self)

    def load_state_dict(self, state: Mapping[str, Array]) -> BaseMultilayerPerceptron:
        """Take the parameters of a ``torch.nn.Sequential`` of fully connected layers, and go to where they are.

        Parameters
        ----------
        state : mapping of arrays
            As `state_dict` returns it. The estimator must be fitted, if only by one `partial_fit`: that tells it the
            classes.

        Returns
        -------
        self

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If the layers do not fit together, or are others than the estimator's.
        """
        check_is_fitted(self)
        given = from_state_dict(state)
        found, own = ([tuple(layer.weight.shape) for layer in layers] for layers in (given, self._parameters))
        if [*map(type, given)] != [*map(type, self._parameters)]:
            has = "no" if self.scales_ else "a"
            raise ValueError(f"the state_dict has {has} batch normalisation, but batch_norm={self.batch_norm!r}")
        if found != own:
            raise ValueError(
                f"the state_dict's layers have the shapes {found} (n_in, n_out), but the estimator's {own}"
            )
        self.move_to(given[0].weight)
        self._remember(given)
        return self

    def to_onnx(self, path: Path | str | None = None) -> Any:
        """Return an ONNX model, and write it to a file if one is named; see `mlp_xp.estimators.onnx_export.to_onnx`.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ImportError
            If the package onnx is not installed.
        """
        return to_onnx(self, path)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        return tags
