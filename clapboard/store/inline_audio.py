"""The audio of `data:` URIs, kept once by content: tasks and jobs refer to it, events only say which it was.

A long URI is replaced by a reference before it is stored, and is put back where a task or a job is read. A task's own
address that looks like a reference is replaced as well, so that nobody can name another task's audio.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, exists, literal, select, text

from clapboard.store.database import Database, in_chunks
from clapboard.store.job_records import IS_OPEN
from clapboard.store.schema import inline_audio, jobs, tasks
from clapboard.untrusted import rebuilt

REFERENCE = "data-sha256:"
"""A reference is this and the URI's sha256 in hexadecimal digits."""

IS_REFERENCE = text("substr(tasks.uri, 1, 12) = 'data-sha256:'")
"""Spelt as in the index, which a database recognises only without parameters."""

HAS_TASK = exists().where(tasks.c.uri == literal(REFERENCE) + inline_audio.c.key, IS_REFERENCE)
"""Whether a task has the audio."""

_MIN_CHARS = 200
"""Shorter URIs stay where they are: a reference would save nothing."""


def is_kept_by_content(uri: str) -> bool:
    """Whether an address is stored as a reference."""
    start = uri[:1000].lstrip()[: len(REFERENCE)].lower()
    return (start.startswith("data:") and len(uri) >= _MIN_CHARS) or start == REFERENCE


def reference_of(uri: str) -> str:
    """The address, or the reference to it."""
    return f"{REFERENCE}{hashlib.sha256(uri.encode()).hexdigest()}" if is_kept_by_content(uri) else uri


def without_audio(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """An event's body with references instead of `data:` URIs; nothing reads audio from events."""
    return rebuilt(body, leaf=_referenced) if any(map(_is_long, _leaves(body))) else body


def keep_audio(database: Database, connection: Connection, uris: Iterable[str]) -> dict[str, str]:
    """Store the `data:` URIs among the addresses. Returns by address what is to be stored in its place."""
    references = {uri: reference_of(uri) for uri in uris}
    contents = {reference.removeprefix(REFERENCE): uri for uri, reference in references.items() if reference != uri}
    in_use = (inline_audio.c.key.in_(contents)) & inline_audio.c.unused_since.is_(None)
    if contents:  # locked, so that nobody deletes it before this transaction's tasks are seen
        for key in connection.scalars(select(inline_audio.c.key).where(in_use).with_for_update(read=True)).all():
            del contents[key]
    statement = database.insert(inline_audio)
    statement = statement.on_conflict_do_update(index_elements=["key"], set_={"unused_since": None})
    for key in sorted(contents):  # one by one, since each may be long
        connection.execute(statement, {"key": key, "uri": contents[key]})
    return references


def unused_audio(connection: Connection) -> list[str]:
    """The keys of audio that no task and no open job has."""
    keys = set(connection.scalars(select(inline_audio.c.key).where(~HAS_TASK)))
    payloads = connection.scalars(select(jobs.c.payload).where(IS_OPEN)) if keys else ()
    return sorted(keys - {str(payload.get("uri")).removeprefix(REFERENCE) for payload in payloads})


def audio_of(connection: Connection, addresses: Iterable[str]) -> dict[str, str]:
    """By reference, the `data:` URI; other addresses, and references to what has been deleted, are absent."""
    keys = sorted({address.removeprefix(REFERENCE) for address in addresses if address.startswith(REFERENCE)})
    found: dict[str, str] = {}
    for chunk in in_chunks(keys):
        rows = connection.execute(select(inline_audio.c.key, inline_audio.c.uri).where(inline_audio.c.key.in_(chunk)))
        found |= {f"{REFERENCE}{key}": uri for key, uri in rows}
    return found


def keep_payloads(database: Database, connection: Connection, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of jobs with references in their payloads; the audio is stored."""
    references = keep_audio(database, connection, {row["payload"]["uri"] for row in rows if _has_uri(row["payload"])})
    return [
        row | {"payload": row["payload"] | {"uri": references[row["payload"]["uri"]]}}
        if _has_uri(row["payload"])
        else row
        for row in rows
    ]


def with_audio(connection: Connection, payloads: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The payloads with their `data:` URIs."""
    audio = audio_of(connection, [payload["uri"] for payload in payloads if _has_uri(payload)])
    return [
        {**payload, "uri": audio[payload["uri"]]} if _has_uri(payload) and payload["uri"] in audio else payload
        for payload in payloads
    ]


def _has_uri(payload: Mapping[str, Any]) -> bool:
    return isinstance(payload.get("uri"), str)


def _referenced(value: Any) -> Any:
    return reference_of(value) if _is_long(value) else value


def _is_long(value: Any) -> bool:
    """Whether the value is a text as long as a `data:` URI that is replaced."""
    return isinstance(value, str) and len(value) >= _MIN_CHARS and is_kept_by_content(value)


def _leaves(value: Any) -> Iterator[Any]:
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, Mapping):
            todo += item.values()
        elif isinstance(item, list | tuple):
            todo += item
        else:
            yield item
