"""Hugging Face data sets: a folder of audio and metadata that `datasets.load_dataset("audiofolder", …)` reads.

    README.md                         the card: licences, sources, labels, how to load it
    data/train/metadata.parquet       a recording a row: its file, its events and labels, where it is from
    data/train/a.wav                  …

The card is written last, so that its presence means that the folder is complete.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self

from clapboard.errors import EventTableError
from clapboard.event_tables.event_row import EventRow, OnRefused, Place, decimal_text, event_row, refusals_to, shown
from clapboard.event_tables.recordings import SafeNames
from clapboard.event_tables.text_files import unwritable, written_whole

METADATA = "metadata.parquet"
_ROWS_AT_ONCE = 1000
_IN_EVENT = ("start_s", "end_s", "label", "score", "annotator", "version", "channel", "low_hz", "high_hz")
_IN_LABEL = ("label", "score", "annotator", "version")


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording of the data set, with its events; `audio` is a file on this machine, to be copied."""

    name: str
    audio: Path
    rows: Sequence[EventRow]
    split: str = "train"


@dataclass
class _Tally:
    num_rows: int = 0
    recordings: Counter[str] = field(default_factory=Counter)  # by split
    labels: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)


def write_hugging_face(folder: Path, recordings: Iterable[Recording], *, title: str) -> int:
    """Write the data set into a new or empty folder; returns the number of its events and labels.

    Recordings are taken one at a time. Raises `EventTableError` if pyarrow isn't installed, the folder has files, or
    something can't be written.
    """
    arrow, parquet = _pyarrow()
    tally, names = _Tally(), SafeNames()
    try:
        _require_empty(folder)
        with _Metadata(folder, arrow, parquet) as metadata:
            for recording in recordings:
                file_name = names.of(recording.name)
                place = folder / "data" / recording.split
                place.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(recording.audio, place / file_name)
                metadata.add(recording.split, _metadata(recording, file_name))
                _count(tally, recording)
        with written_whole(folder / "README.md") as card:
            card.write(_card(title, tally))
    except OSError as error:
        raise unwritable(folder, error) from None
    return tally.num_rows


def read_hugging_face(folder: Path, *, on_refused: OnRefused | None = None) -> Iterator[EventRow]:
    """The events and labels of such a folder. No audio is read.

    Raises `EventTableError` if pyarrow isn't installed or the folder has no such metadata, and `RowRefused` for an
    event that can't be used, unless `on_refused` takes it; its line is the recording's place in the metadata.
    """
    arrow, parquet = _pyarrow()
    files = sorted(folder.rglob(METADATA))
    if not files:
        raise EventTableError(
            f"{shown(folder.name)} has no {METADATA}: name a folder that `clapboard export --format hf` wrote."
        )
    for file in files:
        name = f"{shown(folder.name)}/{file.relative_to(folder).as_posix()}"
        try:
            batches = parquet.ParquetFile(file).iter_batches(batch_size=_ROWS_AT_ONCE)
            for start, batch in enumerate(batches):
                for count, item in enumerate(batch.to_pylist(), 1 + start * _ROWS_AT_ONCE):
                    yield from _rows(Place(name, count), item, on_refused)
        except (OSError, arrow.ArrowException) as error:
            reason = str(error).partition("\n")[0][:200]
            raise EventTableError(f"{name} can't be read ({reason}): write the data set anew.") from None


class _Metadata:
    """Context manager: the metadata of each split, written some rows at a time."""

    def __init__(self, folder: Path, arrow: Any, parquet: Any) -> None:
        self._folder = folder
        self._arrow = arrow
        self._parquet = parquet
        self._schema = _schema(arrow)
        self._writers: dict[str, Any] = {}
        self._pending: dict[str, list[dict[str, Any]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            for split in list(self._pending):
                self._flush(split)
        for writer in self._writers.values():
            writer.close()

    def add(self, split: str, row: dict[str, Any]) -> None:
        """Add a recording's row to the split."""
        rows = self._pending.setdefault(split, [])
        rows.append(row)
        if len(rows) >= _ROWS_AT_ONCE:
            self._flush(split)

    def _flush(self, split: str) -> None:
        if split not in self._writers:
            file = self._folder / "data" / split / METADATA
            self._writers[split] = self._parquet.ParquetWriter(file, self._schema)
        table = self._arrow.Table.from_pylist(self._pending.pop(split), schema=self._schema)
        self._writers[split].write_table(table)


def _rows(place: Place, item: Mapping[str, Any], on_refused: OnRefused | None) -> Iterator[EventRow]:
    whole = [(True, label) for label in _structs(item.get("labels"))]
    for is_whole, cells in [*((False, event) for event in _structs(item.get("events"))), *whole]:
        given = dict(cells) | {name: item.get(name) for name in ("licence", "source")}
        given["recording"] = item.get("recording") or item.get("file_name")
        if is_whole:
            given |= {"start_s": None, "end_s": item.get("duration_s")}
        with refusals_to(on_refused):
            yield event_row(place, {name: _cell(value) for name, value in given.items()}, whole=is_whole)


def _structs(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in (value if isinstance(value, list) else []) if isinstance(item, Mapping)]


def _cell(value: Any) -> str:
    if isinstance(value, float | int) and not isinstance(value, bool):
        return decimal_text(value)
    return value if isinstance(value, str) else ""


def _metadata(recording: Recording, file_name: str) -> dict[str, Any]:
    whole = [row for row in recording.rows if row.whole]
    return {
        "file_name": file_name,
        "recording": recording.name,
        "events": [{name: getattr(row, name) for name in _IN_EVENT} for row in recording.rows if not row.whole],
        "labels": [{name: getattr(row, name) for name in _IN_LABEL} for row in whole],
        "duration_s": max((row.end_s for row in whole), default=0.0) or None,
        "licence": next((row.licence for row in recording.rows if row.licence), ""),
        "source": next((row.source for row in recording.rows if row.source), ""),
    }


def _count(tally: _Tally, recording: Recording) -> None:
    tally.num_rows += len(recording.rows)
    tally.recordings[recording.split] += 1
    tally.labels.update(row.label for row in recording.rows)
    tally.versions.update({row.version for row in recording.rows if row.version})
    tally.licences[next((row.licence for row in recording.rows if row.licence), "")] += 1
    tally.sources[next((row.source for row in recording.rows if row.source), "")] += 1


def _schema(arrow: Any) -> Any:
    text, number = arrow.string(), arrow.float64()
    kinds = dict.fromkeys(("label", "annotator", "version"), text) | {"channel": arrow.int32()}
    event = arrow.struct([(name, kinds.get(name, number)) for name in _IN_EVENT])
    label = arrow.struct([(name, kinds.get(name, number)) for name in _IN_LABEL])
    lists = [("events", arrow.list_(event)), ("labels", arrow.list_(label)), ("duration_s", number)]
    names = [("file_name", text), ("recording", text)]
    return arrow.schema([*names, *lists, ("licence", text), ("source", text)])


def _card(title: str, tally: _Tally) -> str:
    """The data set's card. Its YAML has no text of strangers: their licences and sources stand below, as code."""
    splits = sorted(tally.recordings)
    files = "\n".join(f"  - split: {split}\n    path: data/{split}/**" for split in splits)
    counts = ", ".join(f"{split} {tally.recordings[split]:,}" for split in splits)
    return f"""---
license: other
license_name: per-recording
task_categories:
- audio-classification
tags:
- sound-event-detection
configs:
- config_name: default
  data_files:
{files or "  []"}
---

# {_plain(title)}

{tally.num_rows:,} events and labels in {sum(tally.recordings.values()):,} recordings ({counts}), exported from Label
Studio by Clapboard.

```python
import datasets

datasets.load_dataset("audiofolder", data_dir="data")
```

Each row has `audio`, `recording` (its name in the project), `events` (a list of `start_s`, `end_s`, `label`, `score`,
`annotator`, `version` of the model whose suggestion people saw, `channel`, `low_hz`, `high_hz`; seconds and hertz),
`labels` of the whole recording, `licence` and `source`.

{_list("Licences", tally.licences, "recording")}
{_list("Sources", tally.sources, "recording")}
{_list("Labels", tally.labels, "time")}
{_list("Model versions", tally.versions, "recording")}"""


def _list(heading: str, counts: Counter[str], noun: str, longest: int = 200) -> str:
    if not any(counts):
        return f"## {heading}\n\nNone is recorded.\n"
    lines = [
        f"- {f'`{_plain(name)}`' if name else 'not recorded'}: {count:,} {noun}{'s' if count != 1 else ''}"
        for name, count in islice(counts.most_common(), longest)
    ]
    if len(counts) > longest:
        lines.append(f"- and {len(counts) - longest:,} more")
    return f"## {heading}\n\n" + "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """A stranger's text on one line of Markdown."""
    return "".join(sign if sign.isprintable() and sign not in "`<>" else " " for sign in text)


def _require_empty(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise EventTableError(f"{shown(folder.name)} has files in it: name a new or empty folder.")


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise EventTableError("Hugging Face data sets need pyarrow: run pip install pyarrow.") from None
    return pyarrow, parquet
