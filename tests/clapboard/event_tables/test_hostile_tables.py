"""Whatever a file holds, reading it ends in rows that are sound, or in a sentence."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clapboard.errors import EventTableError
from clapboard.event_tables.formats import DataSetFormat, Format, read_events

CELLS = st.sampled_from(
    ["", "0", "1.5", "-1", "nan", "inf", "1e999", "1_0", "0,5", "٣", "\0", "=1+1", '"', "\\", "\ud7ff", "x" * 50, "é"]
) | st.text(max_size=5)
HEADERS = {
    Format.RAVEN: "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tFile Offset (s)\tAnnotation",
    Format.AUDACITY: "0\t1\tx",
    Format.CSV: "path,start_s,end_s,label,score,channel,low_hz,high_hz",
}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.sampled_from(["r", "e", "c", "TimeInterval", "Polygon"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["uuid", "recording", "sound_event", "geometry", "type", "coordinates", "tags", "id", "clip"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
AOEF = st.fixed_dictionaries(
    {
        "data": st.dictionaries(
            st.sampled_from(
                ["recordings", "sound_events", "sound_event_annotations", "tags", "clips", "clip_predictions"]
            ),
            st.lists(JSON, max_size=3) | JSON,
        )
    }
)


def require_sound_or_a_sentence(content: bytes, file_format: Format | DataSetFormat) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.txt"
        path.write_bytes(content)
        for arguments in ({}, {"on_refused": lambda _refused: None}):
            rows, sentence = [], ""
            try:
                rows = list(read_events(path, file_format, recording="a.wav", **arguments))
            except EventTableError as error:
                sentence = str(error)
            assert not sentence or sentence.isprintable()
            for row in rows:
                assert 0 <= row.start_s <= row.end_s <= 1e8
                assert row.score is None or isfinite(row.score)
                assert row.label.strip()
                assert not set(row.label + row.recording) & set("\0\n\r\t\x1b")


@pytest.mark.parametrize("file_format", HEADERS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_tables_of_hostile_cells(file_format: Format, data: st.DataObject) -> None:
    separator = "," if file_format is Format.CSV else "\t"
    rows = data.draw(st.lists(st.lists(CELLS, max_size=9).map(separator.join), max_size=4))
    content = "\n".join([HEADERS[file_format], *rows]).encode("utf-8", "surrogatepass")
    require_sound_or_a_sentence(content, file_format)
    require_sound_or_a_sentence(data.draw(st.binary(max_size=60)), file_format)


@given(document=AOEF)
@settings(max_examples=40, deadline=None)
def test_aoef_of_hostile_values(document: dict[str, object]) -> None:
    require_sound_or_a_sentence(json.dumps(document).encode(), DataSetFormat.AOEF)
