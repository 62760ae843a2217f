"""The errors that a user can mend: each says what was wrong, where, and how to fix it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlp_xp.checkpoint import Checkpoint
    from mlp_xp.divergence import Rollback


class MLPXPError(Exception):
    """Base of the project's own errors; the commands print its text alone and exit with code 2."""


class SettingsError(MLPXPError, ValueError):
    """A parameter has a value it cannot have."""


class DataError(MLPXPError, ValueError):
    """A data file, an array or a set of labels cannot be used as it is."""


class DownloadError(MLPXPError, OSError):
    """A data set could not be fetched, or what came is not what was asked for."""


class BackendUnavailable(MLPXPError, ImportError):  # noqa: N818 - the state of a backend, not a fault
    """A backend is known but cannot be opened here; the text holds the reason and the remedy."""


class UnknownBackend(MLPXPError, LookupError):  # noqa: N818 - reads as the other one does
    """No backend of that name is installed; the text lists the known ones, closest first."""


class DeviceLost(MLPXPError, RuntimeError):  # noqa: N818 - an event
    """A device stopped working in the middle of the work; the text holds its library's reason."""


class TrainingDiverged(MLPXPError, ArithmeticError):  # noqa: N818 - names an event
    """The loss stopped being finite, or exploded; the text names the epoch and the step.

    Attributes
    ----------
    can_roll_back : bool
        Whether ``on_divergence="rollback"`` would have begun the epoch again, with a smaller learning rate.
    explodes : bool
        Whether the loss is finite, so that a larger ``largest_growth`` would have let it be.
    """

    can_roll_back = False
    explodes = False


class TrainingInterrupted(MLPXPError):  # noqa: N818 - an event
    """Somebody wanted the training to stop.

    Attributes
    ----------
    checkpoints : tuple of Checkpoint
        Where every network was; equal to the last epoch's end, if the training stopped there.
    rollbacks : tuple of Rollback
        Of the epoch that is not over, as `mlp_xp.training.Epoch` has them.
    """

    def __init__(self, checkpoints: tuple[Checkpoint, ...]) -> None:
        epoch, step, pretrained = checkpoints[0].position
        where = f"in epoch {epoch}, after {step} of its steps" if step else f"after {epoch} epochs"
        if pretrained:
            where = f"after {pretrained} epochs of pre-training"
        super().__init__(f"interrupted {where}")
        self.checkpoints = checkpoints
        self.rollbacks: tuple[Rollback, ...] = ()


class RunError(MLPXPError, OSError):
    """A run folder cannot be written or read as asked."""


class Disagreement(MLPXPError, AssertionError):  # noqa: N818 - a finding
    """A recorded run is not what its files say, or what its training gives; the text says where."""
