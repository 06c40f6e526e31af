"""`search` jobs: a search request in the store → the answer that somebody waits for."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from typing import Any

from clapboard.audio.windows import Span
from clapboard.errors import ClapboardError
from clapboard.memo import Memory
from clapboard.plurals import counted
from clapboard.search.example_embedder import ExampleEmbedder
from clapboard.search.project_search import ProjectSearch, require_same
from clapboard.search.search_request import SearchRequest, SoundRequest
from clapboard.search.search_terms import AddressSound, SearchTerms, Sound, TaskSound
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.sources.guarded_http import Deadline
from clapboard.store import Store
from clapboard.store.jobs import Job
from clapboard.store.vectors import VectorFiles
from clapboard.suggest.scoring import Array
from workers.encoder_pool import EncoderPool


class SearchJobs:
    """Answers searches with the encoders that are loaded. Threads share it."""

    def __init__(self, settings: Settings, store: Store, sources: AudioSources, encoders: EncoderPool) -> None:
        self._settings = settings
        self._store = store
        self._sources = sources
        self._encoders = encoders
        self._vector_files = VectorFiles(settings.vectors_dir, store.embeddings, patience_s=settings.search_wait_s)
        self._memory: Memory[Hashable, Array] = Memory()

    def run(self, job: Job) -> str:
        """Answer the job's search if somebody still waits for it; a sentence on what came of it.

        If the request can't be answered as it is, the error is the answer. It isn't tried again: the caller may do so.
        """
        search_id = str(job.payload["search"])
        request = self._store.searches.request(search_id)
        if request is None:
            return "Nobody waits for it any more."
        answer: dict[str, Any]
        try:
            answer = {"matches": self._find(search_id, SearchRequest.model_validate_json(request))}
            outcome = f"{counted(len(answer['matches']), 'place')} found."
        except ClapboardError as error:
            answer = {"status": error.http_status, "error": error.code, "detail": str(error)}
            outcome = f"It can't be answered ({error.code})."
        self._store.searches.answer(search_id, json.dumps(answer))
        return outcome

    def _find(self, search_id: str, request: SearchRequest) -> list[dict[str, Any]]:
        deadline = Deadline(self._settings.search_wait_s)
        search = ProjectSearch.open(self._store, self._vector_files, self._settings.model, request.project)
        encoder = self._encoders.get(search.encoder.model)
        require_same(search.encoder, encoder.identity.version)

        def patience_s() -> float:
            return deadline.remaining_s() if self._store.searches.is_open(search_id) else 0.0

        terms = SearchTerms(request.all_texts, _sounds("like", request.like), _sounds("not_like", request.not_like))
        embedder = ExampleEmbedder(
            lambda: encoder, self._memory, patience_s=patience_s, longest_s=self._settings.max_audio_s
        )
        places = search.find(terms, request.top, embedder, self._sources)
        return [place.as_json(request.project, self._settings.label_studio_url) for place in places]


def _sounds(field: str, requests: Sequence[SoundRequest]) -> tuple[Sound, ...]:
    """The request's sounds, which errors name by their place in it, such as `like[0]`."""
    return tuple(_sound(f"{field}[{index}]", request) for index, request in enumerate(requests))


def _sound(place: str, request: SoundRequest) -> Sound:
    span = None if request.start_s is None or request.end_s is None else Span(request.start_s, request.end_s)
    if request.task is not None:
        return TaskSound(request.task, span)
    return AddressSound(request.audio or "", request.name or f"The sound {place}", span)
