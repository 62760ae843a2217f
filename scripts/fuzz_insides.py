"""Mutations of what is inside a file: one changed byte of gzip, of JSON or of a header's length ends it at the door."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple

from fuzz_targets import BETWEEN
from mlp_xp.estimators.weight_files import KEY

ODD: list[Any] = [
    *(None, True, False, "", "x", "\ud800", "0", [], {}, [[]], [None], [0, 0], {"": 0}),
    *(0, -1, 1, 2, 2**31, 2**32, 2**53, 2**63, 2**64, 10**30, 10**400),
    *(0.0, -0.0, 0.5, 1e-320, 1e308, float("nan"), float("inf")),
]
"""What stands where something else belongs."""


class Inside(NamedTuple):
    """How to take out the parts of a file, each to be changed by itself, and how to put them back in."""

    take_out: Callable[[bytes], list[bytes]]
    put_in: Callable[[list[bytes]], bytes]


def mutate(inside: Inside, content: bytes, most: int, seed: int, mutate_bytes: Callable[[bytes, int], bytes]) -> bytes:
    """Return a file of which one part is changed, missing or there twice; one that has no such parts is changed itself.

    Parameters
    ----------
    inside : Inside
        What the file may have.
    content : bytes
        The file.
    most : int
        Bytes that it may have then.
    seed : int
        Of what is done.
    mutate_bytes : callable
        Returns what it is given in another form, of so many bytes at most.
    """
    random = Random(seed)  # noqa: S311 - nothing is to be kept secret
    try:
        parts = inside.take_out(content)
        place, how = random.randrange(len(parts)), random.random()
        if how < 0.05:
            del parts[place]
        elif how < 0.1:
            parts.insert(place, parts[place])
        elif how < 0.3 or parts[place][:1] not in (b"{", b"["):
            parts[place] = mutate_bytes(parts[place], most)
        else:
            parts[place] = _mutate_json(parts[place], random)
        changed = inside.put_in(parts)
    except Exception:  # whatever a broken file provokes
        return mutate_bytes(content, most)
    return changed if len(changed) <= most else mutate_bytes(content, most)


def _mutate_json(content: bytes, random: Random) -> bytes:
    """Return JSON with something odd, something else of it, or nothing in some place.

    Raises
    ------
    ValueError
        If it is none.
    """
    whole = [json.loads(content)]
    places = list(_places(whole))
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        container, key = random.choice(places)
        how = random.random()
        if how < 0.15:
            other, name = random.choice(places)
            container[key] = json.loads(json.dumps(other[name]))  # a copy: it may be what surrounds it
        elif how < 0.25 and container is not whole:
            del container[key]
        elif how < 0.4 and type(container[key]) in (int, float):
            container[key] = container[key] * random.choice((-1, 0.5, 2, 10)) + random.choice((-1, 0, 1))
        else:
            container[key] = random.choice(ODD)
    return json.dumps(whole[0]).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def _members(content: bytes) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        method = archive.infolist()[0].compress_type
        parts = [part for name in archive.namelist() for part in (name.encode(), *_array(archive.read(name)))]
    return [b"%d" % method, *parts]


def _archive(parts: list[bytes]) -> bytes:
    method, *rest = parts
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", int(method)) as archive:
        for name, *array in zip(*(rest[i::3] for i in range(3)), strict=True):
            archive.writestr(zipfile.ZipInfo(name.decode()), _npy(array), int(method))
    return buffer.getvalue()


def _array(content: bytes) -> list[bytes]:
    (size,) = struct.unpack_from("<H", content, 8)
    return [content[10 : 10 + size], content[10 + size :]]


def _npy(parts: list[bytes]) -> bytes:
    header, values = parts
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + values


def _header(content: bytes) -> list[bytes]:
    (size,) = struct.unpack_from("<Q", content)
    return [content[8 : 8 + size], content[8 + size :]]


def _tensors(parts: list[bytes]) -> bytes:
    header, values = parts
    return struct.pack("<Q", len(header)) + header + values


def _description(content: bytes) -> list[bytes]:
    header, values = _header(content)
    described = json.loads(header)
    text: str = described["__metadata__"].pop(KEY)
    return [text.encode(), json.dumps(described).encode(), values]


def _estimator(parts: list[bytes]) -> bytes:
    text, header, values = parts
    described = json.loads(header)
    described["__metadata__"][KEY] = text.decode()
    return _tensors([json.dumps(described).encode(), values])


_GZIP = Inside(lambda content: [gzip.decompress(content)], lambda parts: gzip.compress(parts[0], mtime=0))
_JSON = Inside(lambda content: [content], b"".join)
_LINES = Inside(lambda content: content.splitlines(keepends=True), lambda parts: b"\n".join(map(bytes.strip, parts)))
_SAFETENSORS = Inside(_header, _tensors)
INSIDES = {
    "csv.gz": _GZIP,
    "idx.gz": _GZIP,
    "npy": Inside(_array, _npy),
    "npz": Inside(_members, _archive),
    "run.json": _JSON,
    "replicas.json": _JSON,
    "curve.jsonl": _LINES,
    "steps.csv": _LINES,
    "run": Inside(lambda content: content.split(BETWEEN), BETWEEN.join),
    "weights": _SAFETENSORS,
    **dict.fromkeys(("checkpoint", "interrupted", "start"), _SAFETENSORS),
    "estimator": Inside(_description, _estimator),
}
"""By loader."""
