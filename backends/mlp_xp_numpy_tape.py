"""Tracing a step for NumPy: it is run once on stand-ins for its arrays, and every operation is noted on a tape.

The stand-ins take part in NumPy's own protocols for foreign arrays (`NEP 13 <https://numpy.org/neps/nep-0013-ufunc-\
overrides.html>`_ and `NEP 18 <https://numpy.org/neps/nep-0018-array-function-protocol.html>`_), so a step is traced
as it is, whatever it was written for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

REDUCTIONS: dict[Callable[..., Any], np.ufunc] = {np.sum: np.add, np.max: np.maximum, np.min: np.minimum}
"""The operation that NumPy's function repeats; called directly, it starts sooner."""


class UntraceableError(Exception):
    """A step does with an array what cannot be noted."""


def cast(x: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return an array in another type."""
    return x.astype(dtype)


def item(x: np.ndarray[Any, Any], key: Any) -> np.ndarray[Any, Any]:
    """Return a part of an array."""
    return np.asarray(x[key])


class Traced(NDArrayOperatorsMixin):
    """Stands in for an array while a step is traced.

    Parameters
    ----------
    sample : ndarray
        Its value at the step that is traced; shape, type and strides are those of every other step.
    tape : Tape
    root : Traced, optional
        The value whose memory this is a view of; by default it has its own.
    """

    device = "cpu"

    def __init__(self, sample: np.ndarray[Any, Any], tape: Tape, root: Traced | None = None) -> None:
        self.sample, self.tape = sample, tape
        self._owner = root  # not the value itself: a circle would keep the sample until it is looked for
        self.shape, self.dtype, self.ndim, self.size = sample.shape, sample.dtype, sample.ndim, sample.size

    @property
    def root(self) -> Traced:
        """The value whose memory this is, or is a view of."""
        return self if self._owner is None else self._owner

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Traced:
        if method not in ("__call__", "reduce"):
            raise UntraceableError(f"{ufunc.__name__}.{method}")
        # Instead of being written over, a name is bound to a new value.
        (target,) = options.pop("out", (None,))
        result = self.tape.note(ufunc if method == "__call__" else ufunc.reduce, inputs, options)
        return result if target is None else result.astype(target.dtype)

    def __array_function__(self, function: Any, _types: Any, arguments: Any, options: Any) -> Traced:
        if function in REDUCTIONS and len(arguments) == 1:
            return self.tape.note(REDUCTIONS[function].reduce, arguments, {"axis": None, **options})
        return self.tape.note(function, arguments, options)

    def __getitem__(self, key: Any) -> Traced:
        return self.tape.note(item, (self, key), {})

    def astype(self, dtype: Any, *, copy: bool = True) -> Traced:
        """Return it in another type; as nothing is written over, nothing can tell a copy from the original."""
        del copy
        return self if self.dtype == dtype else self.tape.note(cast, (self, np.dtype(dtype)), {})

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise UntraceableError("the step looks at an array's values")

    def __bool__(self) -> Any:
        return self.__array__()

    __float__ = __int__ = __index__ = __len__ = __iter__ = __bool__
    __hash__ = object.__hash__


class Operation(NamedTuple):
    """A note on the tape; arguments that are `Traced` are what the step was given or earlier results."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    result: Traced

    @property
    def operands(self) -> list[Traced]:
        """The arguments that are not the same in every step."""
        return [argument for argument in self.arguments if isinstance(argument, Traced)]

    @property
    def is_view(self) -> bool:
        """Whether the result is another look at an operand's memory."""
        return self.result.root is not self.result


class Tape:
    """What a step does, in order.

    Attributes
    ----------
    operations : list of Operation
    """

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._known: dict[Any, Traced] = {}

    def given(self, array: Any) -> Traced:
        """Return the stand-in for an array that the step is given."""
        return Traced(np.array(array, order="C"), self)

    def note(self, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Traced:
        """Return the result of an operation: a new one, or the one that the same operation had before."""
        for value in (*options.values(), *arguments):
            if isinstance(value, (tuple, list)) and any(isinstance(part, Traced) for part in value):
                raise UntraceableError(f"{function}: arrays in a list")
        if any(isinstance(value, (Traced, np.ndarray)) for value in options.values()):
            raise UntraceableError(f"{function}: an array given by name, perhaps to be written to")
        key = (function, tuple(map(_identity, arguments)), repr(options))
        if key not in self._known:
            samples = [x.sample if isinstance(x, Traced) else x for x in arguments]
            sample = np.asarray(function(*samples, **options))
            roots = {x.root for x in arguments if isinstance(x, Traced) and np.may_share_memory(sample, x.sample)}
            if len(roots) > 1:
                raise UntraceableError(f"{function}: a view of several arrays")
            self._known[key] = Traced(sample, self, *roots)
            self.operations.append(Operation(function, arguments, options, self._known[key]))
        return self._known[key]

    def clear(self) -> None:
        """Forget all: the stand-ins know the tape, and arrays that they and it know would be kept for that alone."""
        self.operations, self._known = [], {}


def _identity(argument: Any) -> Any:
    """Return what tells an argument from others; the tape keeps what it has an identity of."""
    return id(argument) if isinstance(argument, (Traced, np.ndarray)) else (type(argument), repr(argument))
