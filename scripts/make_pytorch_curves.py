"""Make the loss curves that the tests hold this project against: PyTorch's autograd, losses and optimisers.

From the project's own initial parameters, batches and data, in float64. Run it where PyTorch is installed:

    python scripts/make_pytorch_curves.py                  # writes tests/pytorch_curves.json, prints the self-test's
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import mlp_xp
from mlp_xp import selftest
from mlp_xp.datasets import Split
from mlp_xp.initializers import initial_parameters
from mlp_xp.randomness import batch_order
from mlp_xp.settings import Settings
from mlp_xp.trainer import make_objective

N_STEPS = 100
TARGET = Path(__file__).parent.parent / "tests" / "pytorch_curves.json"

# Some have a seed of their own, which must reach the initial parameters and the batches.
CASES: dict[str, dict[str, Any]] = {
    "the lab's network": {"hidden_layer_sizes": [256, 256], "batch_size": 200},
    "momentum": {"momentum": 0.9, "learning_rate": 0.02, "seed": 7},
    "nesterov": {"momentum": 0.9, "nesterov": True, "learning_rate": 0.02},
    "adam": {"optimizer": "adam", "learning_rate": 0.002},
    "l2": {"l2": 0.01},
    "sigmoid": {"activation": "sigmoid", "init": "glorot", "learning_rate": 0.5},
    "tanh": {"activation": "tanh", "init": "he", "seed": 7},
    "identity": {"activation": "identity", "init": "lab"},
    "linear model": {"hidden_layer_sizes": []},
    "squared error": {"loss": "squared_error"},
    "binary cross-entropy": {"loss": "binary_cross_entropy", "seed": 2**32},
    "poisson": {"loss": "poisson", "learning_rate": 0.01},
}

ACTIVATIONS = {"relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "identity": lambda z: z}


def main() -> None:
    """Write the stored curves and print the self-test's losses."""
    digits = mlp_xp.load("digits").split()
    curves = []
    for name, values in CASES.items():
        settings = Settings.from_dict({"hidden_layer_sizes": [32, 32], "dtype": "float64", **values})
        losses = pytorch_losses(settings, counts(digits) if settings.loss == "poisson" else digits, N_STEPS)
        curves.append({"name": name, "settings": settings.to_dict(), "losses": losses})
    TARGET.write_text(json.dumps({"torch": torch.__version__, "curves": curves}, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"LOSSES = {tuple(pytorch_losses(selftest.SETTINGS, selftest.problem(), 5))}\n")


def counts(data: Split) -> Split:
    """Return a data set of which the labels are numbers to predict."""
    return Split(*(replace(part, targets=part.targets[:, None].astype(float), n_classes=None) for part in data))


def pytorch_losses(settings: Settings, data: Split, n_steps: int) -> list[float]:
    """Train as the settings say, with nothing of this project but its initial parameters and batches."""
    train = data.train
    objective = make_objective(settings, train)
    start = initial_parameters(objective.network.layer_sizes, settings.init, settings.seed)
    parameters = [tuple(torch.tensor(array, requires_grad=True) for array in layer) for layer in start]
    flat = [tensor for layer in parameters for tensor in layer]
    if settings.optimizer == "adam":
        betas = (settings.beta_1, settings.beta_2)
        optimizer: Any = torch.optim.Adam(flat, settings.learning_rate, betas, settings.epsilon)
    else:
        optimizer = torch.optim.SGD(
            flat, settings.learning_rate, momentum=settings.momentum, nesterov=settings.nesterov
        )
    features = torch.tensor(train.features, dtype=torch.float64) * train.scale
    labels = torch.tensor(train.targets, dtype=torch.int64)
    if train.n_classes is None:
        targets = torch.tensor(train.targets, dtype=torch.float64)
    else:
        targets = torch.nn.functional.one_hot(labels, train.n_classes).to(torch.float64)
    losses: list[float] = []
    epoch = 0
    while len(losses) < n_steps:
        for rows in torch.tensor(batch_order(train.n_samples, settings.batch_size, settings.seed, epoch)):
            x = features[rows]
            for i, (weight, bias) in enumerate(parameters):
                x = x @ weight + bias
                if i < len(parameters) - 1:
                    x = ACTIVATIONS[settings.activation](x)
            if settings.loss == "cross_entropy":
                loss = torch.nn.CrossEntropyLoss()(x, labels[rows])
            elif settings.loss == "binary_cross_entropy":
                loss = torch.nn.BCEWithLogitsLoss(reduction="sum")(x, targets[rows]) / len(rows)
            elif settings.loss == "poisson":
                t = targets[rows]  # PyTorch leaves out what does not depend on the prediction
                loss = torch.nn.PoissonNLLLoss(reduction="sum")(x, t) + torch.sum(torch.xlogy(t, t) - t)
                loss = loss / len(rows)
            else:
                loss = torch.nn.MSELoss(reduction="sum")(x, targets[rows]) / (2 * len(rows))
            loss = loss + settings.l2 / 2 * sum(torch.sum(weight**2) for weight, _ in parameters)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        epoch += 1
    return losses[:n_steps]


if __name__ == "__main__":
    main()
