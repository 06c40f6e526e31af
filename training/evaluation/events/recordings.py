"""Recordings and their true events, as a manifest and tables of events list them; and their frames."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clapboard.errors import AudioError, TrainingError
from clapboard.event_tables.event_row import EventRow
from clapboard.event_tables.formats import read_events
from clapboard.event_tables.recordings import RecordingNames
from clapboard.model.clap import ClapEncoder
from clapboard.model.recording_frames import RecordingFrames, embed_recording
from clapboard.suggest.events.event import Event
from training.evaluation.listed_clips import Unreadable

_NEEDED = ("path", "group")
_TABLE_ENDINGS = (".csv", ".txt", ".tsv")


@dataclass(frozen=True)
class ListedRecording:
    """A row of the manifest, with the recording's true events; a label is its index in `ListedRecordings.labels`."""

    path: Path
    group: str
    events: tuple[Event, ...]


@dataclass(frozen=True)
class ListedRecordings:
    """Recordings and the labels of all their events, in alphabetical order."""

    recordings: tuple[ListedRecording, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class EmbeddedRecording:
    """A recording with its frames."""

    listed: ListedRecording
    frames: RecordingFrames


def read_recordings(manifest: Path, tables: Sequence[Path]) -> ListedRecordings:
    """Reads the recordings that the manifest lists, and their events from tables or folders of tables.

    Paths in the manifest are relative to its folder. A recording without events in the tables has none. Raises
    `TrainingError` if the manifest can't be read, lacks a column or a value or names a missing file, or if an event
    is of a recording that it doesn't list; `EventTableError` for a table that can't be read.
    """
    listed = list(_manifest_rows(manifest))
    names = RecordingNames([name for name, _ in listed])
    rows: dict[str, list[EventRow]] = defaultdict(list)
    for table in _tables(tables):
        for row in read_events(table):
            name = names.find(row.recording)
            if name is None:
                raise TrainingError(
                    f"Table {table.name} has events of “{row.recording}”, which manifest {manifest} lacks: add it."
                )
            if row.end_s > row.start_s:
                rows[name].append(row)
    labels = tuple(sorted({row.label for events in rows.values() for row in events}))
    if not labels:
        raise TrainingError(f"The tables have no events of the recordings in manifest {manifest}: give some.")
    return ListedRecordings(
        tuple(
            ListedRecording(
                manifest.parent / name,
                group,
                tuple(Event(row.start_s, row.end_s, labels.index(row.label), 1.0) for row in rows[name]),
            )
            for name, group in listed
        ),
        labels,
    )


def embed_recordings(
    encoder: ClapEncoder, listed: ListedRecordings, *, on_recording: Callable[[], None] = lambda: None
) -> tuple[list[EmbeddedRecording], list[Unreadable]]:
    """The readable recordings with their frames, and the unreadable files. `on_recording` is called after each."""
    embedded, unreadable = [], []
    for recording in listed.recordings:
        try:
            embedded.append(EmbeddedRecording(recording, embed_recording(encoder, recording.path)))
        except AudioError as error:
            unreadable.append(Unreadable(recording.path, str(error)))
        on_recording()
    return embedded, unreadable


def _tables(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.iterdir() if file.suffix.lower() in _TABLE_ENDINGS)
        else:
            yield path


def _manifest_rows(manifest: Path) -> Iterator[tuple[str, str]]:
    """Path, as written, and group of each row."""
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            for name in _NEEDED:
                if name not in (rows.fieldnames or ()):
                    raise TrainingError(
                        f"Manifest {manifest} has no column “{name}”: its first line must name path and group."
                    )
            for row in rows:
                yield _manifest_row(manifest, rows.line_num, row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't CSV in UTF-8"
        raise TrainingError(f"Manifest {manifest} can't be read: {reason}.") from error


def _manifest_row(manifest: Path, line: int, row: dict[str, str | None]) -> tuple[str, str]:
    path, group = ((row[name] or "").strip() for name in _NEEDED)
    if not path or not group:
        missing = "group" if path else "path"
        raise TrainingError(f"Manifest {manifest} has no {missing} in line {line}: fill it in, or remove the line.")
    if not (manifest.parent / path).is_file():
        raise TrainingError(
            f"Manifest {manifest} names {path} in line {line}, which doesn't exist: give paths relative to the "
            "manifest's folder, or absolute ones."
        )
    return path, group
