"""All embeddings of an encoder as one memory-mapped float16 matrix, beside the SQL rows that it is made from.

SQL is the truth; this is derived from it, one folder per encoder version and dtype, and may be deleted at any time:

    vectors.<generation>   [N, D] float16, in the order in which the rows came
    windows.<generation>   [N] which recording's which window each row is
    manifest.json          how many rows count, from which ids they are, and their checksums; written last

Whoever opens it brings it up to date first, under a lock. Rows are only ever added behind those that count, and what
doesn't fit SQL or its checksums any more is made anew under another generation, so that whoever has mapped the old
files goes on reading them.
"""

from __future__ import annotations

import json
import os
import secrets
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from clapboard.errors import BusyError
from clapboard.store.embeddings import EmbeddingStore, Extent

WINDOW = np.dtype([("sha256", "S32"), ("index", "<i8")])
"""A row's window: the digest of its recording's content, and its place in there."""

# Numbers are told apart five times as fast as digests are.
_HEAD = np.dtype({"names": ["head"], "formats": ["<u8"], "itemsize": WINDOW.itemsize})
_HALF = np.dtype("<f2")
_ROWS_AT_ONCE = 8_192
_ROWS_PER_PUBLICATION = 131_072
_BYTES_AT_ONCE = 1 << 24
_SETTLED_S = 1.0


@dataclass(frozen=True, eq=False)
class Vectors:
    """Embeddings `[N, D]` in float16 as they stood when they were opened, and what each row is."""

    matrix: npt.NDArray[np.float16]  # [N, D], mapped
    windows: npt.NDArray[np.void]  # [N] of WINDOW, mapped

    def __len__(self) -> int:
        return len(self.matrix)

    def rows_of(self, sha256s: Sequence[str]) -> npt.NDArray[np.intp]:
        """The rows of all windows of these recordings, ascending."""
        wanted = _digests(sha256s)
        likely = np.flatnonzero(np.isin(self.windows.view(_HEAD)["head"], wanted.view("<u8")[::4]))
        return likely[np.isin(self.windows["sha256"][likely], wanted)]


class VectorFiles:
    """The folder of vector files, made from an embedding store. Processes may share it, and threads this object."""

    def __init__(self, folder: Path, embeddings: EmbeddingStore, *, patience_s: float = -1) -> None:
        """`patience_s` is how long to wait while somebody else brings the files up to date; -1: until it is done."""
        self._patience_s = patience_s
        self._folder = folder
        self._embeddings = embeddings
        self._whole: dict[Path, tuple[_Manifest, _Stamps]] = {}  # what was seen to be whole, by folder

    def open(self, encoder_version: str, dtype: str) -> Vectors:
        """All embeddings of the encoder, with those that have come since it was opened last.

        Files that nobody has written to since they were seen to be whole aren't read again for that. Raises
        `BusyError` if somebody else is at it for too long.
        """
        folder = self._folder / f"{encoder_version}-{dtype}"
        folder.mkdir(parents=True, exist_ok=True)
        with self._turn(folder):
            extent = self._embeddings.extent(encoder_version, dtype)
            if extent is None:
                _sweep(folder, keep="")
                return Vectors(np.zeros((0, 0), _HALF), np.zeros(0, WINDOW))
            manifest = _Manifest.read(folder)
            if manifest is None or not self._agrees(folder, manifest, encoder_version, dtype, extent):
                manifest = _Manifest(secrets.token_hex(4), extent.first_id)
            manifest = self._extend(folder, manifest, encoder_version, dtype, extent.last_id)
            _sweep(folder, keep=manifest.generation)
            return manifest.map(folder)

    @contextmanager
    def _turn(self, folder: Path) -> Iterator[None]:
        lock = FileLock(folder / "lock", timeout=self._patience_s)
        try:
            lock.acquire()
        except Timeout:
            raise BusyError("The embeddings are being gathered for searches: ask again in a minute.") from None
        try:
            yield
        finally:
            lock.release()

    def _agrees(self, folder: Path, manifest: _Manifest, encoder_version: str, dtype: str, extent: Extent) -> bool:
        """Whether the files are whole, and from rows that are there still: all are forgotten together, or none."""
        if extent.first_id != manifest.first_id or not self._is_whole(folder, manifest):
            return False
        last = manifest.last_id
        rows = self._embeddings.rows(encoder_version, dtype, after=last - 1, until=last, limit=1)
        mapped = manifest.map(folder)
        return bool(rows) and bool(_windows(rows)[0] == mapped.windows[-1])

    def _is_whole(self, folder: Path, manifest: _Manifest) -> bool:
        stamps = _stamps(manifest.vectors(folder), manifest.windows(folder))
        if self._whole.get(folder) == (manifest, stamps):
            return True
        whole = manifest.is_whole(folder)
        # File systems count time in steps: whoever writes right after this look may leave the same stamps.
        if whole and max(modified_at for *_, modified_at in stamps) < time.time() - _SETTLED_S:
            self._whole[folder] = (manifest, stamps)
        return whole

    def _extend(self, folder: Path, manifest: _Manifest, encoder_version: str, dtype: str, last_id: int) -> _Manifest:
        """The manifest of the files with the rows up to `last_id`, published from time to time so that none is lost."""
        if manifest.last_id >= last_id:
            return manifest
        with (
            _opened(manifest.vectors(folder), manifest.count * manifest.dim * _HALF.itemsize) as vectors,
            _opened(manifest.windows(folder), manifest.count * WINDOW.itemsize) as windows,
        ):
            published = manifest.count
            while rows := self._embeddings.rows(
                encoder_version, dtype, after=manifest.last_id, until=last_id, limit=_ROWS_AT_ONCE
            ):
                manifest = manifest.extended(rows, vectors, windows)
                if manifest.count - published >= _ROWS_PER_PUBLICATION:
                    manifest.publish(folder, vectors, windows)
                    published = manifest.count
            manifest.publish(folder, vectors, windows)
        return manifest


@dataclass(frozen=True)
class _Manifest:
    """What counts of the files of a generation."""

    generation: str
    first_id: int  # of the SQL rows
    last_id: int = 0
    count: int = 0
    dim: int = 0
    vectors_crc: int = 0
    windows_crc: int = 0

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The manifest that was published last, if there is one that can be read."""
        try:
            found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            return cls(str(found.pop("generation")), **{name: int(value) for name, value in found.items()})
        except (OSError, ValueError, TypeError, AttributeError, KeyError):
            return None

    def vectors(self, folder: Path) -> Path:
        """The file of the matrix."""
        return folder / f"vectors.{self.generation}"

    def windows(self, folder: Path) -> Path:
        """The file that says what its rows are."""
        return folder / f"windows.{self.generation}"

    def is_whole(self, folder: Path) -> bool:
        """Whether the files hold what was written; 0.3 s for a million windows, once they are in memory."""
        vectors = _crc_of(self.vectors(folder), self.count * self.dim * _HALF.itemsize)
        return vectors == self.vectors_crc and self.windows_crc == _crc_of(
            self.windows(folder), self.count * WINDOW.itemsize
        )

    def map(self, folder: Path) -> Vectors:
        """The rows that count. Copy-on-write, because PyTorch warns of memory that it may not write to."""
        matrix = np.memmap(self.vectors(folder), _HALF, "c", shape=(self.count, self.dim))
        return Vectors(matrix, np.memmap(self.windows(folder), WINDOW, "c", shape=(self.count,)))

    def extended(self, rows: Sequence[Any], vectors: IO[bytes], windows: IO[bytes]) -> Self:
        """The manifest with these rows of SQL, now written behind the others."""
        matrix = np.frombuffer(b"".join(row.vector for row in rows), "<f4").astype(_HALF)
        halves, named = matrix.tobytes(), _windows(rows).tobytes()
        vectors.write(halves)
        windows.write(named)
        return replace(
            self,
            last_id=rows[-1].id,
            count=self.count + len(rows),
            dim=len(matrix) // len(rows),
            vectors_crc=zlib.crc32(halves, self.vectors_crc),
            windows_crc=zlib.crc32(named, self.windows_crc),
        )

    def publish(self, folder: Path, *files: IO[bytes]) -> None:
        """From here on these rows count: written only once they are on disk."""
        for file in files:
            file.flush()
            os.fsync(file.fileno())
        draft = folder / "manifest.json.new"
        with draft.open("w", encoding="utf-8") as text:
            json.dump(asdict(self), text)
            text.flush()
            os.fsync(text.fileno())
        draft.replace(folder / "manifest.json")


_Stamps = tuple[tuple[int, int, float], ...]


def _stamps(*files: Path) -> _Stamps:
    """Inode, size and time of the last change of the files; less than one for each if one is gone."""
    found = [file.stat() for file in files if file.exists()]
    return tuple((stat.st_ino, stat.st_size, stat.st_mtime) for stat in found)


def _digests(sha256s: Sequence[str]) -> npt.NDArray[np.bytes_]:
    return np.array([bytes.fromhex(sha256) for sha256 in sha256s], "S32")


def _windows(rows: Sequence[Any]) -> npt.NDArray[np.void]:
    """`[N]` of WINDOW, of rows of SQL."""
    found = np.zeros(len(rows), WINDOW)
    found["sha256"] = _digests([row.sha256 for row in rows])
    found["index"] = [row.window_index for row in rows]
    return found


def _opened(file: Path, num_bytes: int) -> IO[bytes]:
    """The file, made if need be, to be written to behind its first `num_bytes`."""
    opened = os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
    opened.seek(num_bytes)
    return opened


def _crc_of(file: Path, num_bytes: int) -> int | None:
    """The checksum of the file's first bytes, or None if it is shorter or gone."""
    crc = 0
    try:
        with file.open("rb") as opened:
            while num_bytes and (piece := opened.read(min(num_bytes, _BYTES_AT_ONCE))):
                crc = zlib.crc32(piece, crc)
                num_bytes -= len(piece)
    except OSError:
        return None
    return None if num_bytes else crc


def _sweep(folder: Path, *, keep: str) -> None:
    """Remove files of other generations; whoever has mapped them keeps them until then."""
    for file in folder.iterdir():
        if file.suffix != f".{keep}" and file.name.startswith(("vectors.", "windows.")):
            file.unlink()
    if not keep:
        (folder / "manifest.json").unlink(missing_ok=True)
