"""What is exported of a project → files: a table a recording, one table of all, AOEF, or a Hugging Face data set."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from clapboard.audio.pieces import SAMPLE_RATE, Condition
from clapboard.audio.windows import blocks
from clapboard.errors import ClapboardError, EventTableError, RequestError
from clapboard.event_tables.aoef import Sound, write_aoef
from clapboard.event_tables.event_row import EventRow, shown
from clapboard.event_tables.formats import DataSetFormat, Format, table_name, write_events
from clapboard.event_tables.hugging_face import Recording, write_hugging_face
from clapboard.event_tables.recordings import SafeNames
from clapboard.event_tables.text_files import unwritable
from clapboard.plurals import counted, plural
from clapboard.project.exported_events import ExportedRecording, ExportReport

Fetch = Callable[[ExportedRecording], AbstractContextManager[Path]]
"""Gives a recording's file on this machine, which is there within the `with`. Raises `SourceError`."""

_SPLIT = re.compile(r"([a-z][a-z0-9_]*)=([0-9.]+)")


@dataclass(frozen=True)
class Destination:
    """Where an export goes, and what its files need besides the events."""

    out: Path
    fetch: Fetch
    title: str
    split_of: Callable[[ExportedRecording], str] = lambda _recording: "train"
    longest_s: float = 4 * 3600.0  # the longest recording that is decoded


def write_files(
    recordings: Iterable[ExportedRecording],
    file_format: Format | DataSetFormat,
    destination: Destination,
    report: ExportReport,
) -> None:
    """Write the recordings' rows. Those that can't be written are in the report, with the reason.

    Raises `EventTableError` if nothing can be written there.
    """
    counted_ones = _counted(recordings, report)
    if isinstance(file_format, Format):
        if file_format is Format.CSV:
            report.num_rows = write_events(destination.out, _rows(counted_ones), file_format)
            report.num_files = 1
        else:
            _write_tables(counted_ones, file_format, destination.out, report)
    elif file_format is DataSetFormat.AOEF:
        _write_aoef(counted_ones, destination, report)
    else:
        with_audio = _with_audio(counted_ones, destination, report)
        report.num_rows = write_hugging_face(destination.out, with_audio, title=destination.title)
        report.num_files = report.num_recordings


def splits(shares: str, group_of: Callable[[ExportedRecording], str]) -> Callable[[ExportedRecording], str]:
    """Draws each recording's split; those of one group are in one. `shares` is like «train=0.8,test=0.2».

    The draw is a hash of the group, so that it is the same again. Raises `RequestError` for other shares.
    """
    pairs = [_SPLIT.fullmatch(part.strip()) for part in shares.split(",")]
    parsed: dict[str, float] = {}
    for pair in pairs:
        try:
            parsed[pair[1] if pair else ""] = float(pair[2]) if pair else -1.0
        except ValueError:
            parsed[""] = -1.0
    if "" in parsed or len(parsed) < len(pairs) or abs(sum(parsed.values()) - 1.0) > 1e-6:
        raise RequestError(f"The split “{shown(shares)}” isn't like train=0.8,test=0.2, with shares whose sum is 1.")

    def split_of(recording: ExportedRecording) -> str:
        digest = hashlib.sha256(group_of(recording).encode("utf-8", "surrogatepass")).digest()
        drawn = int.from_bytes(digest[:8], "big") / 2**64
        for name, share in parsed.items():
            drawn -= share
            if drawn < 0:
                return name
        return next(iter(parsed))  # the shares' sum was rounded

    return split_of


def annotator_groups(recordings: Iterable[ExportedRecording]) -> Mapping[int, str]:
    """By task, a group such that no annotator is in two: recordings that have an annotator in common are in one."""
    leader: dict[str, str] = {}

    def leader_of(person: str) -> str:
        while leader.setdefault(person, person) != person:
            leader[person] = person = leader[leader[person]]
        return person

    first: dict[int, str] = {}
    for recording in recordings:
        people = [person for row in recording.rows for person in row.annotator.split("; ") if person]
        first[recording.task] = people[0] if people else ""
        for person in people[1:]:
            leader[leader_of(person)] = leader_of(people[0])
    return {task: f"annotator {leader_of(person)}" if person else f"task {task}" for task, person in first.items()}


def _counted(recordings: Iterable[ExportedRecording], report: ExportReport) -> Iterator[ExportedRecording]:
    for recording in recordings:
        report.num_recordings += 1
        yield recording


def _rows(recordings: Iterable[ExportedRecording]) -> Iterator[EventRow]:
    for recording in recordings:
        yield from recording.rows


def _write_tables(
    recordings: Iterable[ExportedRecording], file_format: Format, folder: Path, report: ExportReport
) -> None:
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    names, num_whole = SafeNames(), 0
    for recording in recordings:
        events = [row for row in recording.rows if not row.whole]
        num_whole += len(recording.rows) - len(events)
        report.num_rows += write_events(folder / table_name(names.of(recording.name), file_format), events, file_format)
        report.num_files += 1
    if num_whole:
        have = plural(num_whole, "has", "have")
        report.skip(
            f"{counted(num_whole, 'label')} of whole recordings {have} no place in such tables: add --clips-as-events."
        )
        report.num_skipped += num_whole - 1


def _write_aoef(recordings: Iterable[ExportedRecording], destination: Destination, report: ExportReport) -> None:
    sounds: dict[str, Sound] = {}
    rows: list[EventRow] = []
    for recording in recordings:
        if not recording.rows:
            report.num_recordings -= 1  # nothing is written about it
            continue
        try:
            with destination.fetch(recording) as audio:
                sound = sound_of(audio, destination.longest_s)
        except ClapboardError as error:
            _leave_out(recording, error, report)
            continue
        sounds[recording.name] = sound
        rows += recording.rows
    report.num_rows = write_aoef(destination.out, rows, sounds.__getitem__)
    report.num_files = 1


def _with_audio(
    recordings: Iterable[ExportedRecording], destination: Destination, report: ExportReport
) -> Iterator[Recording]:
    for recording in recordings:
        with ExitStack() as held:
            try:
                audio = held.enter_context(destination.fetch(recording))
            except ClapboardError as error:
                _leave_out(recording, error, report)
                continue
            yield Recording(recording.name, audio, recording.rows, destination.split_of(recording))


def sound_of(path: Path, longest_s: float) -> Sound:
    """What a file's sound is like; all of it is decoded, since headers claim anything. Raises `AudioError`."""
    condition = Condition()
    num_samples = sum(block.size for block in blocks(path, longest_s=longest_s, condition=condition))
    return Sound(round(num_samples / SAMPLE_RATE, 6), condition.num_channels, condition.sample_rate)


def _leave_out(recording: ExportedRecording, error: ClapboardError, report: ExportReport) -> None:
    report.num_recordings -= 1
    report.skip(f"{shown(recording.name)}: {error}")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from None


def require_place(out: Path, file_format: Format | DataSetFormat) -> None:
    """Raise `EventTableError` if a file is where a folder has to be, or a folder where a file has to be."""
    is_folder = file_format in (Format.RAVEN, Format.AUDACITY, DataSetFormat.HF)
    if out.exists() and out.is_dir() != is_folder:
        kind = "a folder" if is_folder else "a file"
        raise EventTableError(
            f"--format {file_format} writes {kind}, and {shown(str(out))} is none: give another --out."
        )
