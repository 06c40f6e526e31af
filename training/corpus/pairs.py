"""An audio–text pair as a source gives it, and how its texts are named wherever a source has named fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clapboard.captions import raw
from clapboard.errors import TrainingError
from clapboard.sources import SourceFile

Audio = Path | bytes | Callable[[], SourceFile]
"""Where a pair's sound is: a file, the file's content, or what fetches it (and then raises `SourceError`)."""

CAPTION_FIELDS = ("captions", "caption", "text")
TAG_FIELDS = ("tags", "tag", "labels", "label")
GROUP_FIELDS = ("group", "recording")
ABOUT_FIELDS = ("licence", "license", "author", "source", "url")


@dataclass(frozen=True)
class Pair:
    """A sound and what is said of it. Pairs of one `group` never lie in two splits; empty: the sound is its own group.

    `left_out` is the reason for which the source itself keeps the pair out of training, if it does.
    """

    name: str  # for messages, and within its source
    audio: Audio = field(repr=False)
    captions: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    group: str = ""
    about: Mapping[str, str] = field(default_factory=dict)  # licence, author and the like
    left_out: str = ""


@dataclass(frozen=True)
class Fields:
    """What a row's named fields say."""

    captions: tuple[str, ...]
    tags: tuple[str, ...]
    group: str
    about: dict[str, str]

    def pair(self, name: str, audio: Audio) -> Pair:
        """The pair of these texts with that sound."""
        return Pair(as_text(name), audio, self.captions, self.tags, self.group, self.about)


def read_fields(row: Mapping[str, Any], where: str) -> Fields:
    """What the row says, as JSON has it: a text or a list of texts each. `where` names the row in errors.

    Raises `TrainingError` if a field holds something else.
    """
    captions = [text for name in CAPTION_FIELDS for text in _texts(row, name, where)]
    tags = [text for name in TAG_FIELDS for text in _texts(row, name, where)]
    groups = [text for name in GROUP_FIELDS for text in _texts(row, name, where)]
    about = {name: text for name in ABOUT_FIELDS for text in _texts(row, name, where)}
    return Fields(unique(captions), unique_tags(tags), groups[0] if groups else "", about)


def unique(texts: Iterable[str]) -> tuple[str, ...]:
    """The texts with single spaces, each once, without empty ones."""
    return tuple(dict.fromkeys(text for one in texts if (text := " ".join(as_text(one).split()))))


def unique_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Likewise; of «Dog» and «dog», or «car_horn» and «car horn», which name the same sound, the first."""
    found: dict[str, str] = {}
    for tag in unique(tags):
        found.setdefault(raw(tag), tag)
    return tuple(found.values())


def as_text(text: str) -> str:
    """The text, to be written in UTF-8: «�» for each byte of a file's name, or half of a character, that isn't."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def _texts(row: Mapping[str, Any], name: str, where: str) -> list[str]:
    value = row.get(name)
    items = value if isinstance(value, list | tuple) else [] if value is None else [value]
    if any(isinstance(item, bool) or not isinstance(item, str | int | float) for item in items):
        raise TrainingError(f"{where} has a “{name}” that is no text: give it a text, or a list of texts.")
    return [text for item in items if (text := as_text(str(item)).strip())]
