"""AOEF, held to soundevent itself: it reads what is written here, and what it writes is read here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from soundevent import data, io

from clapboard.errors import EventTableError
from clapboard.event_tables.aoef import Sound, read_aoef, write_aoef
from clapboard.event_tables.event_row import EventRow, RowRefused
from clapboard.event_tables.formats import read_events

SOUND = Sound(60.0, 2, 48_000)


def sound_of(_: str) -> Sound:
    return SOUND


def test_soundevent_reads_an_annotation_set(tmp_path: Path) -> None:
    rows = [
        EventRow("a.wav", 1.0, 2.5, "dog", annotator="Ann", version="v1", licence="CC0", source="here", channel=1),
        EventRow("a.wav", 3.0, 4.0, "rain", licence="CC0", source="here", low_hz=100.0, high_hz=200.0),
        EventRow("b.wav", 5.0, 5.0, "point"),
        EventRow("b.wav", 0.0, 60.0, "windy", whole=True),
    ]
    assert write_aoef(tmp_path / "e.json", rows, sound_of) == 4
    read: Any = io.load(tmp_path / "e.json")
    assert isinstance(read, data.AnnotationSet)
    first, second = read.clip_annotations
    assert (str(first.clip.recording.path), first.clip.recording.samplerate) == ("a.wav", 48_000)
    assert first.clip.recording.rights == "CC0"
    assert (first.clip.start_time, first.clip.end_time) == (0.0, 60.0)
    dog, rain = first.sound_events
    assert dog.sound_event.geometry.coordinates == [1.0, 2.5]
    assert dog.created_by.name == "Ann"
    assert "dog" in [tag.value for tag in dog.tags]
    assert rain.sound_event.geometry.coordinates == [3.0, 100.0, 4.0, 200.0]
    assert [tag.value for tag in second.tags] == ["windy"]
    assert list(read_events(tmp_path / "e.json")) == rows


def test_soundevent_reads_a_prediction_set(tmp_path: Path) -> None:
    rows = [EventRow("a.wav", 1.0, 2.5, "dog", 0.75, version="v1"), EventRow("a.wav", 0.0, 60.0, "x", 0.5, whole=True)]
    write_aoef(tmp_path / "e.json", rows, sound_of)
    read: Any = io.load(tmp_path / "e.json")
    assert isinstance(read, data.PredictionSet)
    (clip,) = read.clip_predictions
    assert [event.score for event in clip.sound_events] == [0.75]
    assert [(tag.tag.value, tag.score) for tag in clip.tags] == [("x", 0.5)]
    assert list(read_aoef(tmp_path / "e.json")) == rows


def test_what_soundevent_writes_is_read(tmp_path: Path) -> None:
    recording = data.Recording(path=Path("/audio/a.wav"), duration=10, channels=1, samplerate=44_100, rights="CC-BY")
    clip = data.Clip(recording=recording, start_time=0, end_time=10)
    species, kind = data.term_from_key("species"), data.term_from_key("event")
    shapes: list[Any] = [
        data.BoundingBox(coordinates=[1, 100, 2, 3000]),
        data.TimeStamp(coordinates=3),
        data.LineString(coordinates=[[4, 500], [5, 400], [4.5, 700]]),
    ]
    events = [
        data.SoundEventAnnotation(
            sound_event=data.SoundEvent(recording=recording, geometry=shape),
            tags=[data.Tag(term=species, value="wren"), data.Tag(term=kind, value="song")],
            created_by=data.User(name="Ann"),
        )
        for shape in shapes
    ]
    annotations = data.AnnotationSet(clip_annotations=[data.ClipAnnotation(clip=clip, sound_events=events)])
    io.save(annotations, tmp_path / "e.json", audio_dir="/audio")
    key = json.loads((tmp_path / "e.json").read_text())["data"]["tags"][0]["key"]
    with pytest.raises(EventTableError, match=r"its tags have several keys, .*: say with --label-column which"):
        list(read_events(tmp_path / "e.json"))
    about = {"annotator": "Ann", "licence": "CC-BY"}
    assert list(read_events(tmp_path / "e.json", label_column=key)) == [
        EventRow("a.wav", 1.0, 2.0, "wren", low_hz=100.0, high_hz=3000.0, **about),
        EventRow("a.wav", 3.0, 3.0, "wren", **about),
        EventRow("a.wav", 4.0, 5.0, "wren", low_hz=400.0, high_hz=700.0, **about),
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "isn't JSON"),
        ("[" * 100_000, "isn't JSON"),
        ("[]", "isn't AOEF"),
        ('{"data": {"recordings": 3}}', ""),
        (
            '{"data": {"recordings": [], "sound_event_annotations": [{"tags": [[]], "sound_event": 3}]}}',
            "line 1: the row",
        ),
        (
            '{"data": {"recordings": [{"uuid": "r", "path": "a.wav"}], "tags": [{"id": 0, "key": "k", "value": "x"}],'
            '"sound_events": [{"uuid": "e", "recording": "r", "geometry": {"type": "TimeInterval", "coordinates":'
            '[1, NaN]}}], "sound_event_annotations": [{"sound_event": "e", "tags": [0]}]}}',
            "line 1: the end “not a number” isn't a number",
        ),
    ],
)
def test_hostile_files_are_refused_in_a_sentence(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "e.json").write_text(content)
    if not reason:
        assert list(read_events(tmp_path / "e.json")) == []
        return
    with pytest.raises((EventTableError, RowRefused), match=reason):
        list(read_events(tmp_path / "e.json"))
