"""Frames of recordings, cached by content in pieces, for projects whose label config has controls about regions.

A piece is what one window adds, so that an hour is written and read a few pieces at a time. Vectors are float16, which
moves an embedding by a cosine of about 1e-7; levels are whole dB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Row, func, select

from clapboard.audio.levels import NUM_BANDS
from clapboard.audio.windows import SAMPLE_RATE, num_overlapping_windows
from clapboard.model.recording_frames import FramePiece, RecordingFrames
from clapboard.store.database import Database, in_chunks
from clapboard.store.embeddings import Recording
from clapboard.store.schema import frames

_PIECES_AT_ONCE = 60  # five minutes, 1 MB of 512 dimensions
_HALF = np.dtype("<f2")


@dataclass(frozen=True, eq=False)
class StoredPiece:
    """A piece of a recording's frames, and its place among the recording's pieces."""

    sha256: str
    index: int
    frame_s: float
    piece: FramePiece


class FrameStore:
    """The frames table."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, pieces: Sequence[StoredPiece], encoder_version: str, dtype: str) -> None:
        """Store the pieces; those that are stored already stay as they are."""
        rows = [
            {
                "sha256": each.sha256,
                "encoder_version": encoder_version,
                "dtype": dtype,
                "piece_index": each.index,
                "frame_s": each.frame_s,
                "first_frame": each.piece.first_frame,
                "vectors": each.piece.frames.astype(_HALF).tobytes(),
                "levels": np.clip(np.round(each.piece.levels), -127, 127).astype(np.int8).tobytes(),
                "start_s": each.piece.start_s,
                "end_s": each.piece.end_s,
                "window_vector": each.piece.embedding.astype(_HALF).tobytes(),
            }
            for each in pieces
        ]
        if rows:
            with self._db.write() as connection:
                connection.execute(self._db.insert(frames).on_conflict_do_nothing(), rows)

    def get(self, recording: Recording, encoder_version: str, dtype: str) -> RecordingFrames | None:
        """All frames of a recording in float32; None unless every piece of it is stored.

        They are up to 25 MB an hour of 512 dimensions: `pieces` gives them a few at a time.
        """
        if not self.stored([recording], encoder_version, dtype):
            return None
        frame_s, pieces = 0.0, []
        for each in self.pieces(recording, encoder_version, dtype):
            frame_s = each.frame_s
            pieces.append(each.piece)
        return RecordingFrames.of(pieces, frame_s) if pieces else None

    def stored(self, recordings: Sequence[Recording], encoder_version: str, dtype: str) -> set[str]:
        """The content hashes of the recordings of which every piece is stored."""
        expected = {
            recording.sha256: num_overlapping_windows(round(recording.duration_s * SAMPLE_RATE))
            for recording in recordings
        }
        complete: set[str] = set()
        query = (
            select(frames.c.sha256, func.count().label("num_pieces"))
            .where(self._db.among(frames.c.sha256, "contents"), _of_encoder(encoder_version, dtype))
            .group_by(frames.c.sha256)
        )
        with self._db.read(by_index=True) as connection:
            for chunk in in_chunks(expected):
                for row in connection.execute(query, {"contents": chunk}):
                    if row.num_pieces == expected[row.sha256]:
                        complete.add(row.sha256)
        return complete

    def pieces(self, recording: Recording, encoder_version: str, dtype: str) -> Iterator[StoredPiece]:
        """The stored pieces of a recording, in order, read a few at a time."""
        last = -1
        while True:
            query = (
                select(frames)
                .where(frames.c.sha256 == recording.sha256, _of_encoder(encoder_version, dtype))
                .where(frames.c.piece_index > last)
                .order_by(frames.c.piece_index)
                .limit(_PIECES_AT_ONCE)
            )
            with self._db.read() as connection:
                rows = connection.execute(query).all()
            yield from map(_stored_piece, rows)
            if len(rows) < _PIECES_AT_ONCE:
                return
            last = rows[-1].piece_index


def _stored_piece(row: Row[Any]) -> StoredPiece:
    embedding = _vectors(row.window_vector)
    levels = np.frombuffer(row.levels, np.int8).reshape(-1, NUM_BANDS).astype(np.float32)
    piece = FramePiece(
        row.first_frame, _vectors(row.vectors).reshape(-1, embedding.size), levels, embedding, row.start_s, row.end_s
    )
    return StoredPiece(row.sha256, row.piece_index, row.frame_s, piece)


def _vectors(content: bytes) -> npt.NDArray[np.float32]:
    return np.frombuffer(content, _HALF).astype(np.float32)


def _of_encoder(encoder_version: str, dtype: str) -> Any:
    return (frames.c.encoder_version == encoder_version) & (frames.c.dtype == dtype)
