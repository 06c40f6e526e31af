"""Predict jobs → their recordings, fetched and embedded in the store; each job fails alone.

A recording is embedded once however many jobs need it, and one that the store has already isn't fetched.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from clapboard.errors import ClapboardError, SourceUnreachable
from clapboard.logs import about
from clapboard.model.clap import ClapEncoder
from clapboard.queue.celery_app import INTERACTIVE, PredictPayload
from clapboard.sources import AudioSources, SourceFile
from clapboard.store import Store
from clapboard.store.embeddings import Recording
from clapboard.store.jobs import Job
from workers.pipeline import Pipeline, timed_out
from workers.unexpected import unexpected_error
from workers.worker_metrics import WorkerMetrics

_FETCHES_AT_ONCE = 8
_LOOK_S = 1.0  # how often to look for what hangs


@dataclass(frozen=True)
class EmbeddedJob:
    """A predict job, and either its recording, embedded in the store, or the error that prevented that.

    For a job with `payload.frames`, the store has the recording's frames, too.
    """

    job: Job
    payload: PredictPayload
    recording: Recording | None = None
    error: ClapboardError | None = None


_Claim = tuple[Job, PredictPayload]


class JobEmbedder:
    """Takes batches of predict jobs through a pipeline. Threads share it."""

    def __init__(
        self,
        store: Store,
        sources: AudioSources,
        pipeline: Pipeline,
        metrics: WorkerMetrics,
        *,
        timeout_s: float = math.inf,
    ) -> None:
        """A fetch may take `timeout_s`: long after its own time-out, so that only one that hangs does."""
        self._timeout_s = timeout_s
        self._fetching: dict[int, float] = {}  # by job, since when
        self._store = store
        self._sources = sources
        self._pipeline = pipeline
        self._metrics = metrics
        self._fetchers = ThreadPoolExecutor(_FETCHES_AT_ONCE, "fetch")

    def run(self, jobs: Sequence[Job], encoder: ClapEncoder) -> Iterator[list[EmbeddedJob]]:
        """Every job once, as soon as its recording is done, in lists of those that are done at the same time."""
        claims = [(job, PredictPayload.model_validate(job.payload)) for job in jobs]
        stored = self._stored(claims, encoder)
        at_hand = [EmbeddedJob(job, payload, stored[job.id]) for job, payload in claims if job.id in stored]
        self._metrics.count_cached(len(at_hand))
        if at_hand:
            yield at_hand
        missing = [(job, payload) for job, payload in claims if job.id not in stored]
        yield from self._fetch_and_embed(missing, encoder)

    def close(self) -> None:
        """Fetch and embed no more: closes the pipeline too."""
        self._fetchers.shutdown(cancel_futures=True)
        self._pipeline.close()

    def _stored(self, claims: Sequence[_Claim], encoder: ClapEncoder) -> dict[int, Recording]:
        """By job, the recordings of which the store has all that the job needs: embeddings, and perhaps frames."""
        recordings = self._store.embeddings.recordings([payload.uri_key for _, payload in claims], only_read=True)
        key = encoder.identity.version, encoder.identity.dtype
        embedded = self._store.embeddings.get(list(recordings.values()), *key)
        on_frames = {payload.uri_key for _, payload in claims if payload.frames} & recordings.keys()
        framed = self._store.frames.stored([recordings[uri_key] for uri_key in on_frames], *key) if on_frames else set()
        stored: dict[int, Recording] = {}
        for job, payload in claims:
            recording = recordings.get(payload.uri_key)
            if recording and recording.sha256 in embedded and (not payload.frames or recording.sha256 in framed):
                stored[job.id] = recording
        return stored

    def _fetch_and_embed(self, claims: Sequence[_Claim], encoder: ClapEncoder) -> Iterator[list[EmbeddedJob]]:
        # A claim waits for its fetch, and then for its embeddings, which it may share with other claims.
        waiting: dict[Future[Any], list[_Claim]] = {
            self._fetchers.submit(self._fetch, job, payload): [(job, payload)] for job, payload in claims
        }
        while waiting:
            done, _ = wait(waiting, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
            ended = self._hanging(waiting)
            self._pipeline.give_up()
            for future in done & waiting.keys():
                for job, payload in waiting.pop(future):
                    result = _result(future)
                    if isinstance(result, SourceFile):
                        urgent = job.queue == INTERACTIVE
                        embedded = self._pipeline.embed(
                            encoder, result, urgent=urgent, channel=payload.channel, frames=payload.frames
                        )
                        waiting.setdefault(embedded, []).append((job, payload))
                    else:
                        ended.append(self._ended(job, payload, result))
            self._remember(ended)
            if ended:
                yield ended

    def _hanging(self, waiting: dict[Future[Any], list[_Claim]]) -> list[EmbeddedJob]:
        """The jobs whose fetch takes too long. They are taken out of what is waited for."""
        since = time.monotonic() - self._timeout_s
        late = {job_id for job_id, began_at in self._fetching.copy().items() if began_at < since}
        futures = [future for future, claims in waiting.items() if any(job.id in late for job, _ in claims)]
        error = timed_out("fetched", self._timeout_s)
        return [self._ended(*claim, error) for future in futures for claim in waiting.pop(future)]

    def _fetch(self, job: Job, payload: PredictPayload) -> SourceFile:
        began = time.perf_counter()
        self._fetching[job.id] = time.monotonic()
        with about(**job.subject):
            try:
                return self._sources.fetch(payload.uri, task_id=job.task if job.task > 0 else None)
            except ClapboardError:
                raise
            except Exception as error:
                raise unexpected_error("fetching", error) from error
            finally:
                self._fetching.pop(job.id, None)
                self._metrics.observe_stage("fetch", time.perf_counter() - began)

    def _ended(self, job: Job, payload: PredictPayload, result: Recording | ClapboardError) -> EmbeddedJob:
        if isinstance(result, Recording):
            return EmbeddedJob(job, payload, result)
        self._metrics.count_audio_error(result.code)
        return EmbeddedJob(job, payload, error=result)

    def _remember(self, ended: Sequence[EmbeddedJob]) -> None:
        """Store which recording is behind each address, and which addresses and hosts failed."""
        self._store.embeddings.put_recordings(
            {each.payload.uri_key: each.recording for each in ended if each.recording is not None}
        )
        failures: dict[str, ClapboardError] = {}
        working: set[str] = set()
        for each in ended:
            if each.error is None:
                working |= {each.payload.uri_key, self._sources.place(each.payload.uri)}
            else:
                failures[each.payload.uri_key] = each.error
                if isinstance(each.error, SourceUnreachable):
                    failures[self._sources.place(each.payload.uri)] = each.error
        self._store.audio_failures.put(failures)
        self._store.audio_failures.forget(working - failures.keys())


def _result(future: Future[Any]) -> SourceFile | Recording | ClapboardError:
    """What the future holds: a file, a recording, or the error that it failed with."""
    error = future.exception()
    if error is None:
        result: SourceFile | Recording = future.result()
        return result
    if isinstance(error, ClapboardError):
        return error
    raise error
