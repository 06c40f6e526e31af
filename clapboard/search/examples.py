"""Texts and sounds to search by, as people name them → what an encoder hears in them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clapboard.audio import SAMPLE_RATE, Span, blocks
from clapboard.errors import AudioError, BusyError, RequestError
from clapboard.labels import label_space_of
from clapboard.memory import Memory
from clapboard.prediction import compute_class_weights
from clapboard.scoring import Array, mean_direction

if TYPE_CHECKING:
    from clapboard.clap import ClapEncoder

LONGEST_S = 600.0
"""A sound that is searched by is no longer than this: somebody waits while it is heard."""

_TIME = r"(?:\d+:)?(?:\d+:)?\d+(?:\.\d+)?"
_SPAN = re.compile(rf"({_TIME})-({_TIME})")
_TASK = re.compile(r"task:(\d{1,18})(?::(.*))?", re.DOTALL)


@dataclass(frozen=True)
class OfTask:
    """What a task of the project holds, or a piece of it."""

    task: int
    span: Span | None = None


@dataclass(frozen=True)
class OfFile:
    """What a file holds, or a piece of it. `name` is what errors call it; `sha256` is its content's, if known."""

    path: Path
    name: str
    span: Span | None = None
    sha256: str = ""


@dataclass(frozen=True)
class OfAddress:
    """What lies at an address or in a data: URI, or a piece of it. `name` is what errors call it."""

    uri: str
    name: str
    span: Span | None = None


Sound = OfTask | OfFile | OfAddress


@dataclass(frozen=True)
class Wanted:
    """What to search for: texts and sounds that are like it, and sounds that aren't."""

    texts: tuple[str, ...] = ()
    like: tuple[Sound, ...] = ()
    not_like: tuple[Sound, ...] = ()


def read_sound(text: str) -> Sound:
    """The sound that is named by `FILE`, `task:N`, or either with `:START-END` behind it, in seconds or [H:]M:SS.

    A file may have colons in its name. Raises `RequestError` for a piece that is none, `AudioError` for no file.
    """
    if found := _TASK.fullmatch(text):
        return OfTask(int(found[1]), None if found[2] is None else _span(found[2], text))
    whole = Path(text)
    if _is_there(whole):
        return OfFile(whole, whole.name)
    cuts = [at for at, sign in enumerate(text) if sign == ":" and at and _SPAN.fullmatch(text[at + 1 :])]
    for at in cuts:
        path = Path(text[:at])
        if _is_there(path):
            return OfFile(path, path.name, _span(text[at + 1 :], text))
    missing = text[: cuts[0]] if cuts else text
    raise AudioError(f"{missing} doesn't exist: give FILE, FILE:START-END (in seconds), or task:N.")


class Listener:
    """Hears with an encoder, which is asked for when it is needed first."""

    def __init__(
        self,
        encoder: Callable[[], ClapEncoder],
        memory: Memory[Hashable],
        *,
        patience_s: Callable[[], float] = lambda: math.inf,
    ) -> None:
        """`patience_s` says how long whoever asked still waits: 0 when they have gone."""
        self._encoder = lru_cache(maxsize=1)(encoder)
        self._memory = memory
        self._patience_s = patience_s

    def require_patience(self) -> float:
        """Seconds that there are for what comes next. Raises `BusyError` if nobody waits for it any more."""
        patience_s = self._patience_s()
        if patience_s <= 0:
            raise BusyError("Nobody waits for this search any more.")
        return patience_s

    def text(self, text: str) -> tuple[Array, Array]:
        """The text's embedding `[D]`, made as a label's would be, and that of a text which says nothing.

        Raises `LabelConfigError` for an empty text, `ModelError`.
        """
        weight, neutral = compute_class_weights(label_space_of([text]), self._encoder().embed_texts)
        return weight, neutral

    def sound(self, file: OfFile) -> Array:
        """The mean direction `[D]` of what an encoder hears of the file: its windows or, with fusion, the whole of it.

        Raises `AudioError` if it can't be used, or is too long, `BusyError` if nobody waits for it any more.
        """
        self.require_patience()
        if not file.sha256:
            return self._hear(file)
        identity = self._encoder().identity
        return self._memory.get((identity.version, identity.dtype, file.sha256, file.span), lambda: self._hear(file))

    def _hear(self, file: OfFile) -> Array:
        _require_short(file)
        encoder = self._encoder()
        views = encoder.views(file.path, name=file.name, span=file.span)
        batches = iter(lambda: [*islice(views, encoder.batch_size)], [])
        return mean_direction(np.concatenate([encoder.embed_views(batch) for batch in batches]))


def _require_short(file: OfFile) -> None:
    """Before anything of it is embedded: reading it takes a fraction of that."""
    if file.span is not None:
        length_s = file.span.end_s - file.span.start_s
    else:
        num_samples = 0
        for block in blocks(file.path, name=file.name):
            num_samples += block.size
            if num_samples > LONGEST_S * SAMPLE_RATE:
                break
        length_s = num_samples / SAMPLE_RATE
    if length_s > LONGEST_S:
        raise AudioError(
            f"{file.name} is longer than the {LONGEST_S:g} s that can be searched by: name the piece that counts."
        )


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        raise AudioError(f"{path} can't be reached: check its folder's permissions.") from None
    except OSError:  # no file can have such a name
        return False


def _span(text: str, whole: str) -> Span:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise RequestError(f"{whole} names no piece: write START-END in seconds, such as task:17:3.5-6 or 1:02-1:05.")
    span = Span(_seconds(found[1]), _seconds(found[2]))
    if span.start_s >= span.end_s:
        raise RequestError(f"The piece {text} of {whole[: -len(text) - 1]} ends before it begins: write START-END.")
    return span


def _seconds(clock: str) -> float:
    """Seconds of `[H:][M:]S`."""
    total = 0.0
    for part in clock.split(":"):
        total = total * 60 + float(part)
    return total
