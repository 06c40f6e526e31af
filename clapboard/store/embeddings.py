"""Recordings and their window embeddings, cached by content: the same file is embedded once, wherever it lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, delete, func, select

from clapboard.store.database import Database, in_chunks
from clapboard.store.schema import embeddings, recordings


@dataclass(frozen=True)
class Recording:
    """What is known of the file behind a URI."""

    sha256: str
    num_windows: int
    duration_s: float


# PostgreSQL hands out ids before it commits, and not in that order. Writers hold this lock together until they have
# committed; who asks for the last id takes it alone, and so hears of none below which another may still appear.
_ID_LOCK = 4302018


@dataclass(frozen=True)
class Extent:
    """Between which ids the embeddings of an encoder lie. None below `last_id` will ever be added."""

    first_id: int
    last_id: int


@dataclass(frozen=True, eq=False)
class Stretch:
    """Embeddings `[W, D]` of a recording's consecutive windows, from `first_index` on."""

    sha256: str
    first_index: int
    vectors: npt.NDArray[np.float32]


class EmbeddingStore:
    """The recordings and embeddings tables."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def recordings(self, uri_keys: Sequence[str]) -> dict[str, Recording]:
        """What is known of each URI key; unknown ones are left out."""
        found: dict[str, Recording] = {}
        with self._db.read() as connection:
            for some in in_chunks(uri_keys):
                for row in connection.execute(select(recordings).where(recordings.c.uri_key.in_(some))):
                    found[row.uri_key] = Recording(row.sha256, row.num_windows, row.duration_s)
        return found

    def recording_of(self, sha256: str) -> Recording | None:
        """What is known of the content, under whatever URI it came."""
        with self._db.read() as connection:
            row = connection.execute(select(recordings).where(recordings.c.sha256 == sha256).limit(1)).one_or_none()
        return Recording(row.sha256, row.num_windows, row.duration_s) if row else None

    def put_recording(self, uri_key: str, recording: Recording) -> None:
        """Say which content lies behind the URI key now."""
        self.put_recordings({uri_key: recording})

    def put_recordings(self, found: Mapping[str, Recording]) -> None:
        """Say which content lies behind each URI key now."""
        rows = [
            {
                "uri_key": uri_key,
                "sha256": recording.sha256,
                "num_windows": recording.num_windows,
                "duration_s": recording.duration_s,
            }
            for uri_key, recording in sorted(found.items())
        ]
        statement = self._db.insert(recordings)
        fresh = {name: statement.excluded[name] for name in ("sha256", "num_windows", "duration_s")}
        if rows:
            with self._db.write() as connection:
                connection.execute(
                    statement.on_conflict_do_update(index_elements=[recordings.c.uri_key], set_=fresh), rows
                )

    def put(
        self,
        sha256: str,
        encoder_version: str,
        dtype: str,
        first_index: int,
        vectors: npt.NDArray[np.float32],
    ) -> None:
        """Keep the embeddings `[W, D]` of consecutive windows; those that are there already stay as they are."""
        self.put_all([Stretch(sha256, first_index, vectors)], encoder_version, dtype)

    def put_all(self, stretches: Sequence[Stretch], encoder_version: str, dtype: str) -> None:
        """Keep embeddings of several recordings at once; those that are there already stay as they are."""
        rows = [
            {
                "sha256": stretch.sha256,
                "encoder_version": encoder_version,
                "dtype": dtype,
                "window_index": stretch.first_index + offset,
                "vector": np.ascontiguousarray(vector, "<f4").tobytes(),
            }
            for stretch in stretches
            for offset, vector in enumerate(stretch.vectors)
        ]
        if not rows:
            return
        with self._db.write() as connection:
            _lock_ids(connection, shared=True)
            connection.execute(self._db.insert(embeddings).on_conflict_do_nothing(), rows)

    def get(self, found: Sequence[Recording], encoder_version: str, dtype: str) -> dict[str, npt.NDArray[np.float32]]:
        """Embeddings `[W, D]` by content hash, of those recordings for which every window is there."""
        expected = {recording.sha256: recording.num_windows for recording in found}
        rows: dict[str, list[bytes]] = {sha256: [] for sha256 in expected}
        with self._db.read() as connection:
            for some in in_chunks(expected):
                query = (
                    select(embeddings.c.sha256, embeddings.c.vector)
                    .where(embeddings.c.sha256.in_(some), _of_encoder(encoder_version, dtype))
                    .order_by(embeddings.c.sha256, embeddings.c.window_index)
                )
                for sha256, vector in connection.execute(query):
                    rows[sha256].append(vector)
        return {
            sha256: np.frombuffer(b"".join(vectors), "<f4").reshape(len(vectors), -1)
            for sha256, vectors in rows.items()
            if vectors and len(vectors) == expected[sha256]
        }

    def extent(self, encoder_version: str, dtype: str) -> Extent | None:
        """Where the encoder's embeddings lie, or None if there are none."""
        of_encoder = _of_encoder(encoder_version, dtype)
        with self._db.read() as connection:
            _lock_ids(connection, shared=False)
            first = connection.scalar(select(func.min(embeddings.c.id)).where(of_encoder))
            last = connection.scalar(select(func.max(embeddings.c.id)).where(of_encoder))
        return None if first is None or last is None else Extent(first, last)

    def rows(self, encoder_version: str, dtype: str, *, after: int, until: int, limit: int) -> Sequence[Any]:
        """Up to `limit` embeddings as (id, sha256, window_index, vector) in the order of ids, from behind `after`."""
        query = (
            select(embeddings.c.id, embeddings.c.sha256, embeddings.c.window_index, embeddings.c.vector)
            .where(_of_encoder(encoder_version, dtype), embeddings.c.id > after, embeddings.c.id <= until)
            .order_by(embeddings.c.id)
            .limit(limit)
        )
        with self._db.read() as connection:
            return connection.execute(query).all()

    def forget(self, encoder_version: str) -> int:
        """Drop all embeddings of an encoder version; how many there were."""
        with self._db.write() as connection:
            return connection.execute(
                delete(embeddings).where(embeddings.c.encoder_version == encoder_version)
            ).rowcount

    def count(self, encoder_version: str | None = None) -> int:
        """How many window embeddings are kept."""
        query = select(func.count()).select_from(embeddings)
        if encoder_version is not None:
            query = query.where(embeddings.c.encoder_version == encoder_version)
        with self._db.read() as connection:
            return int(connection.scalar(query) or 0)


def _of_encoder(encoder_version: str, dtype: str) -> Any:
    return (embeddings.c.encoder_version == encoder_version) & (embeddings.c.dtype == dtype)


def _lock_ids(connection: Connection, *, shared: bool) -> None:
    """Until the transaction ends. SQLite lets one writer in at a time anyway, whose ids follow each other."""
    if connection.dialect.name == "postgresql":
        function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        connection.exec_driver_sql(f"SELECT {function}({_ID_LOCK})")
