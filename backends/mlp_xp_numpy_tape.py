"""Tracing a step for NumPy: it is run once on stand-ins for its arrays, and every operation is noted on a tape.

The stand-ins take part in NumPy's own protocols for foreign arrays (`NEP 13 <https://numpy.org/neps/nep-0013-ufunc-\
overrides.html>`_ and `NEP 18 <https://numpy.org/neps/nep-0018-array-function-protocol.html>`_), so a step is traced
as it is, whatever it was written for. Only operations of which one step's shapes, types and layout are every step's are
noted; whatever else a step may do raises `UntraceableError`, and is left to the plain loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

REDUCTIONS: dict[Callable[..., Any], np.ufunc] = {np.sum: np.add, np.max: np.maximum, np.min: np.minimum}
"""The operation that NumPy's function repeats; called directly, it starts sooner."""
REARRANGEMENTS = {np.reshape, np.squeeze, np.expand_dims, np.swapaxes, np.moveaxis, np.transpose, np.broadcast_to}
"""Functions of an array's shape alone: what they give, perhaps a view, are the numbers of their argument."""
FILLINGS = {np.zeros_like, np.ones_like}
"""Functions that take no values from their argument."""
FUNCTIONS = {*REARRANGEMENTS, *FILLINGS, np.copy}


class UntraceableError(Exception):
    """A step does with an array what cannot be noted."""


def cast(x: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return an array in another type."""
    return x.astype(dtype)


def item(x: np.ndarray[Any, Any], key: Any) -> np.ndarray[Any, Any]:
    """Return a part of an array."""
    return np.asarray(x[key])


@dataclass(eq=False)
class Value:
    """What an operation gives in every step, or what a step is given: all that is known of it before.

    Attributes
    ----------
    shape, dtype, strides, nbytes
        As an array has them.
    root : Value
        The one whose memory this is a view of; itself if it has its own.
    least, most : int or None
        Bounds of whole numbers that were limited to them.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides: tuple[int, ...]
    nbytes: int
    root: Value
    least: int | None = None
    most: int | None = None

    @classmethod
    def like(cls, sample: np.ndarray[Any, Any], root: Value | None = None) -> Value:
        """Return a value of which an array is an example."""
        value = cls(sample.shape, sample.dtype, sample.strides, sample.nbytes, None)  # type: ignore[arg-type]
        value.root = value if root is None else root
        return value


class Traced(NDArrayOperatorsMixin):
    """Stands in for an array while a step is traced.

    Parameters
    ----------
    value : Value
    sample : ndarray
        An example, from the step that is traced.
    tape : Tape
    """

    device = "cpu"

    def __init__(self, value: Value, sample: np.ndarray[Any, Any], tape: Tape) -> None:
        self.value, self.sample, self.tape = value, sample, tape
        self.shape, self.dtype, self.ndim, self.size = sample.shape, sample.dtype, sample.ndim, sample.size

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Traced:
        (target,) = options.pop("out", (None,))
        if ufunc.nout != 1 or method not in ("__call__", "reduce") or (target is not None and method == "reduce"):
            raise UntraceableError(f"{ufunc.__name__}.{method}")
        result = self.tape.note(ufunc if method == "__call__" else ufunc.reduce, inputs, options)
        return result if target is None else self.tape.write(target, result)

    def __array_function__(self, function: Any, _types: Any, arguments: Any, options: Any) -> Traced:
        if function in REDUCTIONS and len(arguments) == 1:
            return self.tape.note(REDUCTIONS[function].reduce, arguments, {"axis": None, **options})
        if (
            function in FUNCTIONS
            or (function is np.where and len(arguments) == 3)
            or (function is np.take and len(arguments) == 2 and options.keys() <= {"axis"})
        ):
            return self.tape.note(function, arguments, options)
        raise UntraceableError(getattr(function, "__name__", str(function)))

    def __getitem__(self, key: Any) -> Traced:
        parts = key if isinstance(key, tuple) else (key,)
        if not all(part is None or isinstance(part, (int, slice, EllipsisType)) for part in parts):
            raise UntraceableError(f"the part {key!r}")
        return self.tape.note(item, (self, key), {})

    def __pow__(self, exponent: Any) -> Any:  # NumPy's arrays have short cuts for some exponents
        raise UntraceableError(f"** {exponent}")

    __ipow__ = __pow__

    def astype(self, dtype: Any, *, copy: bool = True) -> Traced:
        """Return it in another type; who writes over a copy is taken to write over the original, too."""
        del copy
        return self if self.dtype == dtype else self.tape.note(cast, (self, np.dtype(dtype)), {})

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise UntraceableError("the step looks at an array's values")

    def __bool__(self) -> Any:
        return self.__array__()

    __float__ = __int__ = __index__ = __len__ = __iter__ = __bool__
    __hash__ = object.__hash__


class Operation(NamedTuple):
    """A note on the tape; arguments that are values are what the step was given or earlier results."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    result: Value

    @property
    def operands(self) -> list[Value]:
        """The arguments that may differ from step to step."""
        return [argument for argument in self.arguments if isinstance(argument, Value)]

    @property
    def is_view(self) -> bool:
        """Whether the result is another look at an operand's memory."""
        return self.result.root is not self.result


class Tape:
    """What a step does, in order. Of its arrays it keeps none: they are freed as in any other step.

    Attributes
    ----------
    operations : list of Operation
    """

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._known: dict[Any, Value] = {}
        self._overwritten: set[Value] = set()

    def given(self, array: Any, order: Literal["C", "K"] = "K") -> Traced:
        """Return the stand-in for an array that the step is given, perhaps in another layout."""
        if type(array) is not np.ndarray and not isinstance(array, np.generic):
            raise UntraceableError(f"an array of type {type(array).__name__}")
        sample = np.asarray(array, order=order)
        return Traced(Value.like(sample), sample, self)

    def note(self, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Traced:
        """Return the result of an operation: a new one, or the one that the same operation had before."""
        for value in (*options.values(), *arguments):
            if isinstance(value, (tuple, list)) and any(isinstance(part, (Traced, np.ndarray)) for part in value):
                raise UntraceableError(f"{function}: arrays in a list")
            if isinstance(value, np.ndarray) and type(value) is not np.ndarray:
                raise UntraceableError(f"{function}: an array of type {type(value).__name__}")
        if any(isinstance(value, (Traced, np.ndarray)) for value in options.values()):
            raise UntraceableError(f"{function}: an array given by name")
        noted = tuple(self.value_of(argument) for argument in arguments)
        samples = [x.sample if isinstance(x, Traced) else x for x in arguments]
        sample = np.asarray(function(*samples, **options))
        key = (function, tuple(map(_identity, noted)), repr(options))
        known = self._known.get(key)
        if known is None or known.root in self._overwritten:
            self._known[key] = known = self._new(function, arguments, sample)
            self.operations.append(Operation(function, noted, options, known))
        return Traced(known, sample, self)

    def write(self, target: Any, result: Traced) -> Traced:
        """Return what a name stands for when a result is written over its array, whose other names are then void."""
        if (
            not isinstance(target, Traced)
            or target.shape != result.shape
            or not np.can_cast(result.dtype, target.dtype, "same_kind")
            or (target.ndim == 0 and target.dtype != result.dtype)
        ):
            raise UntraceableError("an array is written to that is not the step's, or not of the result's kind")
        self.value_of(target)
        self._overwritten.add(target.value.root)
        return result.astype(target.dtype)

    def value_of(self, x: Any) -> Any:
        """Return what a stand-in stands for; anything else is a constant and stays as it is."""
        if not isinstance(x, Traced):
            return x
        if x.value.root in self._overwritten:
            raise UntraceableError("an array is used that was written to under another name")
        return x.value

    def _new(self, function: Callable[..., Any], arguments: tuple[Any, ...], sample: np.ndarray[Any, Any]) -> Value:
        traced = [x for x in arguments if isinstance(x, Traced)]
        constants = [x for x in arguments if isinstance(x, np.ndarray)]
        roots = {x.value.root for x in traced if np.may_share_memory(sample, x.sample)}
        if len(roots) > 1 or any(np.may_share_memory(sample, x) for x in constants):
            raise UntraceableError(f"{function}: a view of several arrays, or of a constant")
        value = Value.like(sample, *roots)
        if len(traced) == 1:
            value.least, value.most = _bounds(function, traced[0].value, arguments, sample.dtype)
        return value


def _bounds(
    function: Callable[..., Any], x: Value, arguments: tuple[Any, ...], dtype: np.dtype[Any]
) -> tuple[int | None, int | None]:
    """Return between which whole numbers a function of one value lies, if they are known."""
    if function in REARRANGEMENTS or (function is cast and np.can_cast(x.dtype, dtype)):
        return x.least, x.most
    numbers = [argument for argument in arguments if isinstance(argument, int)]
    if function not in (np.maximum, np.minimum) or not numbers or dtype.kind != "i":
        return None, None
    limit = numbers[0]
    if function is np.maximum:
        return limit, None if x.most is None else max(x.most, limit)
    return None if x.least is None else min(x.least, limit), limit


def _identity(argument: Any) -> Any:
    """Return what tells an argument from others; the tape keeps what it has an identity of."""
    return id(argument) if isinstance(argument, (Value, np.ndarray)) else (type(argument), repr(argument))
