"""Class labels as what a network learns, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
from sklearn.utils.validation import column_or_1d

from mlp_xp.array_types import Array, Namespace

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Labels:
    """The classes of a problem.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        Sorted; of several labels a row, the numbers of their columns.
    is_multilabel : bool
        Whether a row may have several of them: then y is a table of zeros and ones.
    """

    classes: NDArray[Any]
    is_multilabel: bool

    @classmethod
    def of(cls, y: NDArray[Any]) -> Labels:
        """Return the classes that occur in y.

        Raises
        ------
        ValueError
            If y has numbers that are no labels, or several labels of more than two classes a row.
        """
        check_classification_targets(y)
        kind = type_of_target(y, input_name="y")
        if kind == "multiclass-multioutput":
            raise ValueError(
                "Multioutput target data is not supported: y must be one column of labels, or a table of 0 and 1 "
                "with a column for every label (multi-label)."
            )
        return cls(unique_labels(y), kind == "multilabel-indicator")

    @property
    def n_outputs(self) -> int:
        """Units of the output layer: a single one for two classes."""
        n_classes = len(self.classes)
        return n_classes if self.is_multilabel or n_classes > 2 else 1

    @property
    def out_activation(self) -> str:
        """scikit-learn's name of what makes probabilities of the logits."""
        return "softmax" if not self.is_multilabel and len(self.classes) > 2 else "logistic"

    def encode(self, y: NDArray[Any]) -> NDArray[Any]:
        """Return the classes' numbers, int32 of shape (n,), or of several labels a row the table itself.

        Raises
        ------
        ValueError
            If y is of another kind, or has a class that is not known.
        """
        if self.is_multilabel:
            if y.ndim != 2 or y.shape[1] != len(self.classes):
                raise ValueError(
                    f"y has the shape {y.shape}: it must be a table of {len(self.classes)} columns, as in the first fit"
                )
            return y.astype(np.float32)  # of zeros and ones, which any type holds
        y = column_or_1d(y)
        numbers = np.minimum(np.searchsorted(self.classes, y), len(self.classes) - 1)
        unknown = np.unique(y[self.classes[numbers] != y])
        if unknown.size:
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes}. 'y' has {unknown}."
            )
        return numbers.astype(np.int32)

    def decide(self, probabilities: Array, xp: Namespace) -> Array:
        """Return the likeliest classes' numbers, shape (n,), or the table of labels that are likelier than not.

        Parameters
        ----------
        probabilities : array of shape (n, n_outputs)
        xp : module
            Their namespace.
        """
        if self.is_multilabel:
            return probabilities > 0.5
        if probabilities.shape[1] > 1:
            return xp.argmax(probabilities, axis=1)
        likelier = xp.astype(probabilities[:, 0] > 0.5, xp.int32)
        return xp.minimum(likelier, xp.full_like(likelier, len(self.classes) - 1))  # where all rows have one class
