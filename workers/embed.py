"""Predict jobs → embeddings: fetch, decode and forward, with every job's failure its own.

Windows of different recordings share a forward pass, and a recording is embedded once however many jobs ask for it. An
hour-long file never lies in memory whole: its windows are embedded and stored as they are decoded.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np

from clapboard import audio
from clapboard.clap import ClapEncoder
from clapboard.errors import ClapboardError, InternalError
from clapboard.jobs import PredictPayload
from clapboard.logs import describe
from clapboard.sources import AudioSources, SourceFile
from clapboard.store import Store
from clapboard.store.embeddings import Recording
from clapboard.store.jobs import Job

_FETCHES_AT_ONCE = 8
_Claim = tuple[Job, PredictPayload]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedded:
    """A predict job whose recording's embeddings are in the store, or the reason why they can't be."""

    job: Job
    payload: PredictPayload
    recording: Recording | None = None
    error: ClapboardError | None = None


@dataclass(eq=False)
class _File:
    """One fetched file on its way, with the jobs that want it."""

    source: SourceFile
    claims: list[_Claim] = field(default_factory=list)
    num_windows: int = 0
    duration_s: float = 0.0
    error: ClapboardError | None = None


class EmbeddingStage:
    """Runs batches of predict jobs through one encoder. Threads may share it."""

    def __init__(self, store: Store, sources: AudioSources, encoder: ClapEncoder) -> None:
        self._store = store
        self._sources = sources
        self._encoder = encoder

    def run(self, jobs: Sequence[Job]) -> Iterator[Embedded]:
        """Each job once, as soon as its own recording is done."""
        claims = [(job, PredictPayload.model_validate(job.payload)) for job in jobs]
        known = self._known([payload.uri_key for _, payload in claims])
        missing = []
        for job, payload in claims:
            if payload.uri_key in known:
                yield Embedded(job, payload, known[payload.uri_key])
            else:
                missing.append((job, payload))
        for arrived in self._fetched(missing):
            wanted: dict[str, _File] = {}
            for (job, payload), source in arrived:
                if isinstance(source, ClapboardError):
                    yield Embedded(job, payload, error=source)
                else:
                    wanted.setdefault(source.sha256, _File(source)).claims.append((job, payload))
            yield from self._embed([*wanted.values()])

    def _known(self, uri_keys: Sequence[str]) -> dict[str, Recording]:
        """The recordings of those URI keys whose embeddings are complete."""
        found = self._store.embeddings.recordings(uri_keys)
        identity = self._encoder.identity
        complete = self._store.embeddings.get(list(found.values()), identity.version, identity.dtype)
        return {key: recording for key, recording in found.items() if recording.sha256 in complete}

    def _fetched(self, claims: Sequence[_Claim]) -> Iterator[list[tuple[_Claim, SourceFile | ClapboardError]]]:
        """What has arrived since the last look, as soon as there is any: a slow source holds up no other."""
        if not claims:
            return
        with ThreadPoolExecutor(min(_FETCHES_AT_ONCE, len(claims))) as pool:
            fetching = {pool.submit(self._fetch, claim): claim for claim in claims}
            waiting = set(fetching)
            while waiting:
                arrived, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield [(claim, future.result()) for future, claim in fetching.items() if future in arrived]

    def _fetch(self, claim: _Claim) -> SourceFile | ClapboardError:
        job, payload = claim
        try:
            return self._sources.fetch(payload.uri, task_id=job.task if job.task > 0 else None)
        except ClapboardError as error:
            return error
        except Exception as error:
            return unforeseen("fetching", error)

    def _embed(self, wanted: Sequence[_File]) -> Iterator[Embedded]:
        """Decode file after file, filling batches across them."""
        batch: list[tuple[_File, audio.Window]] = []
        ended: list[_File] = []
        for file, window in self._windows(wanted):
            if window is None:
                ended.append(file)
            else:
                batch.append((file, window))
            if len(batch) >= self._encoder.batch_size:
                yield from self._flush(batch, ended)
                batch, ended = [], []
        yield from self._flush(batch, ended)

    def _windows(self, wanted: Sequence[_File]) -> Iterator[tuple[_File, audio.Window | None]]:
        """Every file's windows, then None; a file that can't be decoded has its error set."""
        for file in wanted:
            try:
                if not self._was_embedded(file):
                    for window in audio.windows(file.source.path, name="The task's audio"):
                        yield file, window
                        if file.error:
                            break
            except ClapboardError as error:
                file.error = error
            except Exception as error:
                file.error = unforeseen("decoding", error)
            yield file, None

    def _was_embedded(self, file: _File) -> bool:
        """Whether the same content was embedded before, under another address."""
        recording = self._store.embeddings.recording_of(file.source.sha256)
        identity = self._encoder.identity
        if recording is None or not self._store.embeddings.get([recording], identity.version, identity.dtype):
            return False
        file.num_windows, file.duration_s = recording.num_windows, recording.duration_s
        return True

    def _flush(self, batch: list[tuple[_File, audio.Window]], ended: list[_File]) -> Iterator[Embedded]:
        """Embed and store the batch, then give out the files that are complete with it."""
        sound = [(file, window) for file, window in batch if file.error is None]
        try:
            if sound:
                self._forward(sound)
        except ClapboardError as error:
            _blame(sound, error)
        except Exception as error:  # not these clips' fault, as far as we know: each is tried again, alone
            _blame(sound, unforeseen("embedding", error))
        for file in ended:
            recording = Recording(file.source.sha256, file.num_windows, file.duration_s)
            for job, payload in file.claims:
                if file.error is None:
                    self._store.embeddings.put_recording(payload.uri_key, recording)
                    yield Embedded(job, payload, recording)
                else:
                    yield Embedded(job, payload, error=file.error)

    def _forward(self, batch: list[tuple[_File, audio.Window]]) -> None:
        vectors = self._encoder.embed_windows(np.stack([window.waveform for _, window in batch]))  # [B, D]
        identity = self._encoder.identity
        start = 0
        for file, group in itertools.groupby(batch, key=lambda pair: pair[0]):
            windows = [window for _, window in group]
            stop = start + len(windows)
            self._store.embeddings.put(
                file.source.sha256, identity.version, identity.dtype, windows[0].index, vectors[start:stop]
            )
            file.num_windows, file.duration_s = windows[-1].index + 1, windows[-1].end_s
            start = stop


def _blame(batch: list[tuple[_File, audio.Window]], error: ClapboardError) -> None:
    for file, _ in batch:
        file.error = error


def unforeseen(doing: str, error: Exception) -> InternalError:
    """The error to record for an exception that nobody foresaw, which is logged here."""
    log.error("%s failed: %s", doing, describe(error))
    kind = type(error).__name__
    return InternalError(f"Something unforeseen failed while {doing} ({kind}): the worker's log says where.")
