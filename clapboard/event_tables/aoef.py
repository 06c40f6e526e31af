"""AOEF, the JSON of the soundevent package, version 1.1.0: recordings, clips, sound events and their tags, by uuid.

Events with scores make a prediction set, others an annotation set. A prediction has no annotator there.
https://mbsantiago.github.io/soundevent/generated/api/io/
"""

from __future__ import annotations

import itertools
import json
import math
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clapboard.errors import EventTableError
from clapboard.event_tables.event_row import EventRow, OnRefused, Place, decimal_text, event_row, refusals_to, shown
from clapboard.event_tables.text_files import unreadable, written_whole

MAX_BYTES = 200_000_000
"""The largest file that is read: JSON has to be held in memory whole."""

_VERSION = "1.1.0"
_NAMESPACE = uuid.UUID("5d3bb4a0-3f0a-4b5e-9c7a-0c1e0f3a6b52")
_LABEL_KEY, _VERSION_KEY, _SOURCE_KEY, _CHANNEL = "label", "model_version", "source", "channel"
_OURS = frozenset({_VERSION_KEY, _SOURCE_KEY})
_MAX_POINTS = 100_000


@dataclass(frozen=True, slots=True)
class Sound:
    """What AOEF has to say about a recording's file."""

    duration_s: float
    channels: int
    sample_rate: int


SoundOf = Callable[[str], Sound]


def write_aoef(path: Path, rows: Iterable[EventRow], sound_of: SoundOf) -> int:
    """Write events, of any number of recordings; returns their number. `sound_of` tells of each recording's file.

    Raises `EventTableError` if the file can't be written, and whatever `sound_of` raises.
    """
    all_rows = list(rows)
    has_scores = any(row.score is not None for row in all_rows)
    content = _Content(sound_of, has_scores)
    for row in all_rows:
        content.add(row)
    with written_whole(path) as file:
        json.dump(content.document(), file, ensure_ascii=False, allow_nan=False)
    return len(all_rows)


def read_aoef(path: Path, *, label_column: str = "", on_refused: OnRefused | None = None) -> Iterator[EventRow]:
    """The events of annotation sets, projects and prediction sets; `label_column` is the key of the tags that are
    labels, which has to be named only where tags have several keys.

    Raises `EventTableError` for a file that is no such set, and `RowRefused` for an event that can't be used, unless
    `on_refused` takes it; its line is the event's place in the file.
    """
    data = _data(path)
    sets = _Sets(path, data, label_column)
    for count, cells in enumerate(sets.cells(), 1):
        with refusals_to(on_refused):
            yield _row(Place(path.name, count), cells)


@dataclass
class _Content:
    """The objects of a file that is being written, each once, with ids that the same rows always give."""

    sound_of: SoundOf
    has_scores: bool
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    tags: dict[tuple[str, str], int] = field(default_factory=dict)
    recordings: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    labelled: list[dict[str, Any]] = field(default_factory=list)  # annotations of events, or predictions
    in_clip: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    of_clip: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))

    def add(self, row: EventRow) -> None:
        """Take the row in."""
        recording = self._recording(row)
        if row.whole:
            tag = self._tag(_LABEL_KEY, row.label)
            self.of_clip[row.recording].append([tag, row.score or 0.0] if self.has_scores else tag)
            return
        number = str(len(self.events))
        event_id, labelled_id = _id("event", row.recording, number), _id("labelled", row.recording, number)
        features = {} if row.channel is None else {_CHANNEL: float(row.channel)}
        event = {"uuid": event_id, "recording": recording, "geometry": _geometry(row, self._top_hz(row))}
        self.events.append(event | ({"features": features} if features else {}))
        tags = [self._tag(_LABEL_KEY, row.label)]
        if row.version:
            tags.append(self._tag(_VERSION_KEY, row.version))
        labelled: dict[str, Any] = {"uuid": labelled_id, "sound_event": event_id}
        if self.has_scores:
            score = row.score or 0.0
            labelled |= {"score": score, "tags": [[tag, score] for tag in tags]}
        else:
            labelled |= {"tags": tags} | ({"created_by": self._user(row.annotator)} if row.annotator else {})
        self.labelled.append(labelled)
        self.in_clip[row.recording].append(labelled_id)

    def document(self) -> dict[str, Any]:
        """The file's whole content."""
        kind = "prediction" if self.has_scores else "annotation"
        clips = [
            {"uuid": _id("clip", name), "recording": recording["uuid"], "start_time": 0.0}
            | {"end_time": recording["duration"]}
            for name, recording in self.recordings.items()
        ]
        of_clips = [
            {"uuid": _id("of clip", name), "clip": _id("clip", name)}
            | {"sound_events": self.in_clip.get(name, []), "tags": self.of_clip.get(name, [])}
            for name in self.recordings
        ]
        now = datetime.now(UTC).replace(tzinfo=None).isoformat()
        data = {
            "uuid": str(uuid.uuid4()),
            "collection_type": f"{kind}_set",
            "created_on": now,
            "users": list(self.users.values()),
            "tags": [{"id": number, "key": key, "value": value} for (key, value), number in self.tags.items()],
            "recordings": list(self.recordings.values()),
            "clips": clips,
            "sound_events": self.events,
            f"sound_event_{kind}s": self.labelled,
            f"clip_{kind}s": of_clips,
        }
        return {"version": _VERSION, "created_on": now, "data": data}

    def _recording(self, row: EventRow) -> str:
        stored = self.recordings.get(row.recording)
        if stored is None:
            sound = self.sound_of(row.recording)
            stored = self.recordings[row.recording] = {
                "uuid": _id("recording", row.recording),
                "path": row.recording,
                "duration": sound.duration_s,
                "channels": sound.channels,
                "samplerate": sound.sample_rate,
            }
        if row.licence:
            stored.setdefault("rights", row.licence)
        if row.source and "tags" not in stored:
            stored["tags"] = [self._tag(_SOURCE_KEY, row.source)]
        return str(stored["uuid"])

    def _top_hz(self, row: EventRow) -> float:
        return float(self.recordings[row.recording]["samplerate"]) / 2

    def _tag(self, key: str, value: str) -> int:
        return self.tags.setdefault((key, value), len(self.tags))

    def _user(self, name: str) -> str:
        user = self.users.setdefault(name, {"uuid": _id("user", name), "name": name})
        return str(user["uuid"])


def _geometry(row: EventRow, top_hz: float) -> dict[str, Any]:
    if row.low_hz is None and row.high_hz is None:
        if row.start_s == row.end_s:
            return {"type": "TimeStamp", "coordinates": row.start_s}
        return {"type": "TimeInterval", "coordinates": [row.start_s, row.end_s]}
    low = 0.0 if row.low_hz is None else row.low_hz
    high = max(low, top_hz) if row.high_hz is None else row.high_hz
    return {"type": "BoundingBox", "coordinates": [row.start_s, low, row.end_s, high]}


def _id(kind: str, *names: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, "\0".join((kind, *names))))


class _Sets:
    """The objects of a file that is read, by their ids. Whatever isn't as it should be is left out or refused."""

    def __init__(self, path: Path, data: Mapping[str, Any], label_column: str) -> None:
        self._path = path
        self._data = data
        self._recordings = self._by_id("recordings")
        self._clips = self._by_id("clips")
        self._events = self._by_id("sound_events")
        self._users = {
            key: _text(user, "name") or _text(user, "username") for key, user in self._by_id("users").items()
        }
        self._tags = {
            tag["id"]: (_text(tag, "key"), _text(tag, "value"))
            for tag in _objects(data.get("tags"))
            if isinstance(tag.get("id"), int)
        }
        self._label_key = label_column or self._only_key()

    def cells(self) -> Iterator[dict[str, Any]]:
        """The cells of each row."""
        for labelled in itertools.chain(
            _objects(self._data.get("sound_event_annotations")), _objects(self._data.get("sound_event_predictions"))
        ):
            yield from self._of_event(labelled)
        for labelled in itertools.chain(
            _objects(self._data.get("clip_annotations")), _objects(self._data.get("clip_predictions"))
        ):
            clip = self._clips.get(_text(labelled, "clip"), {})
            about = self._about(clip) | {"whole": True, "end_s": _number_text(clip.get("end_time"))}
            for label, score in self._labels(labelled):
                yield about | {"label": label, "score": _number_text(score)}

    def _of_event(self, labelled: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        event = self._events.get(_text(labelled, "sound_event"), {})
        cells = self._about(event) | _extent(event.get("geometry"))
        features = event.get("features")
        cells["channel"] = _number_text(features.get(_CHANNEL)) if isinstance(features, Mapping) else ""
        cells["annotator"] = self._users.get(_text(labelled, "created_by"), "")
        cells["version"] = next((value for _, key, value in self._tags_of(labelled) if key == _VERSION_KEY), "")
        for label, score in self._labels(labelled) or [("", None)]:
            yield cells | {"label": label, "score": _number_text(labelled.get("score", score))}

    def _about(self, owner: Mapping[str, Any]) -> dict[str, Any]:
        recording = self._recordings.get(_text(owner, "recording"), {})
        source = next((value for _, key, value in self._tags_of(recording) if key == _SOURCE_KEY), "")
        about = {"recording": _text(recording, "path"), "licence": _text(recording, "rights"), "source": source}
        return about | {"is_expanded": recording.get("time_expansion") not in (None, 1, 1.0)}

    def _labels(self, labelled: Mapping[str, Any]) -> list[tuple[str, Any]]:
        return [(value, score) for score, key, value in self._tags_of(labelled) if key == self._label_key]

    def _tags_of(self, owner: Mapping[str, Any]) -> Iterator[tuple[Any, str, str]]:
        """Score, key and value of each of its tags."""
        tags = owner.get("tags")
        for item in tags if isinstance(tags, list) else []:
            number, score = (item[0], item[1]) if isinstance(item, list) and len(item) == 2 else (item, None)
            if isinstance(number, int) and number in self._tags:
                yield score, *self._tags[number]

    def _only_key(self) -> str:
        keys = sorted({key for key, _ in self._tags.values()} - _OURS)
        if len(keys) > 1:
            raise EventTableError(
                f"{shown(self._path.name)}: its tags have several keys, {', '.join(map(shown, keys[:20]))}: say with "
                "--label-column which are the labels."
            )
        return keys[0] if keys else _LABEL_KEY

    def _by_id(self, name: str) -> dict[str, Mapping[str, Any]]:
        return {_text(item, "uuid"): item for item in _objects(self._data.get(name))}


def _row(place: Place, cells: Mapping[str, Any]) -> EventRow:
    if cells["is_expanded"]:
        raise place.refused("its recording is expanded in time, so that its times aren't the file's: convert it first.")
    texts = {name: value for name, value in cells.items() if isinstance(value, str)}
    return event_row(place, texts, whole=cells.get("whole", False))


def _data(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise EventTableError(
                f"{shown(path.name)} is larger than {MAX_BYTES // 1_000_000} MB: write it in several files."
            )
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, RecursionError):
        raise EventTableError(f"{shown(path.name)} isn't JSON: write it anew, or give another --format.") from None
    data = document.get("data") if isinstance(document, Mapping) else None
    if not isinstance(data, Mapping) or "recordings" not in data:
        raise EventTableError(
            f"{shown(path.name)} isn't AOEF with annotations or predictions: write it with soundevent's `io.save`."
        )
    return data


def _extent(geometry: Any) -> dict[str, str]:
    """Times and frequencies of whatever geometry, as cells."""
    kind, coordinates = (
        (geometry.get("type"), geometry.get("coordinates")) if isinstance(geometry, Mapping) else ("", 0)
    )
    flat = list(itertools.islice(_numbers(coordinates), _MAX_POINTS))
    names = ("start_s", "low_hz", "end_s", "high_hz")
    if kind == "TimeStamp" and len(flat) == 1:
        return {"start_s": _number_text(flat[0]), "end_s": _number_text(flat[0])}
    if kind == "TimeInterval" and len(flat) == 2:
        return {"start_s": _number_text(flat[0]), "end_s": _number_text(flat[1])}
    if kind == "BoundingBox" and len(flat) == 4:
        return dict(zip(names, map(_number_text, flat), strict=True))
    if flat and len(flat) % 2 == 0:  # points of time and frequency
        times, hertz = flat[::2], flat[1::2]
        return dict(zip(names, map(_number_text, (min(times), min(hertz), max(times), max(hertz))), strict=True))
    return {}


def _numbers(value: Any) -> Iterator[float]:
    """The numbers in nested lists, in their order, however deeply they are nested."""
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, list):
            todo += reversed(item)
        elif isinstance(item, int | float) and not isinstance(item, bool):
            yield float(item) if abs(item) < 1e300 else math.nan


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    return (item for item in (value if isinstance(value, list) else []) if isinstance(item, Mapping))


def _text(owner: Mapping[str, Any], name: str) -> str:
    value = owner.get(name)
    return value if isinstance(value, str) else ""


def _number_text(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return decimal_text(value) if is_number and abs(value) < 1e300 else "" if value is None else "not a number"
