"""A fitted network as an ONNX graph: a few nodes of the standard's own operators, for whatever runs ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from mlp_xp.activations import LEAK
from mlp_xp.batch_norm import EPSILON
from mlp_xp.files import write_output
from mlp_xp.network import Layer, NormalizedLayer

if TYPE_CHECKING:
    from mlp_xp.estimators.multilayer_perceptron import BaseMultilayerPerceptron

OPSET = 20
"""The first with Gelu; IR 9 is what came with it."""
IR_VERSION = 9
OPERATORS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "identity": [],
    "relu": [("Relu", {})],
    "leaky_relu": [("LeakyRelu", {"alpha": LEAK})],
    "elu": [("Elu", {"alpha": 1.0})],
    "gelu": [("Gelu", {"approximate": "tanh"})],
    "silu": [("Sigmoid", {}), ("Mul", {})],
    "softplus": [("Softplus", {})],
    "sigmoid": [("Sigmoid", {})],
    "logistic": [("Sigmoid", {})],
    "tanh": [("Tanh", {})],
    "exp": [("Exp", {})],
}
"""Of every activation; a product is one with the activation's own input."""


def to_onnx(estimator: BaseMultilayerPerceptron, path: Path | str | None = None) -> Any:
    """Return a fitted estimator as an ONNX model of opset 20, and write it to a file if one is named.

    The input "X" is a table of the estimator's dtype with any number of rows. A classifier has the outputs "label" and
    "probabilities", a regressor "predictions": what `predict` and `predict_proba` return.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
    path : path, optional

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    NotFittedError
        If it is not fitted.
    ImportError
        If the package onnx is not installed.
    """
    check_is_fitted(estimator)
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise ImportError("to_onnx needs the package onnx: pip install 'mlp-xp[onnx]'") from error
    graph = _Graph()
    layers = estimator._host_parameters
    shortcuts = estimator._make_objective(estimator._layer_sizes).network.shortcuts
    x = "X"
    for i, layer in enumerate(layers):
        given, x = x, graph.add_layer(i, layer, x)
        last = i == len(layers) - 1
        if last and estimator.out_activation_ == "softmax":
            x = graph.add("Softmax", [x], axis=1)
            continue
        z = x
        for operator, attributes in OPERATORS[estimator.out_activation_ if last else estimator.activation]:
            x = graph.add(operator, [x, z] if operator == "Mul" else [x], **attributes)
        x = graph.add("Add", [given, x]) if shortcuts[i] else x
    dtype = layers[0].weight.dtype
    number = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    outputs = _outputs(graph, estimator, x, dtype)
    made = onnx.helper.make_graph(
        graph.nodes,
        type(estimator).__name__,
        [onnx.helper.make_tensor_value_info("X", number, [None, len(layers[0].weight)])],
        outputs,
        graph.constants,
    )
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(made, opset_imports=[opset], ir_version=IR_VERSION, producer_name="mlp_xp")
    onnx.checker.check_model(model, full_check=True)
    if path is not None:
        write_output(Path(path), model.SerializeToString())
    return model


def _outputs(graph: _Graph, estimator: Any, x: str, dtype: np.dtype[Any]) -> list[Any]:
    """Add the nodes that make the outputs of a prediction; return the outputs."""
    from onnx import TensorProto, helper

    number = helper.np_dtype_to_tensor_dtype(dtype)
    if not hasattr(estimator, "classes_"):
        shape = [None, estimator.n_outputs_]
        if estimator.n_outputs_ == 1:
            x, shape = graph.add("Reshape", [x, graph.constant("all", np.asarray([-1]))]), [None]
        graph.add("Identity", [x], output="predictions")
        return [helper.make_tensor_value_info("predictions", number, shape)]
    labels = estimator._labels
    kind, shape = TensorProto.INT64, [None]
    if labels.is_multilabel:
        half = graph.constant("half", np.asarray(0.5, dtype))
        graph.add("Cast", [graph.add("Greater", [x, half])], output="label", to=kind)
        shape = [None, len(labels.classes)]
    else:
        if estimator.n_outputs_ == 1:
            one = graph.constant("one", np.asarray(1, dtype))
            x = graph.add("Concat", [graph.add("Sub", [one, x]), x], axis=1)
        classes = labels.classes if len(labels.classes) > 1 else np.repeat(labels.classes, 2)
        classes = classes.astype(object) if classes.dtype.kind in "US" else classes
        kind = TensorProto.STRING if classes.dtype == object else helper.np_dtype_to_tensor_dtype(classes.dtype)
        likeliest = graph.add("ArgMax", [x], axis=1, keepdims=0)
        graph.add("Gather", [graph.constant("classes", classes), likeliest], output="label")
    graph.add("Identity", [x], output="probabilities")
    width = estimator.n_outputs_ if estimator.n_outputs_ > 1 else 2
    return [
        helper.make_tensor_value_info("label", kind, shape),
        helper.make_tensor_value_info("probabilities", number, [None, width]),
    ]


class _Graph:
    """Nodes and constants, under names that count them."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """Add a node; return the name of its output."""
        from onnx import helper

        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def add_layer(self, number: int, layer: Layer | NormalizedLayer, x: str) -> str:
        """Add what makes a layer's pre-activations of x; return their name."""
        weight, bias, *normalized = (self.constant(f"{name}_{number}", a) for name, a in layer._asdict().items())
        if not normalized:
            return self.add("Gemm", [x, weight, bias])
        scale, *statistics = normalized
        return self.add(
            "BatchNormalization", [self.add("MatMul", [x, weight]), scale, bias, *statistics], epsilon=EPSILON
        )

    def constant(self, name: str, value: Any) -> str:
        """Add an array; return its name."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name
