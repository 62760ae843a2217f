"""Layer-wise pre-training: hidden layers learn one after another, each by what a last layer on top of it predicts.

Bengio, Lamblin, Popovici and Larochelle, "Greedy layer-wise training of deep networks", NIPS 2006, section 4: the
supervised variant. A stage trains one hidden layer, on what those before it make of the rows, and a last layer that is
then thrown away; but that of the last stage stays, as the network's own. No gradient passes more than two layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlp_xp.loop import Loop
from mlp_xp.network import Layer, NormalizedLayer

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Pretrained(NamedTuple):
    """An epoch of a stage.

    Attributes
    ----------
    stage : int
        Number of the hidden layer, from 0.
    epoch : int
        Of the stage, from 0.
    losses : ndarray of float64, shape (n_steps, ...)
        Of the batches, each taken before its step.
    """

    stage: int
    epoch: int
    losses: NDArray[np.float64]


def pretrain_layerwise(
    loop: Loop,
    last_layer: Callable[[int], Layer | NormalizedLayer],
    epochs: Callable[[int], Iterable[tuple[NDArray[Any], ...]]],
) -> Iterator[Pretrained]:
    """Train the hidden layers of a loop's network one after another, each with an optimiser that begins anew.

    Parameters
    ----------
    loop : Loop
        Has the new parameters after every epoch; its optimiser's state stays as it is.
    last_layer : callable
        Returns, on the device, what is on top of hidden layer ``stage`` to begin with.
    epochs : callable
        Returns, of every epoch of a ``stage``, what `mlp_xp.loop.Loop.run` takes.

    Yields
    ------
    Pretrained
        Every epoch, as soon as it is over.
    """
    n_hidden = len(loop.parameters) - 1
    for stage in range(n_hidden):
        step = replace(loop.step, objective=loop.step.objective.first_layers(stage + 1), n_frozen=stage)
        last = loop.parameters[-1] if stage == n_hidden - 1 else last_layer(stage)
        learnt = loop.parameters[stage], last
        alone = replace(
            loop,
            step=step,
            parameters=(*loop.parameters[:stage], *learnt),
            optimizer_state=step.optimizer.init(learnt, step.arithmetic),
        )
        for epoch, inputs in enumerate(epochs(stage)):
            losses = alone.losses(alone.run(*inputs))
            loop.parameters = (*alone.parameters[: stage + 1], *loop.parameters[stage + 1 :])
            if stage == n_hidden - 1:
                loop.parameters = alone.parameters
            yield Pretrained(stage, epoch, losses)
