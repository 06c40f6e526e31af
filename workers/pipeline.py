"""Files → embeddings, and perhaps frames, in the store; three overlapped stages: decode → mel and forward → store.

Decoders fill a bounded queue, one thread takes batches from it through their encoder, another stores the results. A
stage that falls behind slows the one before it, so memory doesn't grow with the length or number of files. A failure
ends the files that it concerns, never a stage, so nobody waits in vain.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from clapboard.audio.pieces import LEAST_DAMAGE_S, Condition
from clapboard.audio.windows import SAMPLE_RATE, blocks, overlapping_windows
from clapboard.errors import ClapboardError, InternalError, TimedOut
from clapboard.model.clap import ClapEncoder, View
from clapboard.model.recording_frames import FrameSelection
from clapboard.sources import SourceFile
from clapboard.store import Store
from clapboard.store.embeddings import Recording
from workers.embedded_windows import EmbeddedBatch, EmbeddedWindow, embedded_windows, frame_pieces, stretches
from workers.files_under_way import Entry, FileUnderWay, Key
from workers.unexpected import unexpected_error
from workers.window_queue import WindowQueue
from workers.worker_metrics import WorkerMetrics

BATCH_DELAY_S = 0.02
"""How long a window waits at most for others to share its forward pass."""

_BATCHES_AHEAD = 2
_MIN_WINDOWS_AHEAD = 16
_URGENT_DECODERS = 2
_NAME = "The task's audio"  # what errors call a file: its own name is a hash


class Pipeline:
    """Embeds files. Threads share it. Closing it ends the files that are under way as failed."""

    def __init__(
        self,
        store: Store,
        metrics: WorkerMetrics,
        *,
        num_decoders: int,
        batch_size: int,
        longest_s: float = math.inf,
        timeout_s: float = math.inf,
    ) -> None:
        """`longest_s` is the longest recording that is embedded, `timeout_s` how long that may take: see `give_up`."""
        self._store = store
        self._metrics = metrics
        self._longest_s = longest_s
        self._timeout_s = timeout_s
        self._under_way: dict[Key, FileUnderWay] = {}
        self._lock = threading.Lock()
        capacity = max(_MIN_WINDOWS_AHEAD, _BATCHES_AHEAD * batch_size)
        self._windows: WindowQueue[Entry] = WindowQueue(capacity, BATCH_DELAY_S)
        self._embedded: queue.Queue[EmbeddedBatch | None] = queue.Queue(_BATCHES_AHEAD)
        self._decoders = ThreadPoolExecutor(num_decoders, "decode")
        self._urgent_decoders = ThreadPoolExecutor(_URGENT_DECODERS, "decode-urgent")
        self._stages = [threading.Thread(target=run, daemon=True) for run in (self._forward_all, self._store_all)]
        for stage in self._stages:
            stage.start()

    def embed(
        self, encoder: ClapEncoder, source: SourceFile, *, urgent: bool, channel: str = "", frames: bool = False
    ) -> Future[Recording]:
        """The file's recording, once the store has all its embeddings, and its `frames` if they are asked for.

        Fails with a `ClapboardError`. `channel` is the one to embed, empty for all. A file that is under way already is
        embedded once. The source is released as soon as nothing is read from it any more.
        """
        selection = FrameSelection(encoder.frame_s) if frames else None
        file = FileUnderWay(encoder, source, urgent, self._leave, channel=channel, selection=selection)
        with self._lock:
            with_frames = self._under_way.get(file.key._replace(frames=True))
            under_way = with_frames or self._under_way.setdefault(file.key, file)
        if under_way is not file:
            source.release()
            return under_way.done
        (self._urgent_decoders if urgent else self._decoders).submit(self._decode, file)
        return file.done

    def give_up(self) -> None:
        """Fail the files that have been under way for too long. To be called now and then by whoever waits."""
        since = time.monotonic() - self._timeout_s
        with self._lock:
            overdue = [file for file in self._under_way.values() if file.began_at < since]
        for file in overdue:
            file.fail(timed_out("read and embedded", self._timeout_s))

    def close(self) -> None:
        """Stop the stages. Files that are still under way fail with a retryable error."""
        self._windows.close()
        for decoders in (self._decoders, self._urgent_decoders):
            decoders.shutdown(cancel_futures=True)
        for stage in self._stages:
            stage.join()
        for file in [*self._under_way.values()]:
            file.source.release()
            file.fail(InternalError("The worker was stopped: another one tries this again."))

    def _leave(self, file: FileUnderWay) -> None:
        with self._lock:
            if self._under_way.get(file.key) is file:
                del self._under_way[file.key]

    def _decode(self, file: FileUnderWay) -> None:
        began = time.perf_counter()
        file.began_at = time.monotonic()
        try:
            if stored := self._stored(file):
                self._metrics.count_cached(1)
                file.num_windows, file.duration_s, file.damage = stored.num_windows, stored.duration_s, stored.damage
                file.finish()
                return
            for view in self._views(file):
                if file.done.done() or not self._windows.put(Entry(file, view)):
                    return
            self._metrics.observe_stage("decode", time.perf_counter() - began)
            self._windows.put(Entry(file, None))
        except ClapboardError as error:
            file.fail(error)
        except Exception as error:
            file.fail(unexpected_error("decoding", error))
        finally:
            file.source.release()

    def _views(self, file: FileUnderWay) -> Iterator[View]:
        """The views of the file to embed: with frames, its overlapping windows, which an encoder with fusion adds."""
        readers: list[Callable[..., Iterator[View]]] = []
        if file.selection is None or file.encoder.fusion:
            readers.append(file.encoder.views)
        if file.selection is not None:
            readers.append(overlapping_windows)
        for read in readers:
            file.condition = Condition()
            yield from read(
                file.source.path,
                name=_NAME,
                channel=file.channel,
                longest_s=self._longest_s,
                condition=file.condition,
            )

    def _stored(self, file: FileUnderWay) -> Recording | None:
        """The recording, if the same content was embedded before, under another address."""
        version, dtype, content, needs_frames = file.key
        recording = self._store.embeddings.recording_of(content)
        if recording is not None and not self._store.embeddings.is_read(content):
            recording = self._read_again(file, recording)
        if recording is None or not self._store.embeddings.get([recording], version, dtype):
            return None
        if needs_frames and not self._store.frames.stored([recording], version, dtype):
            return None
        return recording

    def _read_again(self, file: FileUnderWay, earlier: Recording) -> Recording | None:
        """The recording, if reading the file again gives what an earlier release read; else None, and it is forgotten.

        Most are the same, and reading takes a fraction of the time that embedding does.
        """
        condition = Condition()
        try:
            pieces = blocks(
                file.source.path, name=_NAME, channel=file.channel, longest_s=self._longest_s, condition=condition
            )
            duration_s = sum(piece.size for piece in pieces) / SAMPLE_RATE
        except ClapboardError:
            duration_s = math.inf
        if abs(duration_s - earlier.duration_s) > LEAST_DAMAGE_S or condition.cancelled_s:
            self._store.embeddings.forget_unread(file.content)
            return None
        self._store.embeddings.confirm(file.content, condition.damage)
        return replace(earlier, damage=condition.damage)

    def _forward_all(self) -> None:
        # The entries get no name here: it would keep a batch's samples in memory until the next batch comes.
        while batch := self._forwarded(self._windows.take()):
            self._embedded.put(batch)
        self._embedded.put(None)

    def _forwarded(self, entries: Sequence[Entry]) -> EmbeddedBatch | None:
        """The entries' embeddings; None if there are no entries, since the queue is closed."""
        if not entries:
            return None
        alive = [entry for entry in entries if entry.view is not None and not entry.file.done.done()]
        windows: list[EmbeddedWindow] = []
        try:
            windows = self._forward(alive)
        except Exception as error:
            # An unexpected error isn't known to be these files' fault: they are tried again.
            cause = error if isinstance(error, ClapboardError) else unexpected_error("embedding", error)
            _fail_all(alive, cause)
        return EmbeddedBatch(windows, [entry.file for entry in entries if entry.view is None])

    def _forward(self, entries: Sequence[Entry]) -> list[EmbeddedWindow]:
        if not entries:
            return []
        began = time.perf_counter()
        embedded = embedded_windows(entries)
        self._metrics.observe_stage("forward", time.perf_counter() - began)
        self._metrics.observe_batch(len(entries))
        return embedded

    def _store_all(self) -> None:
        while batch := self._embedded.get():
            try:
                self._put(batch)
            except Exception as error:
                cause = unexpected_error("storing embeddings", error)
                _fail_all(batch.windows, cause)
                for file in batch.ended_files:
                    if file.selection:  # its last frames
                        file.fail(cause)
            for file in batch.ended_files:
                if not file.done.done():
                    self._metrics.count_computed(1)
                    file.finish()

    def _put(self, batch: EmbeddedBatch) -> None:
        began = time.perf_counter()
        vectors, pieces = stretches(batch), frame_pieces(batch)
        if vectors or pieces:
            identity = (batch.windows[0].file if batch.windows else batch.ended_files[0]).encoder.identity
            self._store.embeddings.put_all(vectors, identity.version, identity.dtype)
            self._store.frames.put(pieces, identity.version, identity.dtype)
            self._metrics.observe_stage("store", time.perf_counter() - began)


def timed_out(done: str, timeout_s: float) -> TimedOut:
    """The error of audio that wasn't `done` in time."""
    return TimedOut(
        f"The task's audio wasn't {done} within the {timeout_s:g} s of CLAPBOARD_JOB_TIMEOUT_S: the worker's log may "
        "say why; cut it into shorter files, or raise that setting."
    )


def _fail_all(windows: Sequence[Entry | EmbeddedWindow], error: ClapboardError) -> None:
    """Fail the files of the windows."""
    for window in windows:
        window.file.fail(error)
