"""What every study ends with: a table, claims that hold or do not, and all of it as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mlp_xp.cli.table import format_table


class Claim(NamedTuple):
    """A sentence that mathematics promises, and what was found.

    Attributes
    ----------
    text : str
    holds : bool
    found : str
        The measurement that decides it.
    """

    text: str
    holds: bool
    found: str


@dataclass(frozen=True)
class Report:
    """A study's results.

    Attributes
    ----------
    name : str
        Of the files.
    title : str
        What was studied, and on which data and backend.
    header : sequence of str
        Of the table.
    rows : sequence of sequences of str
    claims : sequence of Claim
    data : dict
        All numbers, as JSON can hold them.
    """

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    claims: Sequence[Claim]
    data: dict[str, Any]

    @property
    def holds(self) -> bool:
        """Whether all claims hold."""
        return all(claim.holds for claim in self.claims)

    def text(self) -> str:
        """Return the table and, below it, the claims."""
        lines = [f"{'holds' if claim.holds else 'FAILS'}  {claim.text}: {claim.found}" for claim in self.claims]
        return "\n".join([self.title, "", format_table(self.header, self.rows), "", *lines])

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it."""
        table = [dict(zip(self.header, row, strict=True)) for row in self.rows]
        claims = [claim._asdict() for claim in self.claims]
        return {"study": self.name, "title": self.title, "table": table, "claims": claims, **self.data}
