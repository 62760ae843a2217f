"""Multi-layer perceptrons with scikit-learn's interface, for arrays of any library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import column_or_1d

from mlp_xp.array_types import Array
from mlp_xp.backend import Backend
from mlp_xp.estimators.inputs import follow, take_targets, to_host
from mlp_xp.estimators.labels import Labels
from mlp_xp.estimators.multilayer_perceptron import BaseMultilayerPerceptron

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _solves_by_batches(estimator: BaseMultilayerPerceptron) -> bool:
    if estimator.solver == "lbfgs":
        raise AttributeError("partial_fit is only available for stochastic optimizers. lbfgs is not stochastic.")
    return True


class MLPClassifier(ClassifierMixin, BaseMultilayerPerceptron):  # type: ignore[misc]
    """Multi-layer perceptron classifier."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseMultilayerPerceptron._parameter_constraints,
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        class_weight: Any = None,
        dropout: float = 0.0,
        max_gradient_norm: float | None = None,
        callbacks: Any = None,
        arithmetic: str = "native",
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.class_weight = class_weight
        self.dropout = dropout
        self.max_gradient_norm = max_gradient_norm
        self.callbacks = callbacks
        self.arithmetic = arithmetic

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPClassifier:  # noqa: N803
        """Fit the model to rows and their labels."""
        return self._fit(X, y, sample_weight, incremental=False)  # type: ignore[return-value]

    @available_if(_solves_by_batches)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> MLPClassifier:  # noqa: N803
        """Train for one epoch on the rows."""
        known = getattr(self, "classes_", None)
        if known is None and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if known is None:
            y_host = np.asarray(to_host(y))
            self._labels = Labels.of(y_host if y_host.ndim == 2 else np.asarray(to_host(classes)))
        elif classes is not None and not np.array_equal(to_host(known), np.unique(np.asarray(to_host(classes)))):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {to_host(known)!r}"
            )
        return self._fit(X, y, sample_weight, incremental=True)  # type: ignore[return-value]

    def predict(self, X: Any) -> Array:  # noqa: N803
        """Return the likeliest class of every row."""
        probabilities, backend = self._forward(X, "predict")
        xp = backend.xp
        decided = self._labels.decide(probabilities, xp)
        if self._labels.is_multilabel:
            return xp.astype(decided, xp.__array_namespace_info__().default_dtypes()["integral"])
        if isinstance(self.classes_, np.ndarray):
            return self.classes_[backend.to_host(decided)]
        return xp.take(self.classes_, decided, axis=0)

    def predict_proba(self, X: Any) -> Array:  # noqa: N803
        """Return the probability of every class, shape (n_samples, n_classes)."""
        return self._probabilities(X, "predict_proba")[0]

    def predict_log_proba(self, X: Any) -> Array:  # noqa: N803
        """Return the logarithms of `predict_proba`."""
        probabilities, backend = self._probabilities(X, "predict_log_proba")
        return backend.xp.log(probabilities)

    def _probabilities(self, X: Any, method: str) -> tuple[Array, Backend]:  # noqa: N803
        probabilities, backend = self._forward(X, method)
        if self.n_outputs_ == 1:
            probabilities = backend.xp.concat([1 - probabilities, probabilities], axis=1)
        return probabilities, backend

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: N803
        """Return the share of rows whose label (of several, all labels) is predicted."""
        return float(accuracy_score(to_host(y), to_host(self.predict(X)), sample_weight=to_host(sample_weight)))

    @property
    def _loss_name(self) -> str:
        return self._labels.loss

    @property
    def _out_activation(self) -> str:
        return "softmax" if self._labels.loss == "cross_entropy" else "logistic"

    def _count_outputs(self, targets: NDArray[Any]) -> int:  # noqa: ARG002 - the classes say it
        return self._labels.n_outputs

    def _take_targets(self, y: Any, X: Array, backend: Backend, *, is_first: bool, incremental: bool) -> NDArray[Any]:  # noqa: N803
        y = take_targets(self, y, X, numeric=False)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if not incremental and is_first:
            self._labels = Labels.of(y)
        elif not incremental:
            found = Labels.of(y).classes
            if set(found) != set(self._labels.classes):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                    f"Previously got {self._labels.classes}, `y` has {found}"
                )
        targets = self._labels.encode(y)
        self.classes_ = follow(self._labels.classes, backend)
        return targets

    def _class_weights(self, targets: NDArray[Any]) -> NDArray[np.float64] | None:
        if self.class_weight is None:
            return None
        y = targets.astype(np.int64) if self._labels.is_multilabel else self._labels.classes[targets]
        weights: NDArray[np.float64] = compute_sample_weight(self.class_weight, y)
        return weights

    def _score_of(self, predictions: NDArray[Any], targets: NDArray[Any], weights: NDArray[np.float64] | None) -> float:
        return float(accuracy_score(targets, self._labels.decide(predictions, np), sample_weight=weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, BaseMultilayerPerceptron):  # type: ignore[misc]
    """Multi-layer perceptron regressor."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseMultilayerPerceptron._parameter_constraints,
        "loss": [StrOptions({"squared_error", "poisson"})],
    }

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dropout: float = 0.0,
        max_gradient_norm: float | None = None,
        callbacks: Any = None,
        arithmetic: str = "native",
    ) -> None:
        self.loss = loss
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.dropout = dropout
        self.max_gradient_norm = max_gradient_norm
        self.callbacks = callbacks
        self.arithmetic = arithmetic

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:  # noqa: N803
        """Fit the model to rows and their numbers."""
        return self._fit(X, y, sample_weight, incremental=False)  # type: ignore[return-value]

    @available_if(_solves_by_batches)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:  # noqa: N803
        """Train for one epoch on the rows."""
        return self._fit(X, y, sample_weight, incremental=True)  # type: ignore[return-value]

    def predict(self, X: Any) -> Array:  # noqa: N803
        """Return the prediction of every row, shape (n_samples,) or (n_samples, n_outputs)."""
        values, backend = self._forward(X, "predict")
        return backend.xp.reshape(values, (-1,)) if self.n_outputs_ == 1 else values

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: N803
        """Return R², the share of the variance of y that the predictions explain (mean over the outputs)."""
        return float(r2_score(to_host(y), to_host(self.predict(X)), sample_weight=to_host(sample_weight)))

    @property
    def _loss_name(self) -> str:
        return self.loss

    @property
    def _out_activation(self) -> str:
        return "exp" if self.loss == "poisson" else "identity"

    def _take_targets(self, y: Any, X: Array, backend: Backend, *, is_first: bool, incremental: bool) -> NDArray[Any]:  # noqa: N803, ARG002
        y = take_targets(self, y, X, numeric=True)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return y.astype(np.float64).reshape(len(y), -1)

    def _score_of(self, predictions: NDArray[Any], targets: NDArray[Any], weights: NDArray[np.float64] | None) -> float:
        return float(r2_score(targets, predictions, sample_weight=weights))
