"""Where data come from and how they are split: what a run records so that the same data can be loaded again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from mlp_xp.datasets.dataset import Split
from mlp_xp.datasets.files import as_path, exists
from mlp_xp.datasets.loading import NAMES, load
from mlp_xp.errors import SettingsError

_KINDS = {
    "name": str,
    "label_column": int,
    "header": bool | None,
    "n_classes": int | None,
    "regression": bool,
    "scale": int | float | None,
    "test_size": int | float,
    "split_seed": int,
}


@dataclass(frozen=True)
class DataSource:
    """A name or path with all that `load` and `Dataset.split` have to be told.

    Parameters
    ----------
    name, label_column, header, n_classes, regression
        As in `mlp_xp.datasets.load`.
    scale : float or None
        Factor of the features; None for the one that they are loaded with.
    test_size : float
        Share of the rows that are kept for testing.
    split_seed : int
        Seed of the shuffle.

    Raises
    ------
    SettingsError
        If a value is not of its type.
    """

    name: str
    label_column: int = 0
    header: bool | None = None
    n_classes: int | None = None
    regression: bool = False
    scale: float | None = None
    test_size: float = 0.2
    split_seed: int = 2020

    def __post_init__(self) -> None:
        for field, kind in _KINDS.items():
            if not isinstance(value := getattr(self, field), kind):
                raise SettingsError(f"{field} = {value!r}: must be {getattr(kind, '__name__', kind)}")

    def load(self, *, progress: bool = False) -> Split:
        """Load the data and split them.

        Raises
        ------
        DataError, DownloadError, SettingsError
            As `mlp_xp.datasets.load` and `Dataset.split`.
        """
        data = load(
            self.name,
            label_column=self.label_column,
            header=self.header,
            n_classes=self.n_classes,
            regression=self.regression,
            progress=progress,
        )
        if self.scale is not None:
            data = replace(data, scale=self.scale)
        return data.split(self.test_size, self.split_seed)

    def to_dict(self) -> dict[str, Any]:
        """Return the source as JSON can hold it, its paths absolute: it may be read from another folder."""
        return {**asdict(self), "name": _absolute(self.name)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DataSource:
        """Return the source that `to_dict` wrote.

        Raises
        ------
        SettingsError
            If a name is unknown or missing, or a value is not of its type.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise SettingsError(f"unknown property of a data source: {unknown[0]!r}")
        if "name" not in values:
            raise SettingsError("a data source has no name")
        return cls(**values)


def _absolute(name: str) -> str:
    if name in NAMES:
        return name
    pair = "," in name and not exists(as_path(name))  # IMAGES,LABELS
    return ",".join(str(as_path(part).absolute()) for part in (name.split(",", 1) if pair else [name]))
