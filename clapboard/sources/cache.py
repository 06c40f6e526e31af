"""Fetched audio on disk: bounded in bytes, shared by threads and processes, whole or absent.

    <folder>/ab/<key>.<sha256>    a file, named by its key and its content, so that a hit needs no hashing
    <folder>/ab/<key>.part        a file that is being written
    <folder>/locks/abc.lock       the lock for writing keys that start with abc, which bounds the number of locks

Files are written as .part, synced and renamed. A reader holds a shared lock on its file, which the system releases with
the process. So a file in use is never evicted, and a crash leaves nothing to clean up.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from clapboard.errors import SourceTooLarge, SourceUnavailable
from clapboard.settings.state_folder import private_umask

_PART = "part"


class _ReadLock:
    """A shared lock on a cached file, held by an open descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.release = weakref.finalize(self, os.close, descriptor)


@dataclass(frozen=True)
class SourceFile:
    """A fetched file. It stays on disk until it is released, or this object is deleted."""

    path: Path
    sha256: str
    lock: _ReadLock | None = field(default=None, repr=False, compare=False)

    def release(self) -> None:
        """Close the file, which is no longer needed, even if this object is still referred to. May be repeated."""
        if self.lock is not None:
            self.lock.release()


class Sink:
    """Where a download writes to: counts and hashes the bytes, and refuses more than `max_bytes`."""

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        self._file = file
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._hash = hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        """Append the chunk. Raises `SourceTooLarge`."""
        self.require(self.num_bytes + len(chunk))
        self._file.write(chunk)
        self._hash.update(chunk)
        self.num_bytes += len(chunk)

    def require(self, num_bytes: int) -> None:
        """Raise `SourceTooLarge` if a file of so many bytes is too large."""
        if num_bytes > self.max_bytes:
            raise SourceTooLarge(
                f"The task's audio is over {self.max_bytes / 1e6:g} MB, the most that CLAPBOARD_MAX_AUDIO_MB allows."
            )

    def restart(self) -> None:
        """Discard what was written."""
        self._file.seek(0)
        self._file.truncate()
        self.num_bytes = 0
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The sha256 of all bytes written, in hexadecimal."""
        return self._hash.hexdigest()


class AudioCache:
    """Files by key, each filled once by the first caller."""

    def __init__(self, folder: Path, *, max_bytes: int, max_file_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_file_bytes = max_file_bytes
        # Listing all files is slow, so it is done only after so many new bytes, and makes room for as many more, which
        # keeps the bound.
        self._slack_bytes = max_bytes // 64
        self._num_bytes_unseen = self._slack_bytes
        self._counter_lock = threading.Lock()

    def get(self, key: str, fill: Callable[[Sink], None], timeout_s: float) -> SourceFile:
        """The key's file, written by `fill` if it isn't there. `key` is a sha256 in hexadecimal.

        Raises what `fill` raises, and `SourceUnavailable` if another thread or process doesn't finish filling the key
        in `timeout_s`, or if the disk can't be written.
        """
        try:
            cached = self._cached(key)
            if cached is not None:
                return cached
            with self._lock(key, timeout_s):
                cached = self._cached(key)
                if cached is not None:
                    return cached
                filled, num_bytes = self._filled(key, fill)
            self._make_room(num_bytes)
        except Timeout:
            raise SourceUnavailable(
                f"The audio wasn't there after {timeout_s:g} s, because another worker is still fetching it."
            ) from None
        except OSError as error:
            raise SourceUnavailable(f"The audio cache {self._folder} can't be written: {error.strerror}.") from error
        return filled

    def forget(self, keys: Iterable[str]) -> int:
        """Delete the keys' files; readers that have one open keep it until they close it. Returns how many went."""
        count = 0
        for key in keys:
            for path in (self._folder / key[:2]).glob(f"{key}.*"):
                path.unlink(missing_ok=True)
                count += 1
        return count

    def _lock(self, key: str, timeout_s: float) -> FileLock:
        locks = self._folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        return FileLock(locks / f"{key[:3]}.lock", timeout=timeout_s, mode=0o666 & ~private_umask(locks))

    def _cached(self, key: str) -> SourceFile | None:
        """The key's file, locked and marked as just used; None if there is none."""
        for path in (self._folder / key[:2]).glob(f"{key}.*"):
            if path.suffix == f".{_PART}":
                continue
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue
            cached = SourceFile(path, path.suffix.removeprefix("."), _ReadLock(descriptor))
            if _try_lock(descriptor, fcntl.LOCK_SH) and os.fstat(descriptor).st_nlink:
                os.utime(descriptor)
                return cached
            cached.release()
        return None

    def _filled(self, key: str, fill: Callable[[Sink], None]) -> tuple[SourceFile, int]:
        """The key's new file, locked, and its size in bytes."""
        part = self._folder / key[:2] / f"{key}.{_PART}"
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                sink = Sink(file, self._max_file_bytes)
                fill(sink)
                file.flush()
                os.fsync(file.fileno())
            descriptor = os.open(part, os.O_RDONLY)
            filled = SourceFile(part.with_name(f"{key}.{sink.sha256}"), sink.sha256, _ReadLock(descriptor))
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            part.rename(filled.path)
        finally:
            part.unlink(missing_ok=True)
        return filled, sink.num_bytes

    def _make_room(self, num_new_bytes: int) -> None:
        """Remove unfinished files and, least recently used first, files beyond the bound."""
        with self._counter_lock:
            self._num_bytes_unseen += num_new_bytes
            if self._num_bytes_unseen < self._slack_bytes:
                return
            self._num_bytes_unseen = 0
        files = []
        for path in self._files():
            if path.suffix == f".{_PART}":
                self._remove_idle(path)
                continue
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            files.append((stat.st_mtime_ns, stat.st_size, path))
        num_bytes_over = sum(size for _, size, _ in files) - (self._max_bytes - self._slack_bytes)
        for _, size, path in sorted(files):
            if num_bytes_over <= 0:
                return
            if self._remove_idle(path):
                num_bytes_over -= size

    def _files(self) -> Iterator[Path]:
        return self._folder.glob("[0-9a-f][0-9a-f]/*")

    def _remove_idle(self, path: Path) -> bool:
        """Remove the file unless it is being read or written. Returns whether it was removed."""
        try:
            with self._lock(path.name, timeout_s=0):
                descriptor = os.open(path, os.O_RDWR)
                try:
                    if not _try_lock(descriptor, fcntl.LOCK_EX):
                        return False
                    path.unlink()
                finally:
                    os.close(descriptor)
        except (Timeout, FileNotFoundError):
            return False
        return True


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
