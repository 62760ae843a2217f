"""Names for the things that have no common Python type across array libraries, and a walk through trees of them."""

from collections.abc import Iterator
from typing import Any, TypeAlias

Array: TypeAlias = Any
"""An array of any library that follows the Python array API standard (2023.12 or later)."""

Namespace: TypeAlias = Any
"""The module that holds such a library's functions, as ``array.__array_namespace__()`` gives it."""

PyTree: TypeAlias = Any
"""Arrays in nested tuples, named tuples, lists and dictionaries."""


def leaves(tree: PyTree) -> list[Any]:
    """Return the arrays of nested (named) tuples, in order; None has none."""
    if isinstance(tree, tuple):
        return [leaf for branch in tree for leaf in leaves(branch)]
    return [] if tree is None else [tree]


def signature(tree: PyTree, *further: str) -> Any:
    """Return what trees have in common for which one program serves: structure, shapes, types and other attributes."""
    if isinstance(tree, tuple):
        return (type(tree), *(signature(branch, *further) for branch in tree))
    return None if tree is None else tuple(getattr(tree, name) for name in ("shape", "dtype", *further))


def rebuild(tree: PyTree, arrays: Iterator[Any]) -> PyTree:
    """Return a tree of the same structure with other arrays."""
    if isinstance(tree, tuple):
        branches = [rebuild(branch, arrays) for branch in tree]
        return type(tree)(*branches) if hasattr(tree, "_fields") else tuple(branches)
    return None if tree is None else next(arrays)
