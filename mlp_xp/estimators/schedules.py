"""When a training's learning rate changes, and when it has come to its end."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Schedule:
    """A learning rate that changes between epochs.

    Attributes
    ----------
    kind : str
        "constant"; "invscaling": ``initial`` / (rows seen + 1) to the ``power``; or "adaptive": divided by 5 whenever
        the training no longer improves, until it is at most 1e-6.
    initial : float
        The learning rate at the beginning.
    power : float
        Of "invscaling".
    current : float
        The learning rate now.
    """

    kind: str
    initial: float
    power: float
    current: float = math.nan

    def __post_init__(self) -> None:
        if math.isnan(self.current):
            self.current = self.initial

    def after_epoch(self, n_rows_seen: int) -> None:
        """Take note that an epoch is over."""
        if self.kind == "invscaling":
            self.current = self.initial / (n_rows_seen + 1) ** self.power

    def after_stall(self) -> tuple[bool, str]:
        """Take note that the training no longer improves; return whether it shall go on, and what to say of it."""
        if self.kind != "adaptive":
            return False, "Stopping."
        if self.current <= 1e-6:
            return False, "Learning rate too small. Stopping."
        self.current /= 5.0
        return True, f"Setting learning rate to {self.current:f}"
