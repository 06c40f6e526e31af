"""`search` jobs: what somebody asked the backend → the answer that they wait for."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from typing import Any

from clapboard.audio import Span
from clapboard.errors import ClapboardError
from clapboard.memory import Memory
from clapboard.search.examples import Listener, OfAddress, OfTask, Sound, Wanted
from clapboard.search.project import ProjectSearch, require_same
from clapboard.search.request import SearchRequest, SoundRequest
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.sources.guarded_http import Deadline
from clapboard.store import Store
from clapboard.store.jobs import Job
from clapboard.store.vectors import VectorFiles
from workers.encoders import EncoderPool


class Searcher:
    """Answers searches with the encoders that are loaded. Threads may share it."""

    def __init__(self, settings: Settings, store: Store, sources: AudioSources, encoders: EncoderPool) -> None:
        self._settings = settings
        self._store = store
        self._sources = sources
        self._encoders = encoders
        self._files = VectorFiles(settings.vectors_dir, store.embeddings, patience_s=settings.search_wait_s)
        self._memory: Memory[Hashable] = Memory()

    def run(self, job: Job) -> str:
        """Answer the search, if somebody still waits; a word on what came of it.

        A search that can't be answered as it was asked has that as its answer: asking again is up to whoever asked.
        """
        search = str(job.payload["search"])
        asked = self._store.searches.request(search)
        if asked is None:
            return "Nobody waits for it any more."
        answer: dict[str, Any]
        try:
            answer = {"matches": self._find(search, SearchRequest.model_validate_json(asked))}
            outcome = f"{len(answer['matches'])} places were found."
        except ClapboardError as error:
            answer = {"status": error.http_status, "error": error.code, "detail": str(error)}
            outcome = f"It can't be answered ({error.code})."
        self._store.searches.answer(search, json.dumps(answer))
        return outcome

    def _find(self, search: str, request: SearchRequest) -> list[dict[str, Any]]:
        deadline = Deadline(self._settings.search_wait_s)
        found = ProjectSearch.open(self._store, self._files, self._settings.model, request.project)
        encoder = self._encoders.get(found.encoder.model)
        require_same(found.encoder, encoder.identity.version)

        def patience_s() -> float:
            return deadline.remaining_s() if self._store.searches.is_open(search) else 0.0

        wanted = Wanted(request.all_texts, _sounds("like", request.like), _sounds("not_like", request.not_like))
        listener = Listener(lambda: encoder, self._memory, patience_s=patience_s)
        places = found.find(wanted, request.top, listener, self._sources)
        return [place.as_json(request.project, self._settings.label_studio_url) for place in places]


def _sounds(field: str, sounds: Sequence[SoundRequest]) -> tuple[Sound, ...]:
    """The request's sounds, which errors call by their place in it."""
    return tuple(_sound(f"{field}[{number}]", sound) for number, sound in enumerate(sounds))


def _sound(place: str, sound: SoundRequest) -> Sound:
    span = None if sound.start_s is None or sound.end_s is None else Span(sound.start_s, sound.end_s)
    if sound.task is not None:
        return OfTask(sound.task, span)
    return OfAddress(sound.audio or "", f"The sound {place}", span)
