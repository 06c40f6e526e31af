"""Untrusted values: any field of a task, an event or a request may be hostile.

Values that passed these functions can be stored in SQLite and PostgreSQL, and are read back unchanged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from clapboard.errors import BodyTooLarge, RequestError
from clapboard.json_steps import SteppedReader, is_large, pieces

MAX_DEPTH = 500
"""Levels of nesting that are accepted: Python's JSON reader and writer fail at a thousand, less the callers' frames."""

MAX_VALUES = 4_000_000
"""How many values a body may hold: each takes some hundred bytes of memory once it is read."""

_SLICE = 1_000_000

_NO_OBJECT = "The body is not a JSON object: send Label Studio's payload unchanged."


def identifier(value: Any) -> int | None:
    """The number, if it can be a Label Studio id that a database can store; else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63 else None


def whole_number(value: Any) -> Any:
    """The value, with a float such as 3.0 as an int, as in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def storable_text(text: str) -> str:
    """The text as every database can store it: NULs and half surrogate pairs are written out, as in `\\ud800`."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def is_storable(text: str) -> bool:
    """Whether every database can store the text unchanged."""
    return storable_text(text) == text


class JsonText(str):
    """A value that is JSON already, in ASCII."""


def large_json(value: Any) -> JsonText:
    """The same as `storable_json`, of a value however large: Python's lock is held for milliseconds at a time."""
    if not is_large(value):
        return JsonText(storable_json(value))
    try:
        return JsonText("".join(pieces(value)))
    except ValueError:
        return JsonText("".join(pieces(rebuilt(value, leaf=_finite))))


def storable_json(value: Any) -> str:
    """The value as JSON in ASCII, which every database stores unchanged. NaN and infinities become null."""
    if isinstance(value, JsonText):
        return value
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(rebuilt(value, leaf=_finite), allow_nan=False)


def read_json(content: bytes | bytearray) -> Any:
    """The JSON value of a request's body; whole numbers with more digits than Python reads become null.

    Other threads go on while a large one is read. Raises `RequestError` if it is not JSON, or is nested too deeply.
    """
    try:
        if len(content) > SteppedReader.WINDOW:
            return SteppedReader(content, _whole_number).value()
        try:
            return json.loads(content)
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise
        except ValueError:  # a whole number with too many digits
            return json.loads(content, parse_int=_whole_number)
    except (ValueError, RecursionError):
        raise RequestError(_NO_OBJECT) from None


def require_object(body: Any) -> dict[str, Any]:
    """The body of a request, which must be a JSON object. Raises `RequestError` for anything else."""
    if not isinstance(body, dict):
        raise RequestError(_NO_OBJECT)
    return body


def require_few_values(content: bytes | bytearray) -> None:
    """Raise `BodyTooLarge` if there are more commas and brackets than values may be, those within texts included."""
    num_values = 0
    for start in range(0, len(content), _SLICE):
        part = content[start : start + _SLICE]
        num_values += part.count(b",") + part.count(b"[") + part.count(b"{")
    if num_values > MAX_VALUES:
        raise BodyTooLarge(f"The request's body holds more than {MAX_VALUES} values: send it in smaller parts.")


def rebuilt(
    value: Any,
    *,
    leaf: Callable[[Any], Any] = lambda item: item,
    leaves_out: Callable[[str], bool] = lambda _: False,
    keeps_whole: Callable[[str], bool] = lambda _: False,
) -> Any:
    """A copy of a JSON value with each text and number replaced by `leaf` of it, however deeply nested.

    Object members whose names `leaves_out` accepts are left out; those that `keeps_whole` accepts stay unchanged.
    """
    root: list[Any] = []
    # Not recursive: a body may be nested more deeply than Python's limit of recursion.
    todo: list[tuple[Any, Any, Any]] = [(root, None, value)]
    while todo:
        holder, key, item = todo.pop()
        if isinstance(item, Mapping):
            copy: Any = {}
            members = [(name, member) for name, member in item.items() if not leaves_out(name)]
            copy.update(dict.fromkeys(name for name, _ in members))  # in their order
            todo += [(copy, name, member) for name, member in members if not keeps_whole(name)]
            copy.update({name: member for name, member in members if keeps_whole(name)})
        elif isinstance(item, list | tuple):
            copy = [None] * len(item)
            todo += [(copy, place, member) for place, member in enumerate(item)]
        else:
            copy = leaf(item)
        if key is None:
            holder.append(copy)
        else:
            holder[key] = copy
    return root[0]


def depth(value: Any) -> int:
    """The number of levels of lists and objects in the value."""
    level, levels = [value], 0
    while level := [
        item
        for holder in level
        if isinstance(holder, Mapping | list)
        for item in (holder.values() if isinstance(holder, Mapping) else holder)
    ]:
        levels += 1
    return levels


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _whole_number(digits: str) -> int | None:
    try:
        return int(digits)
    except ValueError:
        return None
