"""Names for the things that have no common Python type across array libraries."""

from typing import Any, TypeAlias

Array: TypeAlias = Any
"""An array of any library that follows the Python array API standard (2023.12 or later)."""

Namespace: TypeAlias = Any
"""The module that holds such a library's functions, as ``array.__array_namespace__()`` gives it."""

PyTree: TypeAlias = Any
"""Arrays in nested tuples, named tuples, lists and dictionaries."""
