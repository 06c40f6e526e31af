"""Recordings and their window embeddings, cached by content: a file is embedded once, whatever its address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Row, delete, exists, func, select, update

from clapboard.store.database import Database, in_chunks
from clapboard.store.schema import embeddings, frames, predictions, recordings, tasks


@dataclass(frozen=True)
class Recording:
    """The content that a URI leads to."""

    sha256: str
    num_windows: int
    duration_s: float
    damage: str = ""  # how much of it can't be decoded, in words; empty if all can


READING = 1
"""The version of the decoder. Recordings that an earlier one decoded have to be read again, see `unread`."""

# PostgreSQL assigns ids before it commits, so that lower ids can become visible after higher ones. Writers share this
# lock until they have committed, and `extent` takes it exclusively, so that no lower id can appear after its answer.
_ID_LOCK = 4302018


@dataclass(frozen=True)
class Extent:
    """The range of ids of an encoder's embeddings. None below `last_id` will ever be added."""

    first_id: int
    last_id: int


@dataclass(frozen=True, eq=False)
class Stretch:
    """Embeddings `[W, D]` of consecutive windows of a recording, from window `first_index` on."""

    sha256: str
    first_index: int
    vectors: npt.NDArray[np.float32]


class EmbeddingStore:
    """The recordings and embeddings tables."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def recordings(self, uri_keys: Sequence[str], *, only_read: bool = False) -> dict[str, Recording]:
        """By URI key, its recording; unknown ones are left out.

        With `only_read`, so are those that only an earlier decoder has read.
        """
        by_uri_key: dict[str, Recording] = {}
        with self._db.read() as connection:
            for chunk in in_chunks(uri_keys):
                for row in connection.execute(select(recordings).where(recordings.c.uri_key.in_(chunk))):
                    if row.reading == READING or not only_read:
                        by_uri_key[row.uri_key] = _recording(row)
        return by_uri_key

    def recording_of(self, sha256: str) -> Recording | None:
        """The recording with this content, under any URI."""
        with self._db.read() as connection:
            query = select(recordings).where(recordings.c.sha256 == sha256).order_by(recordings.c.reading.desc())
            row = connection.execute(query.limit(1)).one_or_none()
        return _recording(row) if row else None

    def is_read(self, sha256: str) -> bool:
        """Whether the present decoder has read the content."""
        query = select(func.count()).where(recordings.c.sha256 == sha256, recordings.c.reading == READING)
        with self._db.read() as connection:
            return bool(connection.scalar(query))

    def unread(self, uri_keys: Sequence[str]) -> set[str]:
        """The URI keys whose recordings only an earlier decoder has read, perhaps in part."""
        unread: set[str] = set()
        with self._db.read() as connection:
            for chunk in in_chunks(uri_keys):
                old = recordings.c.uri_key.in_(chunk) & (recordings.c.reading != READING)
                unread |= set(connection.scalars(select(recordings.c.uri_key).where(old)))
        return unread

    def has_unread(self) -> bool:
        """Whether there are any recordings that only an earlier decoder has read."""
        with self._db.read() as connection:
            return bool(connection.scalar(select(func.count()).where(recordings.c.reading != READING).limit(1)))

    def confirm(self, sha256: str, damage: str) -> None:
        """Record that the present decoder reads the content as the earlier one did."""
        with self._db.write() as connection:
            connection.execute(
                update(recordings).where(recordings.c.sha256 == sha256).values(reading=READING, damage=damage)
            )

    def forget_unread(self, sha256: str) -> None:
        """Delete the embeddings, frames and predictions of a content that the present decoder reads differently.

        Does nothing if another worker has done it before.
        """
        old = (recordings.c.sha256 == sha256) & (recordings.c.reading != READING)
        with self._db.write() as connection:
            _lock_ids(connection, shared=False)
            keys = connection.scalars(delete(recordings).where(old).returning(recordings.c.uri_key)).all()
            if not keys:
                return
            connection.execute(delete(predictions).where(predictions.c.uri_key.in_(keys)))
            connection.execute(delete(frames).where(frames.c.sha256 == sha256))
            deletion = delete(embeddings).where(embeddings.c.sha256 == sha256)
            rows = connection.execute(deletion.returning(embeddings.c.encoder_version, embeddings.c.dtype)).all()
            for encoder_version, dtype in {(row.encoder_version, row.dtype) for row in rows}:
                _move_first(connection, encoder_version, dtype)

    def forget_unused(self, uri_keys: Sequence[str]) -> int:
        """Delete recordings that no task has, and the embeddings and frames of contents that are left without one.

        Returns how many recordings there were.
        """
        has_task = exists().where(tasks.c.uri_key == recordings.c.uri_key)
        if not uri_keys:
            return 0
        with self._db.write() as connection:
            _lock_ids(connection, shared=False)
            unused = select(recordings.c.uri_key).where(recordings.c.uri_key.in_(uri_keys), ~has_task)
            keys = connection.scalars(unused.order_by(recordings.c.uri_key).with_for_update(skip_locked=True)).all()
            deleted = delete(recordings).where(recordings.c.uri_key.in_(keys)).returning(recordings.c.sha256)
            sha256s = connection.scalars(deleted).all()
            has_recording = exists().where(recordings.c.sha256 == embeddings.c.sha256)
            deletion = delete(embeddings).where(embeddings.c.sha256.in_(sha256s), ~has_recording)
            rows = connection.execute(deletion.returning(embeddings.c.encoder_version, embeddings.c.dtype)).all()
            for encoder_version, dtype in {(row.encoder_version, row.dtype) for row in rows}:
                _move_first(connection, encoder_version, dtype)
            has_recording = exists().where(recordings.c.sha256 == frames.c.sha256)
            connection.execute(delete(frames).where(frames.c.sha256.in_(sha256s), ~has_recording))
        return len(sha256s)

    def put_recording(self, uri_key: str, recording: Recording) -> None:
        """Store which content the URI key leads to now."""
        self.put_recordings({uri_key: recording})

    def put_recordings(self, by_uri_key: Mapping[str, Recording]) -> None:
        """Store which content each URI key leads to now."""
        rows = [
            {
                "uri_key": uri_key,
                "sha256": recording.sha256,
                "num_windows": recording.num_windows,
                "duration_s": recording.duration_s,
                "damage": recording.damage,
                "reading": READING,
            }
            for uri_key, recording in sorted(by_uri_key.items())
        ]
        statement = self._db.insert(recordings)
        fresh = {name: statement.excluded[name] for name in rows[0] if name != "uri_key"} if rows else {}
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
        """Store the embeddings `[W, D]` of consecutive windows; those that are stored already stay as they are."""
        self.put_all([Stretch(sha256, first_index, vectors)], encoder_version, dtype)

    def put_all(self, stretches: Sequence[Stretch], encoder_version: str, dtype: str) -> None:
        """Store the embeddings of several recordings; those that are stored already stay as they are."""
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

    def get(self, wanted: Sequence[Recording], encoder_version: str, dtype: str) -> dict[str, npt.NDArray[np.float32]]:
        """By content hash, the embeddings `[W, D]` of the recordings of which every window is stored."""
        expected = {recording.sha256: recording.num_windows for recording in wanted}
        rows: dict[str, list[bytes]] = {sha256: [] for sha256 in expected}
        with self._db.read(by_index=True) as connection:
            query = (
                select(embeddings.c.sha256, embeddings.c.vector)
                .where(self._db.among(embeddings.c.sha256, "contents"), _of_encoder(encoder_version, dtype))
                .order_by(embeddings.c.sha256, embeddings.c.window_index)
            )
            for chunk in in_chunks(expected):
                for sha256, vector in connection.execute(query, {"contents": chunk}):
                    rows[sha256].append(vector)
        return {
            sha256: np.frombuffer(b"".join(vectors), "<f4").reshape(len(vectors), -1)
            for sha256, vectors in rows.items()
            if vectors and len(vectors) == expected[sha256]
        }

    def extent(self, encoder_version: str, dtype: str) -> Extent | None:
        """The range of ids of the encoder's embeddings; None if there are none."""
        of_encoder = _of_encoder(encoder_version, dtype)
        with self._db.read() as connection:
            _lock_ids(connection, shared=False)
            first = connection.scalar(select(func.min(embeddings.c.id)).where(of_encoder))
            last = connection.scalar(select(func.max(embeddings.c.id)).where(of_encoder))
        return None if first is None or last is None else Extent(first, last)

    def rows(self, encoder_version: str, dtype: str, *, after: int, until: int, limit: int) -> Sequence[Any]:
        """Up to `limit` embeddings after id `after`, as (id, sha256, window_index, vector) in the order of ids."""
        query = (
            select(embeddings.c.id, embeddings.c.sha256, embeddings.c.window_index, embeddings.c.vector)
            .where(_of_encoder(encoder_version, dtype), embeddings.c.id > after, embeddings.c.id <= until)
            .order_by(embeddings.c.id)
            .limit(limit)
        )
        with self._db.read() as connection:
            return connection.execute(query).all()

    def forget(self, encoder_version: str) -> int:
        """Delete all embeddings and frames of an encoder version. Returns how many embeddings there were."""
        with self._db.write() as connection:
            connection.execute(delete(frames).where(frames.c.encoder_version == encoder_version))
            return connection.execute(
                delete(embeddings).where(embeddings.c.encoder_version == encoder_version)
            ).rowcount

    def count(self, encoder_version: str | None = None) -> int:
        """How many window embeddings are stored: of all encoders, or of one version."""
        query = select(func.count()).select_from(embeddings)
        if encoder_version is not None:
            query = query.where(embeddings.c.encoder_version == encoder_version)
        with self._db.read() as connection:
            return int(connection.scalar(query) or 0)


def _recording(row: Row[Any]) -> Recording:
    return Recording(row.sha256, row.num_windows, row.duration_s, row.damage)


def _of_encoder(encoder_version: str, dtype: str) -> Any:
    return (embeddings.c.encoder_version == encoder_version) & (embeddings.c.dtype == dtype)


def _move_first(connection: Connection, encoder_version: str, dtype: str) -> None:
    """Give the encoder's first row another id, so that files that were made from all rows are made anew."""
    of_encoder = _of_encoder(encoder_version, dtype)
    first = select(func.min(embeddings.c.id)).where(of_encoder).scalar_subquery()
    row = connection.execute(delete(embeddings).where(embeddings.c.id == first).returning(*embeddings.c)).one_or_none()
    if row is not None:
        moved = {name: value for name, value in row._mapping.items() if name != "id"}
        connection.execute(embeddings.insert().values(moved))


def _lock_ids(connection: Connection, *, shared: bool) -> None:
    """Lock ids until the transaction ends. SQLite needs no lock, because it has one writer at a time."""
    if connection.dialect.name == "postgresql":
        function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        connection.exec_driver_sql(f"SELECT {function}({_ID_LOCK})")
