"""Pairs listed in a CSV or JSONL. Rows that name the same audio file are merged into one pair."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from clapboard.errors import TrainingError
from training.corpus.pairs import CAPTION_FIELDS, TAG_FIELDS, Pair, read_fields, unique, unique_tags

PATH_FIELD = "path"
_TEXT_FIELDS = (*CAPTION_FIELDS, *TAG_FIELDS)
_SEPARATORS = {"captions": "|", "tags": ",", "labels": ","}  # of the texts in one cell


def csv_pairs(table: Path) -> Iterator[Pair]:
    """The pairs of a CSV with a column “path” and a column of texts. Paths are relative to the table's folder.

    `captions` are separated by “|”, `tags` by commas. Raises `TrainingError`, naming the line or column.
    """
    return _merged(table, _csv_rows(table))


def jsonl_pairs(table: Path) -> Iterator[Pair]:
    """The pairs of a file with one JSON object a line. Raises `TrainingError`, naming the line."""
    return _merged(table, _jsonl_rows(table))


def _merged(table: Path, rows: Iterator[tuple[int, dict[str, Any]]]) -> Iterator[Pair]:
    """One pair for each audio file, in the order of their first rows."""
    pairs: dict[str, Pair] = {}
    for line, row in rows:
        name = row.get(PATH_FIELD)
        if not isinstance(name, str) or not name.strip():
            raise TrainingError(f"{table} has no {PATH_FIELD} in line {line}: name the audio file there.")
        name = name.strip()
        pair = read_fields(row, f"{table}, line {line},").pair(name, table.parent / name)
        if first := pairs.get(name):
            texts = unique([*first.captions, *pair.captions]), unique_tags([*first.tags, *pair.tags])
            pair = replace(first, captions=texts[0], tags=texts[1], group=first.group or pair.group)
        pairs[name] = pair
    yield from pairs.values()


def _csv_rows(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    line = 0  # the last line read
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, skipinitialspace=True, strict=True)
            columns = [(name or "").strip() for name in rows.fieldnames or ()]
            _require_columns(table, columns)
            rows.fieldnames = columns
            line = rows.line_num
            for row in rows:
                line = rows.line_num
                if None in row:
                    raise TrainingError(f"{table} has more cells than columns in line {line}: quote its commas.")
                yield line, {name: _cell(name, cell or "") for name, cell in row.items()}
    except csv.Error as error:
        raise TrainingError(f"{table} isn't valid CSV from line {line + 1} on ({error}): check its quotes.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(table, error, "CSV") from error


def _require_columns(table: Path, columns: list[str]) -> None:
    if PATH_FIELD not in columns:
        raise TrainingError(f"{table} has no column “{PATH_FIELD}”: its first line must name the columns.")
    if duplicates := [name for name, times in Counter(columns).items() if name and times > 1]:
        raise TrainingError(f"{table} has the column “{duplicates[0]}” twice: give each column a name of its own.")
    if not set(columns) & set(_TEXT_FIELDS):
        raise TrainingError(f"{table} has no column of texts: name one of them {' or '.join(_TEXT_FIELDS)}.")


def _cell(name: str, cell: str) -> Any:
    return cell.split(_SEPARATORS[name]) if name in _SEPARATORS else cell


def _jsonl_rows(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with table.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _object(table, number, line)
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(table, error, "JSONL") from error


def _object(table: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{table} has invalid JSON in line {number}: {error}.") from error
    if not isinstance(row, dict):
        raise TrainingError(f'{table} has no JSON object in line {number}: write one such as {{"path": "a.wav"}}.')
    return row


def _unreadable(table: Path, error: Exception, kind: str) -> TrainingError:
    reason = error.strerror if isinstance(error, OSError) else f"it isn't {kind} in UTF-8"
    return TrainingError(f"{table} can't be read: {reason}.")
