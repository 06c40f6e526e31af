"""Large JSON texts, read and written in steps of milliseconds.

Python's own reader and writer hold Python's lock from the beginning to the end, for seconds if a text is large; nothing
else in the process goes on meanwhile. Here they get one piece after the other: whatever fits into a window is theirs,
and lists and objects that don't are gone through one member at a time.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from json import decoder as json_decoder
from typing import Any

# Python's own functions in C, which its type stubs don't have.
_scan_text: Callable[[str, int, bool], tuple[str, int]] = json_decoder.scanstring  # type: ignore[attr-defined]
_Scan = Callable[[str, int], tuple[Any, int]]

_WHITE_SPACE = re.compile(r"[ \t\n\r]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_ESCAPES = re.compile(r'(?:\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*')
_HALF_A_PAIR = re.compile(r"\\u[dD][89abAB]")
_DECODED_AT_ONCE = 1_000_000
MAX_TEXT = 20_000_000
"""How long a single text may be: audio in a data: URI is the longest that there is."""

_VALUES_AT_ONCE = 10_000
_OF_A_NUMBER = 3  # how far a number that is cut off may seem to end before the cut: «1.», «1e+»


class SteppedReader:
    """Reads one JSON text."""

    WINDOW = 65_536
    """Characters that are read at once; only a number may be longer."""

    def __init__(self, content: bytes | bytearray, long_number: Callable[[str], Any]) -> None:
        """`long_number` reads the whole numbers of a window in which one has more digits than Python reads."""
        decoder = codecs.getincrementaldecoder(json.detect_encoding(content))("surrogatepass")
        starts = range(0, len(content), _DECODED_AT_ONCE)
        decoded = [decoder.decode(content[start : start + _DECODED_AT_ONCE]) for start in starts]
        self._text = "".join([*decoded, decoder.decode(b"", final=True)])
        self._scan_window: _Scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
        self._scan_long_numbers: _Scan = json.JSONDecoder(parse_int=long_number).scan_once  # type: ignore[attr-defined]
        self._start = 0
        self._window = self._text[: self.WINDOW]

    def value(self) -> Any:
        """The value. Raises `ValueError` if the text isn't JSON, `RecursionError` if it is nested too deeply."""
        value, end = self._value(self._skip(0))
        if self._skip(end) != len(self._text):
            raise ValueError("there is more behind the value")
        return value

    def _value(self, at: int) -> tuple[Any, int]:
        """The value that begins there, and where it ends."""
        first = self._text[at : at + 1]
        scanned = self._scan(at)
        if scanned is not None:
            return scanned
        if len(self._text) - at <= self.WINDOW:
            raise ValueError("it isn't JSON")
        if first == '"':
            return self._long_text(at)
        if first == "[":
            return self._list(at)
        if first == "{":
            return self._object(at)
        self._window, self._start = self._text, 0  # a number that is longer than a window
        scanned = self._scanned(at)
        self._move(at)
        if scanned is None:
            raise ValueError("it isn't JSON")
        return scanned

    def _list(self, at: int) -> tuple[list[Any], int]:
        items: list[Any] = []
        at = self._skip(at + 1)
        if self._text[at : at + 1] == "]":
            return items, at + 1
        while True:
            item, at = self._value(at)
            items.append(item)
            at, is_last = self._next(at, "]")
            if is_last:
                return items, at

    def _object(self, at: int) -> tuple[dict[str, Any], int]:
        members: dict[str, Any] = {}
        at = self._skip(at + 1)
        if self._text[at : at + 1] == "}":
            return members, at + 1
        while True:
            if self._text[at : at + 1] != '"':
                raise ValueError("a name is missing")
            name, at = self._value(at)
            at = self._skip(at)
            if self._text[at : at + 1] != ":":
                raise ValueError("a colon is missing")
            members[name], at = self._value(self._skip(at + 1))
            at, is_last = self._next(at, "}")
            if is_last:
                return members, at

    def _long_text(self, at: int) -> tuple[str, int]:
        start = at = at + 1
        parts = []
        while self._text[at : at + 1] != '"':
            end = _PLAIN.match(self._text, at, at + self.WINDOW).end()  # type: ignore[union-attr]  # it may be empty
            if end > at:
                parts.append(self._text[at:end])
            else:
                end = _ESCAPES.match(self._text, at, at + self.WINDOW).end()  # type: ignore[union-attr]
                if _HALF_A_PAIR.match(self._text, end - 6, end):
                    end = end - 6 if end - 6 > at else end  # its other half comes with the next part
                if end == at:
                    raise ValueError("a text doesn't end, or has characters that must be escaped")
                parts.append(_scan_text(f'{self._text[at:end]}"', 0, True)[0])
            at = end
            if at - start > MAX_TEXT:
                raise ValueError("a text is too long")
        return "".join(parts), at + 1

    def _next(self, at: int, closing: str) -> tuple[int, bool]:
        """Behind a member: where the next one begins, or where the list or object ends."""
        at = self._skip(at)
        mark = self._text[at : at + 1]
        if mark == closing:
            return at + 1, True
        if mark != ",":
            raise ValueError("a comma is missing")
        return self._skip(at + 1), False

    def _scan(self, at: int) -> tuple[Any, int] | None:
        """The value that begins there and where it ends; None if it doesn't end within a window, or isn't JSON."""
        if not self._start <= at < self._start + len(self._window):
            self._move(at)
        while True:
            scanned = self._scanned(at - self._start)
            if scanned is not None:
                return scanned[0], self._start + scanned[1]
            if self._start == at:
                return None
            self._move(at)

    def _scanned(self, at: int) -> tuple[Any, int] | None:
        """The same by place in the window."""
        try:
            try:
                value, end = self._scan_window(self._window, at)
            except json.JSONDecodeError:
                return None
            except ValueError:  # a whole number with too many digits
                value, end = self._scan_long_numbers(self._window, at)
        except (StopIteration, ValueError):
            return None
        is_cut = self._start + len(self._window) < len(self._text) and end + _OF_A_NUMBER > len(self._window)
        return None if is_cut and not isinstance(value, list | dict) else (value, end)

    def _move(self, at: int) -> None:
        self._start = at
        self._window = self._text[at : at + self.WINDOW]

    def _skip(self, at: int) -> int:
        """The first place from there on that isn't white space."""
        while True:
            match = _WHITE_SPACE.match(self._text, at, at + self.WINDOW)
            assert match is not None  # it may be empty
            if match.end() < at + self.WINDOW:
                return match.end()
            at = match.end()


def pieces(value: Any) -> Iterator[str]:
    """The parts of the value's JSON in ASCII. Raises `ValueError` for NaN and infinities."""
    if not is_large(value):
        yield json.dumps(value, allow_nan=False)
    elif isinstance(value, dict):
        opening = "{"
        for name, member in value.items():
            yield f"{opening}{json.dumps(name)}: "
            yield from pieces(member)
            opening = ", "
        yield "}"
    else:
        opening = "["
        for item in value:
            yield opening
            yield from pieces(item)
            opening = ", "
        yield "]"


def is_large(value: Any) -> bool:
    """Whether the JSON value holds so many values that they are written in steps."""
    num_values, level = 0, [value]
    while level:
        below: list[Any] = []
        for holder in level:
            if isinstance(holder, dict | list):
                num_values += len(holder)
                if num_values > _VALUES_AT_ONCE:
                    return True
                below += holder.values() if isinstance(holder, dict) else holder
        level = below
    return False
