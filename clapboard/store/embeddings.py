"""Recordings and their window embeddings, cached by content: the same file is embedded once, wherever it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy import delete, func, select

from clapboard.store.database import Database, in_chunks
from clapboard.store.schema import embeddings, recordings


@dataclass(frozen=True)
class Recording:
    """What is known of the file behind a URI."""

    sha256: str
    num_windows: int
    duration_s: float


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
        fresh = {
            "sha256": recording.sha256,
            "num_windows": recording.num_windows,
            "duration_s": recording.duration_s,
        }
        statement = self._db.insert(recordings).values(uri_key=uri_key, **fresh)
        with self._db.write() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=[recordings.c.uri_key], set_=fresh))

    def put(
        self,
        sha256: str,
        encoder_version: str,
        dtype: str,
        first_index: int,
        vectors: npt.NDArray[np.float32],
    ) -> None:
        """Keep the embeddings `[W, D]` of consecutive windows; those that are there already stay as they are."""
        rows = [
            {
                "sha256": sha256,
                "encoder_version": encoder_version,
                "dtype": dtype,
                "window_index": first_index + offset,
                "vector": np.ascontiguousarray(vector, "<f4").tobytes(),
            }
            for offset, vector in enumerate(vectors)
        ]
        if not rows:
            return
        with self._db.write() as connection:
            connection.execute(self._db.insert(embeddings).on_conflict_do_nothing(), rows)

    def get(self, found: Sequence[Recording], encoder_version: str, dtype: str) -> dict[str, npt.NDArray[np.float32]]:
        """Embeddings `[W, D]` by content hash, of those recordings for which every window is there."""
        expected = {recording.sha256: recording.num_windows for recording in found}
        rows: dict[str, list[bytes]] = {sha256: [] for sha256 in expected}
        with self._db.read() as connection:
            for some in in_chunks(expected):
                query = (
                    select(embeddings.c.sha256, embeddings.c.vector)
                    .where(
                        embeddings.c.sha256.in_(some),
                        embeddings.c.encoder_version == encoder_version,
                        embeddings.c.dtype == dtype,
                    )
                    .order_by(embeddings.c.sha256, embeddings.c.window_index)
                )
                for sha256, vector in connection.execute(query):
                    rows[sha256].append(vector)
        return {
            sha256: np.frombuffer(b"".join(vectors), "<f4").reshape(len(vectors), -1)
            for sha256, vectors in rows.items()
            if vectors and len(vectors) == expected[sha256]
        }

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
