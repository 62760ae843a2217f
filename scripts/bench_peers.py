"""JAX with autodiff and optax, scikit-learn, and Keras on JAX, each as its own documentation writes a training."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import numpy as np

from bench_rounds import Contender
from bench_workloads import Workload
from mlp_xp.backend import Backend, open_backend
from mlp_xp.errors import BackendUnavailable


def open_jax(workload: Workload) -> Backend:
    """Open JAX with what a workload's dtype needs of its process-wide options."""
    backend = open_backend("jax")
    backend.asarray(np.zeros(1), workload.settings.dtype)
    return backend


def jax_loss(parameters: list[dict[str, Any]], features: Any, labels: Any) -> tuple[Any, Any]:
    """Return every row's loss, and the logits."""
    import jax
    import optax

    for layer in parameters[:-1]:
        features = jax.nn.relu(features @ layer["weight"] + layer["bias"])
    logits = features @ parameters[-1]["weight"] + parameters[-1]["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels), logits


def jax_optax(workload: Workload) -> Contender:
    """Return `jax.value_and_grad` and optax's SGD under one compiled `lax.scan` an epoch, which reuses its memory."""
    backend = open_jax(workload)
    import jax
    import optax

    optimizer = optax.sgd(workload.settings.learning_rate)
    features, labels = backend.asarray(workload.features), backend.asarray(workload.labels, "int32")
    parameters = [{name: backend.asarray(x) for name, x in layer._asdict().items()} for layer in workload.parameters]
    carry = parameters, optimizer.init(parameters)

    def mean_loss(parameters: Any, features: Any, labels: Any) -> Any:
        return jax_loss(parameters, features, labels)[0].mean()

    @partial(jax.jit, donate_argnums=0)
    def train(carry: Any, order: Any, features: Any, labels: Any) -> Any:
        def step(carry: Any, rows: Any) -> Any:
            parameters, state = carry
            loss, gradient = jax.value_and_grad(mean_loss)(parameters, features[rows], labels[rows])
            updates, state = optimizer.update(gradient, state, parameters)
            return (optax.apply_updates(parameters, updates), state), loss

        carry, losses = jax.lax.scan(step, carry, order)
        return carry, losses.mean()

    generator = np.random.default_rng(0)

    def epoch(_: int) -> float:
        nonlocal carry
        order = generator.permutation(workload.n_rows).astype(np.int32).reshape(workload.n_steps, -1)
        carry, loss = train(carry, order, features, labels)
        return float(loss)

    description = backend.describe() | {"optax": optax.__version__}
    return Contender("JAX + optax", "peer", description["device"], epoch, description)


def scikit_learn(workload: Workload) -> Contender:
    """Return `MLPClassifier.partial_fit`, "a single iteration over the given data", in the dtype of the features.

    Of two classes it has one logistic output, which is the same function with half the outputs.
    """
    import sklearn
    from sklearn.neural_network import MLPClassifier

    settings, features, labels = workload.settings, workload.features, workload.labels
    model = MLPClassifier(
        settings.hidden_layer_sizes,
        solver="sgd",
        alpha=0.0,
        batch_size=settings.batch_size,
        learning_rate_init=settings.learning_rate,
        momentum=0.0,
        random_state=np.random.RandomState(0),  # goes on from call to call
    )
    first = slice(settings.batch_size)
    model.partial_fit(features[first], labels[first], classes=np.arange(workload.layer_sizes[-1]))  # makes the arrays
    for weight, bias, start in zip(model.coefs_, model.intercepts_, workload.parameters, strict=True):
        single = weight.shape != start.weight.shape
        weight[...] = start.weight[:, 1:] - start.weight[:, :1] if single else start.weight
        bias[...] = start.bias[1:] - start.bias[:1] if single else start.bias

    def epoch(_: int) -> float:
        with sklearn.config_context(assume_finite=True):
            model.partial_fit(features, labels)
        return float(model.loss_)

    description = {"scikit-learn": sklearn.__version__, "numpy": np.__version__, "outputs": model.n_outputs_}
    return Contender("scikit-learn", "peer", "cpu", epoch, description)


def keras_jax(workload: Workload) -> Contender:
    """Return Keras's `fit` on JAX; `steps_per_execution` is an epoch's, which its documentation advises for speed."""
    os.environ.setdefault("KERAS_BACKEND", "jax")  # is read when Keras is imported
    backend = open_jax(workload)
    import keras

    if keras.backend.backend() != "jax":
        raise BackendUnavailable(f"Keras runs on {keras.backend.backend()!r}; set KERAS_BACKEND=jax")
    keras.config.set_floatx(workload.settings.dtype)  # of the loss
    keras.config.set_dtype_policy(workload.settings.dtype)  # of the layers
    hidden = [keras.layers.Dense(n, activation="relu") for n in workload.settings.hidden_layer_sizes]
    n_inputs, n_outputs = workload.layer_sizes[0], workload.layer_sizes[-1]
    model = keras.Sequential([keras.Input((n_inputs,)), *hidden, keras.layers.Dense(n_outputs)])
    model.set_weights([array for layer in workload.parameters for array in layer])
    model.compile(
        optimizer=keras.optimizers.SGD(workload.settings.learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=workload.n_steps,
    )
    features, labels = workload.features, workload.labels.astype(np.int32)

    def epoch(_: int) -> float:
        history = model.fit(features, labels, batch_size=workload.settings.batch_size, epochs=1, verbose=0)
        return float(history.history["loss"][0])

    description = backend.describe() | {"keras": keras.__version__}
    return Contender("Keras (JAX)", "peer", description["device"], epoch, description)
