"""All embeddings of an encoder as one memory-mapped float16 matrix, built from the embeddings table.

There is a folder per encoder version and dtype. It can be deleted at any time, because the table has everything:

    vectors.<generation>   [N, D] float16, in the order of the table's ids
    windows.<generation>   [N] the recording and window of each row
    manifest.json          how many rows are valid, their range of ids and their checksums; written last

Opening it first brings it up to date, under a lock. New rows are only appended. If the files no longer fit the table or
their checksums, a new generation is built, so that processes that have mapped the old files can go on reading them.
"""

from __future__ import annotations

import json
import os
import secrets
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
from clapboard.settings.state_folder import private_umask
from clapboard.store.embeddings import EmbeddingStore, Extent

WINDOW = np.dtype([("sha256", "S32"), ("index", "<i8")])
"""A row's window: the sha256 of its recording's content, and the window's index."""

# The first 8 bytes of a digest as a number: comparing these is five times as fast.
_HEAD = np.dtype({"names": ["head"], "formats": ["<u8"], "itemsize": WINDOW.itemsize})
_HALF = np.dtype("<f2")
_ROWS_AT_ONCE = 8_192
_ROWS_PER_PUBLICATION = 131_072
_BYTES_AT_ONCE = 1 << 24
_SETTLED_S = 1.0


@dataclass(frozen=True, eq=False)
class Vectors:
    """Embeddings `[N, D]` in float16 at the moment of opening, and the window of each row."""

    matrix: npt.NDArray[np.float16]  # [N, D], mapped
    windows: npt.NDArray[np.void]  # [N] of WINDOW, mapped

    def __len__(self) -> int:
        return len(self.matrix)

    def rows_of(self, sha256s: Sequence[str]) -> npt.NDArray[np.intp]:
        """The indices of the rows of all windows of these recordings, ascending."""
        digests = _digests(sha256s)
        candidates = np.flatnonzero(np.isin(self.windows.view(_HEAD)["head"], digests.view("<u8")[::4]))
        return candidates[np.isin(self.windows["sha256"][candidates], digests)]


class VectorFiles:
    """The folder of vector files. Processes may share the folder, threads this object."""

    def __init__(self, folder: Path, embeddings: EmbeddingStore, *, patience_s: float = -1) -> None:
        """`patience_s` is how long to wait while another process brings the files up to date; -1: without limit."""
        self._patience_s = patience_s
        self._folder = folder
        self._embeddings = embeddings
        self._whole: dict[Path, tuple[_Manifest, _Stamps]] = {}  # by folder, the files whose checksums were right

    def open(self, encoder_version: str, dtype: str) -> Vectors:
        """Bring the encoder's files up to date and map them.

        The checksums are verified only if the files were written to since the last time. Raises `BusyError` if another
        process takes too long to bring them up to date.
        """
        folder = self._folder / f"{encoder_version}-{dtype}"
        folder.mkdir(parents=True, exist_ok=True)
        with self._lock(folder):
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
    def _lock(self, folder: Path) -> Iterator[None]:
        lock = FileLock(folder / "lock", timeout=self._patience_s, mode=0o666 & ~private_umask(folder))
        try:
            lock.acquire()
        except Timeout:
            raise BusyError("The embeddings are being prepared for searches: try again in a minute.") from None
        try:
            yield
        finally:
            lock.release()

    def _agrees(self, folder: Path, manifest: _Manifest, encoder_version: str, dtype: str, extent: Extent) -> bool:
        """Whether the files are whole and the table still has their rows, which are only deleted all together."""
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
        is_whole = manifest.is_whole(folder)
        # File times are coarse, so that a write right after this look may leave the same stamps.
        if is_whole and max(modified_at for *_, modified_at in stamps) < _now_on_disk(folder) - _SETTLED_S:
            self._whole[folder] = (manifest, stamps)
        return is_whole

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
    """The valid part of a generation's files."""

    generation: str
    first_id: int  # of the SQL rows
    last_id: int = 0
    count: int = 0
    dim: int = 0
    vectors_crc: int = 0
    windows_crc: int = 0

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The manifest that was published last; None if there is none that can be read."""
        try:
            content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            return cls(str(content.pop("generation")), **{name: int(value) for name, value in content.items()})
        except (OSError, ValueError, TypeError, AttributeError, KeyError):
            return None

    def vectors(self, folder: Path) -> Path:
        """The file of the matrix."""
        return folder / f"vectors.{self.generation}"

    def windows(self, folder: Path) -> Path:
        """The file of the rows' windows."""
        return folder / f"windows.{self.generation}"

    def is_whole(self, folder: Path) -> bool:
        """Whether the checksums are right. Takes 0.3 s for a million windows, once they are in memory."""
        vectors = _crc_of(self.vectors(folder), self.count * self.dim * _HALF.itemsize)
        return vectors == self.vectors_crc and self.windows_crc == _crc_of(
            self.windows(folder), self.count * WINDOW.itemsize
        )

    def map(self, folder: Path) -> Vectors:
        """Map the valid rows. Copy-on-write, because PyTorch warns about read-only memory."""
        matrix = np.memmap(self.vectors(folder), _HALF, "c", shape=(self.count, self.dim))
        return Vectors(matrix, np.memmap(self.windows(folder), WINDOW, "c", shape=(self.count,)))

    def extended(self, rows: Sequence[Any], vectors: IO[bytes], windows: IO[bytes]) -> Self:
        """Append the table's rows to the files; the manifest that includes them."""
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
        """Make the appended rows valid, once they are on disk."""
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
    """Inode, size and modification time of each of the files that exist."""
    stats = [file.stat() for file in files if file.exists()]
    return tuple((stat.st_ino, stat.st_size, stat.st_mtime) for stat in stats)


def _now_on_disk(folder: Path) -> float:
    """The time by the clock of the folder's file system, which may be another machine's."""
    lock = folder / "lock"
    lock.touch()
    return lock.stat().st_mtime


def _digests(sha256s: Sequence[str]) -> npt.NDArray[np.bytes_]:
    return np.array([bytes.fromhex(sha256) for sha256 in sha256s], "S32")


def _windows(rows: Sequence[Any]) -> npt.NDArray[np.void]:
    """The windows `[N]` of the table's rows, as WINDOW."""
    windows = np.zeros(len(rows), WINDOW)
    windows["sha256"] = _digests([row.sha256 for row in rows])
    windows["index"] = [row.window_index for row in rows]
    return windows


def _opened(file: Path, num_bytes: int) -> IO[bytes]:
    """Open the file, or create it, for writing after its first `num_bytes`."""
    opened = os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
    opened.seek(num_bytes)
    return opened


def _crc_of(file: Path, num_bytes: int) -> int | None:
    """The checksum of the file's first bytes; None if it is shorter or missing."""
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
    """Delete the files of other generations. Processes that have mapped them can go on using them."""
    for file in folder.iterdir():
        if file.suffix != f".{keep}" and file.name.startswith(("vectors.", "windows.")):
            file.unlink()
    if not keep:
        (folder / "manifest.json").unlink(missing_ok=True)
