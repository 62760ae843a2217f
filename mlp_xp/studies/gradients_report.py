"""What `mlp_xp.studies.gradients` found, as a table, as claims, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlp_xp.settings import Settings
from mlp_xp.studies.gradients import PLAIN, STEEPEST, Flow, Moment
from mlp_xp.studies.report import Claim, Report

HEADER = (
    "network",
    "first layer's gradient",
    "last layer's",
    "first / last at the start",
    "at the end",
    "dead units at the end",
    "test accuracy",
)


@dataclass(frozen=True)
class Findings:
    """Everything that was measured.

    Attributes
    ----------
    where : str
        Data and backend.
    networks : mapping
        Settings of every network, by name.
    starts : mapping
        Of the networks that are not pre-trained: depths, with the flow through a network that has learnt nothing.
    moments : mapping
        Of every network: the start, and the end of every epoch until it diverged, if it did.
    """

    where: str
    networks: Mapping[str, Settings]
    starts: Mapping[str, Sequence[tuple[int, Flow]]]
    moments: Mapping[str, Sequence[Moment]]

    @property
    def depth(self) -> int:
        """Hidden layers."""
        return len(self.networks[PLAIN].hidden_layer_sizes)


def report(findings: Findings, backend: dict[str, Any]) -> Report:
    """Return the study's report."""
    settings = findings.networks[PLAIN]
    width = settings.hidden_layer_sizes[0]
    data = {
        "backend": backend,
        "networks": {name: one.to_dict() for name, one in findings.networks.items()},
        "at_start_by_depth": {
            name: [{"hidden_layers": depth, **_flow(flow)} for depth, flow in flows]
            for name, flows in findings.starts.items()
        },
        "moments": {name: [_moment(moment) for moment in moments] for name, moments in findings.moments.items()},
    }
    title = f"gradients of {findings.depth} hidden layers of {width} units: {findings.where}"
    rows = [_row(name, moments, settings.epochs) for name, moments in findings.moments.items()]
    return Report("gradients", title, HEADER, rows, _claims(findings), data)


def _row(name: str, moments: Sequence[Moment], n_epochs: int) -> tuple[str, ...]:
    if not moments:
        return (name, *"-" * 5, "diverged in pre-training")
    start, end = moments[0], moments[-1]
    accuracy = "-" if end.accuracy is None else f"{end.accuracy:.2%}"
    return (
        name,
        f"{start.flow.norms[0]:.1e}",
        f"{start.flow.norms[-1]:.1e}",
        f"{start.flow.ratio:.1e}",
        f"{end.flow.ratio:.1e}",
        f"{end.flow.dead.sum()}" if name == "relu" else "-",
        accuracy if end.epoch == n_epochs else f"diverged in epoch {end.epoch}",
    )


def _claims(findings: Findings) -> list[Claim]:
    """Return what holds of every bound: it is the arithmetic of derivatives, and no matter of luck."""
    claims = []
    for activation, steepest in STEEPEST.items():
        flows = [moment.flow for moment in findings.moments[activation]]
        flows += [flow for _, flow in findings.starts[activation]]
        holds = all(flow.is_within_bounds for flow in flows)
        bounded = [
            (flow.norms[flow.bounds > 0], flow.bounds[flow.bounds > 0]) for flow in flows if flow.bounds is not None
        ]
        shares = [float(np.max(norms / bounds, initial=0.0)) for norms, bounds in bounded]
        text = f"{activation}: no gradient is longer than {steepest:g} a layer × the weights' norms let it be"
        claims.append(Claim(text, holds, f"at most {max(shares):.2g} of its bound, in {len(shares)} networks"))
    return claims


def _share(flow: Flow) -> float:
    """Return the largest share that a norm is of its bound; where that is 0, it is none."""
    if flow.bounds is None:
        return 0.0
    is_bounded = flow.bounds > 0.0
    return float(np.max(flow.norms[is_bounded] / flow.bounds[is_bounded], initial=0.0))


def _flow(flow: Flow) -> dict[str, Any]:
    return {
        "weight_gradient_norms": flow.norms.tolist(),
        "bounds": None if flow.bounds is None else flow.bounds.tolist(),
        "dead_units": flow.dead.tolist(),
    }


def _moment(moment: Moment) -> dict[str, Any]:
    return {"epoch": moment.epoch, "test_loss": moment.loss, "accuracy": moment.accuracy, **_flow(moment.flow)}
