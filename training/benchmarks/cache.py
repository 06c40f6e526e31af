"""Caches embeddings on disk, so that a killed run can continue, and the next run can reuse them."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from clapboard.errors import TrainingError
from clapboard.model.clap import EncoderIdentity
from clapboard.suggest.scoring import Array

_FILE = "embeddings.db"
_RECIPE = "1"
"""Incremented when the same file and encoder would give another embedding."""

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS embeddings (
        path BLOB NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, encoder TEXT NOT NULL,
        embedding BLOB NOT NULL, PRIMARY KEY (path, encoder)
    ) WITHOUT ROWID
"""


@dataclass(frozen=True)
class FileState:
    """The path, size and modification time of a file, which identify its content."""

    path: bytes
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """The file's current state. Raises `OSError` if it doesn't exist."""
        status = path.stat()
        return cls(os.fsencode(path.resolve()), status.st_size, status.st_mtime_ns)


class EmbeddingCache:
    """One encoder's embeddings by file. Several runs may share the folder, but only one thread may use the object.

    All methods raise `TrainingError` if the folder can't be written or its database can't be used.
    """

    def __init__(self, folder: Path, identity: EncoderIdentity) -> None:
        self._encoder = f"{identity.version}:{identity.dtype}:{_RECIPE}"
        self._file = folder / _FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self._file, isolation_level=None, timeout=60.0)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error
        self._query("PRAGMA journal_mode = WAL")
        self._query("PRAGMA synchronous = NORMAL")  # a power cut may cost the last clips, no more
        self._query(_SCHEMA)

    def get(self, file: FileState) -> Array | None:
        """The file's embedding `[D]`; None if there is none, or if the file has changed."""
        query = "SELECT embedding FROM embeddings WHERE path = ? AND encoder = ? AND size = ? AND mtime_ns = ?"
        rows = self._query(query, file.path, self._encoder, file.size, file.mtime_ns)
        return np.frombuffer(rows[0][0], np.float32) if rows else None

    def put(self, file: FileState, embedding: Array) -> None:
        """Stores the file's embedding `[D]`; it is kept even if the process is killed afterwards."""
        row = (file.path, file.size, file.mtime_ns, self._encoder, embedding.tobytes())
        self._query("REPLACE INTO embeddings VALUES (?, ?, ?, ?, ?)", *row)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def _query(self, query: str, *values: object) -> list[tuple[bytes]]:
        try:
            return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            self._database.close()
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> TrainingError:
        return TrainingError(f"Cache {self._file} can't be used ({error}): delete it, or name another folder.")
