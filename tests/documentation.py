"""scikit-learn's documentation of its estimators in sentences, and which test holds which of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

Test = TypeVar("Test", bound=Callable[..., Any])

HELD: list[tuple[str, str]] = []
"""What imported tests hold: a parameter, an attribute, a method or a section, and how a sentence about it begins."""


def documents(**beginnings: str | tuple[str, ...]) -> Callable[[Test], Test]:
    """Mark a test that holds sentences of scikit-learn's documentation, or shows by how much we depart from them.

    Parameters
    ----------
    **beginnings
        Name of the parameter, attribute, method or section -> how the sentence begins, or the sentences begin.
    """
    for name, those in beginnings.items():
        HELD.extend((name, each) for each in ([those] if isinstance(those, str) else those))
    return lambda test: test


def sentences(kind: type, methods: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield name and sentence of all that a class documents: of parameters, attributes, notes, and of methods."""
    for section, text in _sections(inspect.getdoc(kind) or ""):
        if section in ("Parameters", "Attributes"):
            for entry in re.split(r"\n(?=\S)", text):
                heading, _, body = entry.partition("\n")
                yield from ((heading.partition(" :")[0], sentence) for sentence in _split(body))
        elif section in ("", "Notes"):
            yield from ((section or kind.__name__, sentence) for sentence in _split(text))
    for method in methods:
        for _, text in _sections(inspect.getdoc(getattr(kind, method, None)) or ""):
            # A heading of an entry, such as "X : array", is no sentence.
            yield from ((method, sentence) for sentence in _split(re.sub(r"(?m)^\w+ : .*$", "", text)))


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of every section of numpydoc's; of what comes first the name is empty."""
    parts = re.split(r"(?m)^(\w[\w ]*)\n-{3,}\n", text)
    yield from zip(["", *parts[1::2]], parts[::2], strict=True)


def _split(text: str) -> Iterator[str]:
    """Yield the sentences; items of a list are sentences, directives and what only points elsewhere are none."""
    text = inspect.cleandoc(re.sub(r"(?m)^( *)\.\. .*(\n\1 +.*|\n(?=\n\1 ))*", "", text))
    for paragraph in re.split(r"\n\s*\n|\n(?=- )", text):
        for sentence in re.split(r"(?<=\.)(?<!i\.e\.)\s+(?=[A-Z])", " ".join(paragraph.split())):
            if sentence and not re.search(r"\b[Ss]ee :(ref|term):", sentence):
                yield sentence
