"""Files → embeddings in the store, in three overlapped stages: decode → mel and forward → store.

Decoders fill a bounded queue, one thread runs batches from it through their encoder, another writes what comes out. A
stage that falls behind holds up the one before it, so memory doesn't grow with the files' length or number, and whoever
asks for a file waits, but never in vain: a failure ends the files that it concerns, and no stage.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from clapboard.clap import ClapEncoder, Embeddings, View
from clapboard.errors import ClapboardError, InternalError
from clapboard.logs import describe
from clapboard.sources import SourceFile
from clapboard.store import Store
from clapboard.store.embeddings import Recording, Stretch
from workers.metrics import WorkerMetrics
from workers.window_queue import WindowQueue

BATCH_DELAY_S = 0.02
"""How long a window waits at most for others to share its forward pass."""

_BATCHES_AHEAD = 2
_MIN_WINDOWS_AHEAD = 16
_URGENT_DECODERS = 2
_NOTHING: Embeddings = np.zeros((0, 0), np.float32)
_NAME = "The task's audio"  # what errors call a file: its own name is a hash

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _File:
    """A file on its way. `done` has its recording once all its embeddings are stored, or why they can't be."""

    encoder: ClapEncoder
    source: SourceFile
    urgent: bool
    done: Future[Recording]
    num_windows: int = 0
    duration_s: float = 0.0

    @property
    def key(self) -> tuple[str, str, str]:
        identity = self.encoder.identity
        return identity.version, identity.dtype, self.source.sha256

    def finish(self) -> None:
        with contextlib.suppress(InvalidStateError):  # it failed
            self.done.set_result(Recording(self.source.sha256, self.num_windows, self.duration_s))

    def fail(self, error: ClapboardError) -> None:
        with contextlib.suppress(InvalidStateError):  # it failed before
            self.done.set_exception(error)


@dataclass(frozen=True, eq=False)
class _Piece:
    """A window of a file, or all of it as an encoder with fusion hears it; None behind the last one."""

    file: _File
    window: View | None

    @property
    def urgent(self) -> bool:
        return self.file.urgent

    @property
    def is_window(self) -> bool:
        return self.window is not None

    @property
    def group(self) -> object:
        return self.file.encoder

    @property
    def batch_size(self) -> int:
        return self.file.encoder.batch_size


_Batch = tuple[list[_Piece], list[_Piece], Embeddings]  # all pieces; those that were embedded; `[B, D]`


class Pipeline:
    """Embeds files for whoever asks. Threads share it; closed, it gives what is under way up."""

    def __init__(self, store: Store, metrics: WorkerMetrics, *, num_decoders: int, batch_size: int) -> None:
        self._store = store
        self._metrics = metrics
        self._under_way: dict[tuple[str, str, str], _File] = {}
        self._turn = threading.Lock()
        capacity = max(_MIN_WINDOWS_AHEAD, _BATCHES_AHEAD * batch_size)
        self._windows: WindowQueue[_Piece] = WindowQueue(capacity, BATCH_DELAY_S)
        self._embedded: queue.Queue[_Batch | None] = queue.Queue(_BATCHES_AHEAD)
        self._decoders = ThreadPoolExecutor(num_decoders, "decode")
        self._urgent_decoders = ThreadPoolExecutor(_URGENT_DECODERS, "decode-urgent")
        self._stages = [threading.Thread(target=run, daemon=True) for run in (self._forward_all, self._store_all)]
        for stage in self._stages:
            stage.start()

    def embed(self, encoder: ClapEncoder, source: SourceFile, *, urgent: bool) -> Future[Recording]:
        """The file's recording, once the store has all its embeddings by the encoder. Fails with a `ClapboardError`.

        A file that is under way already is joined.
        """
        file = _File(encoder, source, urgent, Future())
        with self._turn:
            joined = self._under_way.setdefault(file.key, file)
        if joined is not file:
            return joined.done
        file.done.add_done_callback(lambda _: self._leave(file))
        (self._urgent_decoders if urgent else self._decoders).submit(self._decode, file)
        return file.done

    def close(self) -> None:
        """Stop the stages; files that are still under way fail as something to be tried again."""
        self._windows.close()
        for decoders in (self._decoders, self._urgent_decoders):
            decoders.shutdown(cancel_futures=True)
        for stage in self._stages:
            stage.join()
        for file in [*self._under_way.values()]:
            file.fail(InternalError("The worker was stopped: another one tries this again."))

    def _leave(self, file: _File) -> None:
        with self._turn:
            self._under_way.pop(file.key, None)

    def _decode(self, file: _File) -> None:
        began = time.perf_counter()
        try:
            if found := self._stored(file):
                self._metrics.count_cached(1)
                file.num_windows, file.duration_s = found.num_windows, found.duration_s
                file.finish()
                return
            for window in file.encoder.views(file.source.path, name=_NAME):
                if file.done.done() or not self._windows.put(_Piece(file, window)):
                    return
            self._metrics.observe_stage("decode", time.perf_counter() - began)
            self._windows.put(_Piece(file, None))
        except ClapboardError as error:
            file.fail(error)
        except Exception as error:
            file.fail(unforeseen("decoding", error))

    def _stored(self, file: _File) -> Recording | None:
        """The recording, if the same content was embedded before, under another address."""
        version, dtype, sha256 = file.key
        recording = self._store.embeddings.recording_of(sha256)
        if recording is None or not self._store.embeddings.get([recording], version, dtype):
            return None
        return recording

    def _forward_all(self) -> None:
        while pieces := self._windows.take():
            alive = [piece for piece in pieces if piece.window is not None and not piece.file.done.done()]
            try:
                vectors = self._forward(alive)
            except ClapboardError as error:
                alive, vectors = _blamed(alive, error), _NOTHING
            except Exception as error:  # not these files' fault, as far as we know: each is tried again
                alive, vectors = _blamed(alive, unforeseen("embedding", error)), _NOTHING
            self._embedded.put((pieces, alive, vectors))
        self._embedded.put(None)

    def _forward(self, pieces: Sequence[_Piece]) -> Embeddings:
        if not pieces:
            return _NOTHING
        began = time.perf_counter()
        windows = [piece.window for piece in pieces if piece.window is not None]
        vectors = pieces[0].file.encoder.embed_views(windows)
        self._metrics.observe_stage("forward", time.perf_counter() - began)
        self._metrics.observe_batch(len(windows))
        return vectors

    def _store_all(self) -> None:
        while batch := self._embedded.get():
            pieces, alive, vectors = batch
            try:
                self._put(alive, vectors)
            except Exception as error:
                _blamed(alive, unforeseen("storing embeddings", error))
            for piece in pieces:
                if piece.window is None and not piece.file.done.done():
                    self._metrics.count_computed(1)
                    piece.file.finish()

    def _put(self, pieces: Sequence[_Piece], vectors: Embeddings) -> None:
        began = time.perf_counter()
        stretches, start = [], 0
        for file, group in itertools.groupby(pieces, key=lambda piece: piece.file):
            windows = [piece.window for piece in group if piece.window is not None]
            stop = start + len(windows)
            stretches.append(Stretch(file.source.sha256, windows[0].index, vectors[start:stop]))
            file.num_windows, file.duration_s = windows[-1].index + 1, windows[-1].end_s
            start = stop
        if stretches:
            identity = pieces[0].file.encoder.identity
            self._store.embeddings.put_all(stretches, identity.version, identity.dtype)
            self._metrics.observe_stage("store", time.perf_counter() - began)


def unforeseen(doing: str, error: Exception) -> InternalError:
    """The error to record for an exception that nobody foresaw, which is logged here."""
    log.error("%s failed: %s", doing, describe(error))
    kind = type(error).__name__
    return InternalError(f"Something unforeseen failed while {doing} ({kind}): the worker's log says where.")


def _blamed(pieces: Sequence[_Piece], error: ClapboardError) -> list[_Piece]:
    """What is left of the pieces: none."""
    for piece in pieces:
        piece.file.fail(error)
    return []
