"""How `bench.py` measures: contenders take turns in rounds, so that whatever else the machine does meets them all."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from mlp_xp.errors import MLPXPError

PAUSE = 0.05
"""Seconds between turns: one library's idle threads stop spinning before the next one starts."""


@dataclass(frozen=True)
class Contender:
    """Someone who takes a turn in every round.

    Attributes
    ----------
    name : str
        For people.
    role : "floor", "project" or "peer"
        What nobody can do without, one of this project's ways, or another library's.
    device : str
        Such as "cpu" or "cuda:0".
    turn : callable
        Given the round's number, does the work, the host's part included, and returns when the device is done: the
        mean loss (of a floor, NaN), or for a process what was measured of it.
    description : dict
        Versions, threads and whatever else may decide its speed.
    against : str, optional
        The name of the contender that it is compared with; by default the fastest floor of its device.
    """

    name: str
    role: Literal["floor", "project", "peer"]
    device: str
    turn: Callable[[int], float]
    description: dict[str, Any] = field(default_factory=dict)
    against: str | None = None


class Entry(NamedTuple):
    """How a contender is made for a workload, and the floor that comes with it, each by its name in a registry."""

    make: Callable[[Any], Contender | Iterable[Contender]]
    floor: str | None = None


def chosen(names: Sequence[str] | None, registry: Mapping[str, Entry], default: Sequence[str]) -> list[str]:
    """Return the names that a registry knows among those asked for, with a floor for each; by default the default."""
    own = [name for name in (default if names is None else names) if name in registry]
    floors = ["floor-numpy", *filter(None, (registry[name].floor for name in own))]
    return list(dict.fromkeys([*(floor for floor in floors if floor in registry), *own]))


def enter(names: Sequence[str], registry: Mapping[str, Entry], workload: Any) -> tuple[list[Contender], dict[str, str]]:
    """Return the contenders that can run here, and why the others cannot."""
    contenders: list[Contender] = []
    left_out = {}
    for name in names:
        try:
            made = registry[name].make(workload)
            contenders += [made] if isinstance(made, Contender) else made
        except Exception as error:  # a library may raise anything when it is not at home here
            left_out[name] = reason(error)
    return contenders, left_out


def reason(error: Exception) -> str:
    """Return an error as a line."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if isinstance(error, (MLPXPError, ModuleNotFoundError)) else f"{type(error).__name__}: {text}"


def seconds(contender: Contender, number: int) -> float:
    """Return the wall-clock time of a turn; garbage is collected before, not within."""
    gc.collect()
    time.sleep(PAUSE)
    gc.disable()
    try:
        start = time.perf_counter()
        contender.turn(number)
        return time.perf_counter() - start
    finally:
        gc.enable()


def own_measure(contender: Contender, number: int) -> float:
    """Return what a turn measured itself."""
    time.sleep(PAUSE)
    return contender.turn(number)


def interleave(
    contenders: Sequence[Contender], rounds: int, measure: Callable[[Contender, int], float] = seconds
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Let all take turns; the order alternates, and a first round, in which libraries compile, is not counted.

    Parameters
    ----------
    contenders : sequence of Contender
        Their names differ.
    rounds : int
        Those that count.
    measure : callable
        What is measured of a contender's turn.

    Returns
    -------
    values : dict of lists
        Name -> what was measured in every round.
    left_out : dict
        Name -> reason, for those that fail in the first round.
    """
    values: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    left_out: dict[str, str] = {}
    gc.collect()
    gc.freeze()  # what the libraries brought along stays, and need not be looked at before every turn
    try:
        _take_turns(contenders, rounds, measure, values, left_out)
    finally:
        gc.unfreeze()
    return values, left_out


def _take_turns(
    contenders: Sequence[Contender],
    rounds: int,
    measure: Callable[[Contender, int], float],
    values: dict[str, list[float]],
    left_out: dict[str, str],
) -> None:
    for number in range(rounds + 1):
        for contender in contenders if number % 2 else reversed(contenders):
            if contender.name not in values:
                continue
            try:
                value = measure(contender, number)
            except Exception as error:
                if number > 0:
                    raise
                left_out[contender.name] = reason(error)
                del values[contender.name]
                continue
            if number > 0:
                values[contender.name].append(value)
