"""Names of recordings in tables: which file is meant, and what a table about it is called. No name is ever opened."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

from clapboard.errors import EventTableError
from clapboard.event_tables.event_row import shown

_TABLE_ENDINGS = re.compile(
    r"((\.birdnet)?\.selection\.table|(\.table\.[0-9]+)?\.selections|\.birdnet\.results|\.labels|\.events)?"
    r"\.(txt|csv|tsv|json)$",
    re.IGNORECASE,
)
_AUDIO_ENDING = re.compile(r"\.[a-z0-9]{1,5}$", re.IGNORECASE)
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f\ud800-\udfff<>:"/\\|?*]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)
_LONGEST = 150  # characters of a file's name, of at most 255 bytes in all


def recording_of_table(file_name: str) -> str:
    """The recording that a table's file is named after: «a.wav» of «a.wav.selections.txt», «a» of «a.txt»."""
    return _TABLE_ENDINGS.sub("", file_name) or file_name


def base_name(recording: str) -> str:
    """The last part of a recording's path or URI, with either kind of slash."""
    return path_parts(recording)[-1]


class RecordingNames:
    """The recordings that there are, to find the one that a table means."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set[str]()
        self._by_base: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for name in dict.fromkeys(names):
            base = base_name(name)
            self._names.add(name)
            self._by_base[base].append(name)
            self._by_stem[_stem(base)].append(name)

    def find(self, recording: str) -> str | None:
        """The recording with this name or path, else the only one whose path ends alike, else the only one with this
        file name, with or without its ending; None if there is none.

        Raises `EventTableError` if there are several.
        """
        if recording in self._names:
            return recording
        parts = path_parts(recording)
        candidates = self._by_base.get(parts[-1], [])
        if not candidates:
            stem = parts[-1] if not _AUDIO_ENDING.search(parts[-1]) else ""
            candidates = self._by_stem.get(stem, []) if stem else []
        if len(candidates) > 1:
            alike = [_common_end(path_parts(name), parts) for name in candidates]
            best = [name for name, common in zip(candidates, alike, strict=True) if common == max(alike)]
            if len(best) > 1:
                raise EventTableError(
                    f"“{shown(recording)}” may be any of {len(best)} recordings, such as “{shown(best[0])}” and "
                    f"“{shown(best[1])}”: write more of its path."
                )
            candidates = best
        return candidates[0] if candidates else None


def safe_name(recording: str) -> str:
    """A file name for things about the recording: its own, without what leads elsewhere or what a system refuses."""
    base = _UNSAFE.sub("_", base_name(recording)).strip(" ").rstrip(".")
    shortened = base[-_LONGEST:] if len(base.encode()) <= 200 else ""
    if shortened == base and base and not base.startswith(".") and not _RESERVED.match(base):
        return base
    digest = hashlib.sha256(recording.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"recording-{digest}"


class SafeNames:
    """File names for recordings, each its own, also where a system takes capitals for small letters."""

    def __init__(self) -> None:
        self._taken: dict[str, str] = {}

    def of(self, recording: str) -> str:
        """The recording's name; the same each time."""
        name = safe_name(recording)
        if self._taken.setdefault(name.casefold(), recording) == recording:
            return name
        digest = hashlib.sha256(recording.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        stem, dot, ending = name.rpartition(".")
        return f"{stem}-{digest}{dot}{ending}" if dot and stem else f"{name}-{digest}"


def path_parts(recording: str) -> list[str]:
    """The parts of a path or URI, without a query, decoded; never empty."""
    text = recording
    if re.match(r"[a-z][a-z0-9+.-]*://", recording, re.IGNORECASE):
        text = _path_of(recording)
    elif recording.startswith("/data/local-files/?d="):  # Label Studio's address of a file on its disk
        text = unquote(recording.partition("?d=")[2])
    parts = [part for part in re.split(r"[/\\]+", text) if part not in ("", ".", "..")]
    return parts or [recording]


def _path_of(uri: str) -> str:
    try:
        return unquote(urlsplit(uri).path)
    except ValueError:
        return uri


def _stem(base: str) -> str:
    return _AUDIO_ENDING.sub("", base) or base


def _common_end(one: list[str], other: list[str]) -> int:
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count
