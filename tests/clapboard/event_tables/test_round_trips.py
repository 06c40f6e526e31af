"""Whatever rows there are: written and read again, each format gives back all that it has room for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clapboard.event_tables.aoef import Sound, read_aoef, write_aoef
from clapboard.event_tables.event_row import EventRow
from clapboard.event_tables.formats import Format, read_events, write_events
from clapboard.event_tables.hugging_face import Recording, read_hugging_face, write_hugging_face

texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20).map(str.strip)
names = texts.filter(bool)
times = st.one_of(st.floats(0, 1e8), st.floats(0, 100).map(lambda x: round(x, 3)))
frequencies = st.one_of(st.none(), st.floats(0, 1e8))


@st.composite
def event_rows(draw: st.DrawFn, recordings: st.SearchStrategy[str]) -> EventRow:
    start_s, end_s = sorted([draw(times), draw(times)])
    low_hz, high_hz = draw(frequencies), draw(frequencies)
    if low_hz is not None and high_hz is not None:
        low_hz, high_hz = sorted([low_hz, high_hz])
    score = draw(st.none() | st.floats(-1e9, 1e9))
    about = [draw(texts) for _ in range(4)]
    channel = draw(st.none() | st.integers(0, 999))
    whole = draw(st.booleans())
    return EventRow(draw(recordings), start_s, end_s, draw(names), score, *about, channel, low_hz, high_hz, whole=whole)


def in_csv(row: EventRow) -> EventRow:
    return replace(row, start_s=0.0, end_s=0.0) if row.whole else row


def in_raven(row: EventRow) -> EventRow:
    return replace(row, channel=row.channel or 0, whole=False)


def in_audacity(row: EventRow) -> EventRow:
    return EventRow(row.recording, row.start_s, row.end_s, row.label, low_hz=row.low_hz, high_hz=row.high_hz)


@pytest.mark.parametrize(
    ("file_format", "held"), [(Format.CSV, in_csv), (Format.RAVEN, in_raven), (Format.AUDACITY, in_audacity)]
)
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_round_trip(file_format: Format, held: Callable[[EventRow], EventRow], data: st.DataObject) -> None:
    recordings = names if file_format is Format.CSV else st.just("folder/my recording.wav")
    rows = data.draw(st.lists(event_rows(recordings), max_size=6))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "table"
        assert write_events(path, rows, file_format) == len(rows)
        read = list(read_events(path, file_format, recording="folder/my recording.wav"))
    assert read == [held(row) for row in rows]


def in_aoef(rows: list[EventRow]) -> list[EventRow]:
    """Whole recordings come last; what is known of a recording is that of its first row that has it."""
    has_scores = any(row.score is not None for row in rows)
    recordings: dict[str, list[EventRow]] = {}
    for row in rows:
        recordings.setdefault(row.recording, []).append(row)
    kept = []
    for row in [row for row in rows if not row.whole] + [
        row for of_one in recordings.values() for row in of_one if row.whole
    ]:
        of_one = recordings[row.recording]
        about = {
            "licence": next((r.licence for r in of_one if r.licence), ""),
            "source": next((r.source for r in of_one if r.source), ""),
            "score": (row.score or 0.0) if has_scores else None,
        }
        if row.whole:
            kept.append(EventRow(row.recording, 0.0, LENGTH_S, row.label, whole=True, **about))
            continue
        low, high = row.low_hz, row.high_hz
        if (low, high) != (None, None):
            low = low or 0.0
            high = max(low, RATE / 2) if high is None else high
        annotator = "" if has_scores else row.annotator
        kept.append(replace(row, annotator=annotator, low_hz=low, high_hz=high, **about))
    return kept


LENGTH_S, RATE = 1e8, 48_000


@given(rows=st.lists(event_rows(st.sampled_from(["a.wav", "b c.wav"])), max_size=6))
@settings(max_examples=25, deadline=None)
def test_round_trip_of_aoef(rows: list[EventRow]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "e.json"
        write_aoef(path, rows, lambda _: Sound(LENGTH_S, 1, RATE))
        assert list(read_aoef(path)) == in_aoef(rows)


@given(rows=st.lists(event_rows(st.just("a.wav")), max_size=6))
@settings(max_examples=20, deadline=None)
def test_round_trip_of_hugging_face(rows: list[EventRow]) -> None:
    about = {"licence": rows[0].licence, "source": rows[0].source} if rows else {}
    rows = [replace(row, **about) for row in rows]
    with TemporaryDirectory() as folder:
        audio = Path(folder) / "in.wav"
        audio.write_bytes(b"")
        write_hugging_face(Path(folder) / "out", [Recording("a.wav", audio, rows)], title="t")
        read = list(read_hugging_face(Path(folder) / "out"))
    length_s = max((row.end_s for row in rows if row.whole), default=0.0)
    assert read == [row for row in rows if not row.whole] + [
        EventRow("a.wav", 0.0, length_s, row.label, row.score, row.annotator, row.version, **about, whole=True)
        for row in rows
        if row.whole
    ]
