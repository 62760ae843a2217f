"""Layer-wise pre-training: hidden layers learn one after another, each by what a last layer on top of it predicts.

Bengio, Lamblin, Popovici and Larochelle, "Greedy layer-wise training of deep networks", NIPS 2006, section 4: the
supervised variant. A stage trains one hidden layer, on what those before it make of the rows, and a last layer that is
then thrown away; but that of the last stage stays, as the network's own. No gradient passes more than two layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlp_xp.loop import Loop, Piece
from mlp_xp.network import Layer, NormalizedLayer, Parameters

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
    loop : Loop
        The stage's own: of the hidden layers up to this one, and the last layer on top of it.
    """

    stage: int
    epoch: int
    losses: NDArray[np.float64]
    loop: Loop


def open_stage(loop: Loop, stage: int, last_layer: Callable[[int], Layer | NormalizedLayer]) -> Loop:
    """Return what trains hidden layer ``stage`` of a loop's network in `pretrain_layerwise`, from its beginning."""
    step = replace(loop.step, objective=loop.step.objective.first_layers(stage + 1), n_frozen=stage)
    is_last = stage == len(loop.parameters) - 2
    learnt = loop.parameters[stage], loop.parameters[-1] if is_last else last_layer(stage)
    return replace(
        loop,
        step=step,
        parameters=(*loop.parameters[:stage], *learnt),
        optimizer_state=step.optimizer.init(learnt, step.arithmetic),
    )


def pretrain_layerwise(
    loop: Loop,
    last_layer: Callable[[int], Layer | NormalizedLayer],
    epochs: Callable[[int], Iterable[tuple[NDArray[Any], ...]]],
    pieces: Callable[[Loop, tuple[NDArray[Any], ...]], Iterable[Piece]] = lambda loop, inputs: loop.pieces(*inputs),
    *,
    begun: Loop | None = None,
    n_done: int = 0,
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
    pieces : callable, optional
        Returns what a stage's ``loop.pieces(*inputs)`` does.
    begun : Loop, optional
        Go on with that stage, from `open_stage`, of which ``n_done`` epochs are over.

    Yields
    ------
    Pretrained
        Every epoch, as soon as it is over.
    """
    n_layers = len(loop.parameters)
    for stage in range(0 if begun is None else len(begun.parameters) - 2, n_layers - 1):
        alone, begun = open_stage(loop, stage, last_layer) if begun is None else begun, None
        loop.parameters = _taught(loop.parameters, alone.parameters)
        for epoch, inputs in islice(enumerate(epochs(stage)), n_done, None):
            losses = alone.losses(alone.collect(pieces(alone, inputs)))
            loop.parameters = _taught(loop.parameters, alone.parameters)
            yield Pretrained(stage, epoch, losses, alone)
        n_done = 0


def _taught(parameters: Parameters, of_stage: Parameters) -> Parameters:
    """Return a network's parameters with those that a stage has learnt; its last layer is the last stage's alone."""
    n_layers = len(of_stage)
    return of_stage if n_layers == len(parameters) else (*of_stage[:-1], *parameters[n_layers - 1 :])
