"""Audio–text pairs as sources give them, and the names of the fields from which their texts are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clapboard.errors import TrainingError
from clapboard.labels.captions import raw
from clapboard.sources import SourceFile

Audio = Path | bytes | Callable[[], SourceFile]
"""A pair's sound: a file, the content of one, or a function that fetches it (and may raise `SourceError`)."""

CAPTION_FIELDS = ("captions", "caption", "text")
TAG_FIELDS = ("tags", "tag", "labels", "label")
GROUP_FIELDS = ("group", "recording")
ABOUT_FIELDS = ("licence", "license", "author", "source", "url")


@dataclass(frozen=True)
class Pair:
    """A sound and its texts. Pairs of one `group` stay in one split; empty: the sound is a group of its own.

    `left_out` is the reason for which the source excludes the pair from training, if it does.
    """

    name: str  # within its source, and in messages
    audio: Audio = field(repr=False)
    captions: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    group: str = ""
    about: Mapping[str, str] = field(default_factory=dict)  # licence, author and the like
    left_out: str = ""
    channel: str = ""  # the one to decode; empty: all of them


@dataclass(frozen=True)
class Fields:
    """The texts, group and origin in a row's named fields."""

    captions: tuple[str, ...]
    tags: tuple[str, ...]
    group: str
    about: dict[str, str]

    def pair(self, name: str, audio: Audio) -> Pair:
        """The pair of these texts and the sound."""
        return Pair(as_text(name), audio, self.captions, self.tags, self.group, self.about)


def read_fields(row: Mapping[str, Any], where: str) -> Fields:
    """Reads the row's fields, each a text or a list of texts. `where` names the row in errors.

    Raises `TrainingError` if a field holds anything else.
    """
    captions = [text for name in CAPTION_FIELDS for text in _texts(row, name, where)]
    tags = [text for name in TAG_FIELDS for text in _texts(row, name, where)]
    groups = [text for name in GROUP_FIELDS for text in _texts(row, name, where)]
    about = {name: text for name in ABOUT_FIELDS for text in _texts(row, name, where)}
    return Fields(unique(captions), unique_tags(tags), groups[0] if groups else "", about)


def unique(texts: Iterable[str]) -> tuple[str, ...]:
    """The distinct, non-empty texts, with single spaces."""
    return tuple(dict.fromkeys(tidy for text in texts if (tidy := " ".join(as_text(text).split()))))


def unique_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """The distinct tags; of spelling variants such as “car_horn” and “Car horn”, the first."""
    by_meaning: dict[str, str] = {}
    for tag in unique(tags):
        by_meaning.setdefault(raw(tag), tag)
    return tuple(by_meaning.values())


def as_text(text: str) -> str:
    """The text as valid UTF-8: “�” replaces surrogates, which stand for undecodable bytes or half characters."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def _texts(row: Mapping[str, Any], name: str, where: str) -> list[str]:
    value = row.get(name)
    items = value if isinstance(value, list | tuple) else [] if value is None else [value]
    if any(isinstance(item, bool) or not isinstance(item, str | int | float) for item in items):
        raise TrainingError(f"{where} has a “{name}” that isn't a text: give it a text, or a list of texts.")
    return [text for item in items if (text := as_text(str(item)).strip())]
