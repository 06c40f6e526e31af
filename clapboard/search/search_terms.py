"""The texts and sounds that people search by, as they name them. Needs no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from clapboard.audio.windows import Span
from clapboard.errors import AudioError, RequestError

LONGEST_S = 600.0
"""The longest sound to search by: somebody waits while it is embedded."""

_TIME = r"(?:\d+:)?(?:\d+:)?\d+(?:\.\d+)?"
_SPAN = re.compile(rf"({_TIME})-({_TIME})")
_TASK = re.compile(r"task:(\d{1,18})(?::(.*))?", re.DOTALL)


@dataclass(frozen=True)
class TaskSound:
    """The audio of a task of the project, or a piece of it."""

    task: int
    span: Span | None = None


@dataclass(frozen=True)
class FileSound:
    """A file, or a piece of it. Errors call it `name`; `sha256` is its content's, or empty if that isn't known.

    `channel` is the one to embed, empty for all.
    """

    path: Path
    name: str
    span: Span | None = None
    sha256: str = ""
    channel: str = ""


@dataclass(frozen=True)
class AddressSound:
    """The audio at an address or in a data: URI, or a piece of it. Errors call it `name`."""

    uri: str
    name: str
    span: Span | None = None


Sound = TaskSound | FileSound | AddressSound


@dataclass(frozen=True)
class SearchTerms:
    """What to search for: texts, sounds to be like, and sounds to be unlike."""

    texts: tuple[str, ...] = ()
    like: tuple[Sound, ...] = ()
    not_like: tuple[Sound, ...] = ()


def read_sound(text: str) -> Sound:
    """The sound that `FILE` or `task:N` names, or a piece of it: `:START-END` after either, in seconds or [H:]M:SS.

    A file may have colons in its name. Raises `RequestError` for a malformed piece, `AudioError` for a missing file.
    """
    if match := _TASK.fullmatch(text):
        return TaskSound(int(match[1]), None if match[2] is None else _span(match[2], text))
    whole = Path(text)
    if _exists(whole):
        return FileSound(whole, whole.name)
    colons = [at for at, char in enumerate(text) if char == ":" and at and _SPAN.fullmatch(text[at + 1 :])]
    for colon in colons:
        path = Path(text[:colon])
        if _exists(path):
            return FileSound(path, path.name, _span(text[colon + 1 :], text))
    missing = text[: colons[0]] if colons else text
    raise AudioError(f"{missing} doesn't exist: give FILE, FILE:START-END (in seconds), or task:N.")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        raise AudioError(f"{path} can't be reached: check its folder's permissions.") from None
    except OSError:  # no file can have such a name
        return False


def _span(text: str, whole: str) -> Span:
    match = _SPAN.fullmatch(text)
    if match is None:
        raise RequestError(f"{whole} names no piece: write START-END in seconds, such as task:17:3.5-6 or 1:02-1:05.")
    span = Span(_seconds(match[1]), _seconds(match[2]))
    if span.start_s >= span.end_s:
        raise RequestError(f"The piece {text} of {whole[: -len(text) - 1]} ends before it begins: write START-END.")
    return span


def _seconds(clock: str) -> float:
    """Seconds of `[H:][M:]S`."""
    total = 0.0
    for part in clock.split(":"):
        total = total * 60 + float(part)
    return total
