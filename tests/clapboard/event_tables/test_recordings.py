"""Which recording a table means, and what tables about recordings are called."""

from __future__ import annotations

import pytest

from clapboard.errors import EventTableError
from clapboard.event_tables.formats import Format, table_name
from clapboard.event_tables.recordings import RecordingNames, SafeNames, recording_of_table

NAMES = ["/data/upload/3/0a1b-a.wav", "s3://bucket/site1/b.wav", "s3://bucket/site2/b.wav", "c d.flac"]


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        ("c d.flac", "c d.flac"),
        ("C:\\sounds\\c d.flac", "c d.flac"),
        ("c d", "c d.flac"),
        ("C:\\rec\\site2\\b.wav", "s3://bucket/site2/b.wav"),
        ("s3://bucket/site1/b.wav", "s3://bucket/site1/b.wav"),
        ("https://x.example/site1/b.wav?X-Amz-Signature=1", "s3://bucket/site1/b.wav"),
        ("c d.wav", None),
        ("", None),
        ("../..", None),
    ],
)
def test_a_recording_is_found_by_what_is_known_of_its_path(named: str, meant: str | None) -> None:
    assert RecordingNames(NAMES).find(named) == meant


def test_a_name_that_several_have_is_refused() -> None:
    with pytest.raises(EventTableError, match="may be any of 2 recordings, such as"):
        RecordingNames(NAMES).find("b.wav")


@pytest.mark.parametrize(
    ("file", "recording"),
    [
        ("a.wav.selections.txt", "a.wav"),
        ("a.Table.1.selections.txt", "a"),
        ("a.BirdNET.selection.table.txt", "a"),
        ("a.wav.labels.txt", "a.wav"),
        ("a.b.txt", "a.b"),
        (".txt", ".txt"),
    ],
)
def test_a_table_is_named_after_its_recording(file: str, recording: str) -> None:
    assert recording_of_table(file) == recording


@pytest.mark.parametrize(
    "recording",
    [
        "../../etc/passwd",
        "..",
        "a\\..\\..\\b",
        "/",
        "",
        "nul.wav",
        "a\x00b",
        ".ssh",
        "x" * 5000,
        "http://[",
        "a:b?.wav",
    ],
)
def test_no_name_leads_elsewhere(recording: str) -> None:
    name = table_name(recording, Format.RAVEN)
    assert name.endswith(".selections.txt")
    assert not set(name) & set('/\\:\0?*"<>|')
    assert not name.startswith(".")
    assert len(name.encode()) <= 255


def test_recordings_of_one_name_get_names_of_their_own() -> None:
    names = SafeNames()
    first, second, third = (names.of(recording) for recording in ("x/a.wav", "y/a.wav", "z/A.wav"))
    assert first == "a.wav"
    assert len({first.lower(), second.lower(), third.lower()}) == 3
    assert second.endswith(".wav")
    assert names.of("y/a.wav") == second
