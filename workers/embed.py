"""Predict jobs → recordings whose embeddings are in the store, with every job's failure its own.

A recording is embedded once however many jobs ask for it, and what the store holds already isn't fetched.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from clapboard.clap import ClapEncoder
from clapboard.errors import ClapboardError
from clapboard.jobs import INTERACTIVE, PredictPayload
from clapboard.logs import about
from clapboard.sources import AudioSources, SourceFile
from clapboard.store import Store
from clapboard.store.embeddings import Recording
from clapboard.store.jobs import Job
from workers.metrics import WorkerMetrics
from workers.pipeline import Pipeline, unforeseen

_FETCHES_AT_ONCE = 8


@dataclass(frozen=True)
class Embedded:
    """A predict job whose recording's embeddings are in the store, or the reason why they can't be."""

    job: Job
    payload: PredictPayload
    recording: Recording | None = None
    error: ClapboardError | None = None


_Claim = tuple[Job, PredictPayload]


class EmbeddingStage:
    """Takes batches of predict jobs through a pipeline. Threads share it."""

    def __init__(self, store: Store, sources: AudioSources, pipeline: Pipeline, metrics: WorkerMetrics) -> None:
        self._store = store
        self._sources = sources
        self._pipeline = pipeline
        self._metrics = metrics
        self._fetchers = ThreadPoolExecutor(_FETCHES_AT_ONCE, "fetch")

    def run(self, jobs: Sequence[Job], encoder: ClapEncoder) -> Iterator[list[Embedded]]:
        """Each job once, as soon as its own recording is done, together with those that are done by then too."""
        claims = [(job, PredictPayload.model_validate(job.payload)) for job in jobs]
        known = self._known([payload.uri_key for _, payload in claims], encoder)
        at_hand = [
            Embedded(job, payload, known[payload.uri_key]) for job, payload in claims if payload.uri_key in known
        ]
        self._metrics.count_cached(len(at_hand))
        if at_hand:
            yield at_hand
        missing = [(job, payload) for job, payload in claims if payload.uri_key not in known]
        waiting: dict[Future[Any], list[_Claim]] = {}
        for claim in missing:
            waiting[self._fetchers.submit(self._fetch, claim[0], claim[1])] = [claim]
        while waiting:
            arrived, _ = wait(waiting, return_when=FIRST_COMPLETED)
            done = []
            for future in arrived:
                for claim in waiting.pop(future):
                    if isinstance(result := _result(future), SourceFile):
                        urgent = claim[0].queue == INTERACTIVE
                        waiting.setdefault(self._pipeline.embed(encoder, result, urgent=urgent), []).append(claim)
                    else:
                        done.append(self._ended(claim, result))
            self._remember(done)
            if done:
                yield done

    def close(self) -> None:
        """Fetch no more."""
        self._fetchers.shutdown(cancel_futures=True)

    def _known(self, uri_keys: Sequence[str], encoder: ClapEncoder) -> dict[str, Recording]:
        """The recordings of those URI keys whose embeddings are complete."""
        found = self._store.embeddings.recordings(uri_keys)
        identity = encoder.identity
        complete = self._store.embeddings.get(list(found.values()), identity.version, identity.dtype)
        return {key: recording for key, recording in found.items() if recording.sha256 in complete}

    def _fetch(self, job: Job, payload: PredictPayload) -> SourceFile:
        began = time.perf_counter()
        with about(**job.subject):
            try:
                return self._sources.fetch(payload.uri, task_id=job.task if job.task > 0 else None)
            except ClapboardError:
                raise
            except Exception as error:
                raise unforeseen("fetching", error) from error
            finally:
                self._metrics.observe_stage("fetch", time.perf_counter() - began)

    def _ended(self, claim: _Claim, result: Recording | ClapboardError) -> Embedded:
        job, payload = claim
        if isinstance(result, Recording):
            return Embedded(job, payload, result)
        self._metrics.count_audio_error(result.code)
        return Embedded(job, payload, error=result)

    def _remember(self, done: Sequence[Embedded]) -> None:
        """Which content lies behind the addresses."""
        self._store.embeddings.put_recordings(
            {one.payload.uri_key: one.recording for one in done if one.recording is not None}
        )


def _result(future: Future[Any]) -> SourceFile | Recording | ClapboardError:
    error = future.exception()
    if error is None:
        found: SourceFile | Recording = future.result()
        return found
    if isinstance(error, ClapboardError):
        return error
    raise error
