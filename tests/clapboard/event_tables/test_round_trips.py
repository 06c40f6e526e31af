"""Whatever rows there are: written and read again, each format gives back all that it has room for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clapboard.event_tables.event_row import EventRow
from clapboard.event_tables.formats import Format, read_events, write_events

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
@settings(max_examples=60, deadline=None)
def test_round_trip(file_format: Format, held: Callable[[EventRow], EventRow], data: st.DataObject) -> None:
    recordings = names if file_format is Format.CSV else st.just("folder/my recording.wav")
    rows = data.draw(st.lists(event_rows(recordings), max_size=6))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "table"
        assert write_events(path, rows, file_format) == len(rows)
        read = list(read_events(path, file_format, recording="folder/my recording.wav"))
    assert read == [held(row) for row in rows]
