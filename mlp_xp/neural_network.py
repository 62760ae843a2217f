"""Multi-layer perceptrons with scikit-learn's interface, for arrays of any library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if

from mlp_xp.array_types import Array
from mlp_xp.backend import Backend
from mlp_xp.estimators import exchange, weight_files
from mlp_xp.estimators.class_weights import weigh_rows
from mlp_xp.estimators.inputs import take_targets, to_host
from mlp_xp.estimators.labels import Labels
from mlp_xp.estimators.multilayer_perceptron import BaseMultilayerPerceptron
from mlp_xp.losses import REGRESSION_LOSSES

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _solves_by_batches(estimator: BaseMultilayerPerceptron) -> bool:
    if estimator.solver == "lbfgs":
        raise AttributeError("partial_fit is only available for stochastic optimizers. lbfgs is not stochastic.")
    return True


class MLPClassifier(ClassifierMixin, BaseMultilayerPerceptron):  # type: ignore[misc]
    """Multi-layer perceptron classifier that is fitted and applied where X lives.

    It minimises the log loss by stochastic gradient descent, Adam or L-BFGS. What scikit-learn's classifier of this
    name has, it has: parameters, defaults, attributes and warnings; and with the same ``random_state`` it draws the
    same numbers, so that in float64 the two have the same loss curve to rounding. X may be an array of NumPy, CuPy,
    JAX, PyTorch or any other library that follows the array API standard: what is fitted and what is predicted is of
    X's library, device and type, and the work is done there (with JAX, an epoch is one compiled loop).

    Parameters
    ----------
    hidden_layer_sizes : array-like of int, default=(100,)
        Units of every hidden layer; a single number for a single layer.
    activation : str, default="relu"
        Of the hidden layers: "identity", "logistic" (or "sigmoid"), "tanh", "relu", "leaky_relu", "elu", "gelu", "silu"
        or "softplus"; see `mlp_xp.activations`.
    solver : {"adam", "sgd", "lbfgs"}, default="adam"
        Kingma and Ba's Adam; stochastic gradient descent; or SciPy's L-BFGS-B over all rows, which is often better for
        few rows.
    alpha : float, default=0.0001
        Strength of the L2 penalty, alpha / 2 × the sum of all squared weights, which is divided by the number of rows
        (the sum of their weights) of a batch.
    batch_size : int or "auto", default="auto"
        Rows of a step; "auto" is min(200, n_samples). The last batch of an epoch may be smaller. Not used by "lbfgs".
    learning_rate : {"constant", "invscaling", "adaptive"}, default="constant"
        How the learning rate goes on, with "sgd": "constant"; "invscaling" is learning_rate_init / (t + 1) ** power_t
        for the ``t_`` rows seen so far; "adaptive" is divided by 5 whenever the loss (with ``early_stopping``, the
        score) has not become better by ``tol`` for more than ``n_iter_no_change`` epochs, until it is at most 1e-6.
    learning_rate_init : float, default=0.001
        The learning rate of "sgd" and "adam" at the beginning.
    power_t : float, default=0.5
        Exponent of "invscaling".
    max_iter : int, default=200
        Most epochs; with "lbfgs", most iterations.
    shuffle : bool, default=True
        Whether every epoch takes the rows in a new random order.
    random_state : int, RandomState or None, default=None
        Decides the initial parameters, the validation rows and the order of the rows; an int for the same result in
        every call.
    tol : float, default=1e-4
        What counts as becoming better. When loss or score have not for more than ``n_iter_no_change`` epochs, training
        stops (unless the learning rate is "adaptive"); with "lbfgs", the largest component of the gradient at which it
        stops.
    verbose : bool, default=False
        Whether to print a line per epoch.
    warm_start : bool, default=False
        Whether `fit` goes on from the parameters of the last one. Like `partial_fit`, it then keeps their type, and
        refuses what needs other layers or another ``loss``.
    momentum : float, default=0.9
        Of "sgd", in [0, 1].
    nesterovs_momentum : bool, default=True
        Whether that is Nesterov's.
    early_stopping : bool, default=False
        Whether a part of the rows (of two classes, in equal shares) is set aside, and the score on them decides when to
        stop and which epoch's parameters are kept.
    validation_fraction : float, default=0.1
        That part.
    beta_1, beta_2 : float, default=0.9, 0.999
        Decay of Adam's running means of the gradient and of its square, in [0, 1).
    epsilon : float, default=1e-8
        Added to Adam's denominator (the paper's ε̂).
    n_iter_no_change : int, default=10
        See ``tol``.
    max_fun : int, default=15000
        Most evaluations of "lbfgs".
    class_weight : dict, list of dict, "balanced" or None, default=None
        Weights of the classes, ≥ 0, times ``sample_weight``; "balanced" gives every class the same sum. Of several
        labels a row, a dict for every label, with the weights of 0 and 1.
    dropout : float, default=0.0
        Share of the hidden units that every step leaves out at random, the same ones on every backend; in [0, 1).
    max_gradient_norm : float or None, default=None
        A longer gradient is shortened to that norm.
    residual : bool, default=False
        Whether hidden layers that have as many units as inputs add these to what they hand on (He et al., "Deep
        residual learning for image recognition", CVPR 2016).
    batch_norm : bool, default=False
        Whether what the hidden units are given is normalised over the batch (Ioffe and Szegedy, "Batch normalization",
        ICML 2015); not with "lbfgs".
    pretrain : {"layerwise"} or None, default=None
        Whether `fit` first trains the hidden layers one after another, each with an output layer of its own (Bengio et
        al., "Greedy layer-wise training of deep networks", NIPS 2006); not with "lbfgs".
    pretrain_epochs : int, default=1
        Epochs of each of them.
    callbacks : list of callables or None, default=None
        Each is called with the estimator after every epoch ("lbfgs": iteration), when its fitted attributes are up to
        date; training stops if one returns a true value.
    arithmetic : {"native", "exact"}, default="native"
        "exact" computes in float64 with the same bits on every backend (not with "lbfgs"); see the README.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        The labels; of X's library, unless it cannot hold them: strings and, without 64-bit types, large numbers.
    loss_ : float
        Mean loss of the last epoch's batches, each before its step, penalty included.
    best_loss_ : float or None
        The smallest so far; None with ``early_stopping``.
    loss_curve_ : list of float
        ``loss_`` after every epoch ("lbfgs": iteration).
    validation_scores_ : list of float or None
        Accuracy on the validation rows after every epoch; None without ``early_stopping``.
    best_validation_score_ : float or None
        The best of them.
    validation_loss_curve_ : list of float or None
        Mean loss, without penalty, on the same rows.
    t_ : int
        Rows seen: ``n_iter_`` times the number of rows to train on, summed over all calls.
    coefs_, intercepts_ : lists of arrays of shape (n_in, n_out) and (n_out,)
        Weights and biases of every layer.
    scales_, running_means_, running_variances_ : lists of arrays of shape (n_out,)
        With ``batch_norm``, of every hidden layer: the factor of what is normalised, and what `predict` normalises by.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        If X was a data frame with names that are all strings.
    n_iter_ : int
        Epochs (iterations) of the last call.
    n_layers_ : int
        Layers of units, the features' and the outputs' included.
    n_outputs_ : int
        Units of the output layer: 1 for two classes.
    out_activation_ : str
        "softmax", or "logistic" for two classes or several labels a row.

    Notes
    -----
    What differs from scikit-learn's: sparse tables and negative weights are refused; with ``early_stopping``, a `fit`
    that goes on and finds no better score leaves the parameters as they were, not those of its last epoch;
    probabilities are not limited from below for the loss, which is larger where one is close to 0; y and
    ``sample_weight`` may be of another library than X. The rows of more than two classes are set aside as its code does
    it, not, as it documents, by class. What it does not have: ``class_weight`` and the parameters after it, the other
    activations, ``validation_loss_curve_``, a loss curve of "lbfgs", and X elsewhere.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from mlp_xp.neural_network import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = MLPClassifier(max_iter=500, random_state=0).fit(X, y)
    >>> classifier.score(X, y)
    0.98
    """

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
        residual: bool = False,
        batch_norm: bool = False,
        pretrain: str | None = None,
        pretrain_epochs: int = 1,
        callbacks: Any = None,
        arithmetic: str = "native",
    ) -> None:
        self._keep(locals())

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPClassifier:
        """Fit the model to rows and their labels."""
        return self._fit(X, y, sample_weight, incremental=False)

    @available_if(_solves_by_batches)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> MLPClassifier:
        """Train for one epoch on the rows."""
        return self._fit(X, y, sample_weight, incremental=True, classes=classes)

    def predict(self, X: Any) -> Array:
        """Return the likeliest class of every row."""
        probabilities, backend = self._forward(X, "predict")
        xp = backend.xp
        decided = self._labels.decide(probabilities, xp)
        if self._labels.is_multilabel:
            return xp.astype(decided, xp.__array_namespace_info__().default_dtypes()["integral"])
        if isinstance(self.classes_, np.ndarray):
            return self.classes_[backend.to_host(decided)]
        return xp.take(self.classes_, decided, axis=0)

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of every class, shape (n_samples, n_classes)."""
        return self._probabilities(X, "predict_proba")[0]

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of `predict_proba`."""
        probabilities, backend = self._probabilities(X, "predict_log_proba")
        return backend.xp.log(probabilities)

    def _probabilities(self, X: Any, method: str) -> tuple[Array, Backend]:
        probabilities, backend = self._forward(X, method)
        if self.n_outputs_ == 1:
            probabilities = backend.xp.concat([1 - probabilities, probabilities], axis=1)
        return probabilities, backend

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of rows whose label (of several, all labels) is predicted."""
        return float(accuracy_score(to_host(y), to_host(self.predict(X)), sample_weight=to_host(sample_weight)))

    @property
    def _out_activation(self) -> str:
        return self._labels.out_activation

    def _meet_classes(self, y: Any, classes: Any) -> None:
        known = getattr(self, "classes_", None)
        if known is None and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if known is None:
            y_host = np.asarray(to_host(y))
            has_several = y_host.ndim == 2 and y_host.shape[1] > 1  # labels of every row
            self._labels = Labels.of(y_host if has_several else np.asarray(to_host(classes)))
        elif classes is not None and not np.array_equal(to_host(known), np.unique(np.asarray(to_host(classes)))):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {to_host(known)!r}"
            )

    def _count_outputs(self, targets: NDArray[Any]) -> int:  # noqa: ARG002 - the classes say it
        return self._labels.n_outputs

    def _take_targets(self, y: Any, X: Array, call: str) -> NDArray[Any]:
        y = take_targets(self, y, X, numeric=False)
        if call == "fit":
            self._labels = Labels.of(y)
        elif call == "fit again":
            found = Labels.of(y).classes
            if set(found) != set(self._labels.classes):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                    f"Previously got {self._labels.classes}, `y` has {found}"
                )
        return self._labels.encode(y)

    def _class_weights(self, targets: NDArray[Any]) -> NDArray[np.float64] | None:
        if self.class_weight is None:
            return None
        return weigh_rows(self.class_weight, self._labels, targets)

    def _score_of(self, predictions: NDArray[Any], targets: NDArray[Any], weights: NDArray[np.float64] | None) -> float:
        return float(accuracy_score(targets, self._labels.decide(predictions, np), sample_weight=weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, BaseMultilayerPerceptron):  # type: ignore[misc]
    """Multi-layer perceptron regressor that is fitted and applied where X lives.

    It minimises the squared error or the Poisson deviance. Everything that `MLPClassifier` says of itself holds.

    Parameters
    ----------
    loss : {"squared_error", "poisson"}, default="squared_error"
        Half the squared distance of a row's prediction, summed over the outputs; or half the Poisson deviance, of
        targets ≥ 0, whose prediction is the exponential of the network's output.
    **others
        Those of `MLPClassifier`, but ``class_weight``.

    Attributes
    ----------
    out_activation_ : str
        "identity" or, with the Poisson loss, "exp".
    validation_scores_ : list of float or None
        R² on the validation rows.
    **others
        Those of `MLPClassifier`, but ``classes_``.

    Notes
    -----
    Of several outputs, scikit-learn's regressor follows the gradient of the sum, as this one does, but reports the mean
    as the squared error; here the loss is that whose gradient is followed.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseMultilayerPerceptron._parameter_constraints,
        "loss": [StrOptions(set(REGRESSION_LOSSES))],
    }

    loss: str

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
        residual: bool = False,
        batch_norm: bool = False,
        pretrain: str | None = None,
        pretrain_epochs: int = 1,
        callbacks: Any = None,
        arithmetic: str = "native",
    ) -> None:
        self._keep(locals())

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Fit the model to rows and their numbers."""
        return self._fit(X, y, sample_weight, incremental=False)

    @available_if(_solves_by_batches)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Train for one epoch on the rows."""
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> Array:
        """Return the prediction of every row, shape (n_samples,) or (n_samples, n_outputs)."""
        values, backend = self._forward(X, "predict")
        return backend.xp.reshape(values, (-1,)) if self.n_outputs_ == 1 else values

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R², the share of the variance of y that the predictions explain (mean over the outputs)."""
        return float(r2_score(to_host(y), to_host(self.predict(X)), sample_weight=to_host(sample_weight)))

    @property
    def _out_activation(self) -> str:
        return "exp" if self.loss == "poisson" else "identity"

    def _take_targets(self, y: Any, X: Array, call: str) -> NDArray[Any]:  # noqa: ARG002 - any numbers will do
        y = take_targets(self, y, X, numeric=True)
        targets: NDArray[np.float64] = y.astype(np.float64).reshape(len(y), -1)
        if self.loss == "poisson" and np.any(targets < 0):
            raise ValueError(f"y has the value {targets.min()}: loss='poisson' takes no numbers below 0")
        return targets

    def _score_of(self, predictions: NDArray[Any], targets: NDArray[Any], weights: NDArray[np.float64] | None) -> float:
        return float(r2_score(targets, predictions, sample_weight=weights))


KINDS: dict[str, Any] = {kind.__name__: kind for kind in (MLPClassifier, MLPRegressor)}


def from_sklearn(fitted: Any) -> MLPClassifier | MLPRegressor:
    """Return this project's estimator of the same name as a fitted one of scikit-learn's; it is on the host.

    Parameters
    ----------
    fitted : sklearn.neural_network.MLPClassifier or MLPRegressor

    Raises
    ------
    NotFittedError
        If it is not fitted.
    TypeError
        If it is anything else.
    """
    return exchange.from_sklearn(fitted, KINDS)


def save(estimator: MLPClassifier | MLPRegressor, path: Path | str) -> None:
    """Write a fitted estimator to a safetensors file; see `mlp_xp.estimators.weight_files.save`.

    Raises
    ------
    NotFittedError
        If it is not fitted.
    TypeError
        If it is none of these estimators, or a parameter or ``classes_`` has no form in a file.
    ValueError
        If its parameters no longer fit what was fitted, or that is not finite.
    OSError
        If the file cannot be written.
    """
    weight_files.save(estimator, path, KINDS)


def load(path: Path | str) -> MLPClassifier | MLPRegressor:
    """Return the estimator that `save` wrote, on the host; nothing of the file is run.

    Raises
    ------
    DataError
        If the file is missing, damaged, or holds no estimator.
    """
    return weight_files.load(path, KINDS)
