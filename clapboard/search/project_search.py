"""Texts and sounds → the places of a project that sound most like them.

A score is the cosine of a window with the query, less that of the project's average window. So 0 is no nearer than
anything there, and searches by text and by sound have one scale, although CLAP's texts lie apart from its sounds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import Self

import numpy as np

from clapboard.audio.windows import Span
from clapboard.errors import ModelError, NotFoundError
from clapboard.labels.label_config import parse_label_config
from clapboard.project.serving import find_serving
from clapboard.search.example_embedder import ExampleEmbedder
from clapboard.search.nearest import Rows, nearest
from clapboard.search.places import Place, join_neighbours, window_span
from clapboard.search.query import centred, direction
from clapboard.search.search_terms import AddressSound, FileSound, SearchTerms, Sound, TaskSound
from clapboard.sources import AudioSources
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.embeddings import Recording
from clapboard.store.tasks import KnownTask
from clapboard.store.vectors import VectorFiles, Vectors
from clapboard.suggest.scoring import Array, mean_direction

_ROWS_IN_AVERAGE = 4_096
_WIDER = 4
"""So many windows for each place are looked at first, and so many times as many if those are too few."""


class ProjectSearch:
    """Searches one project's windows under one encoder, as they were when it was made."""

    def __init__(self, store: Store, vectors: Vectors, project: int, encoder: Encoder, *, channel: str = "") -> None:
        """`channel` is the one that the project's tasks are embedded by, empty for all."""
        self.encoder = encoder
        self._channel = channel
        self._store = store
        self._vectors = vectors
        self._project = project
        self.rows = vectors.rows_of(store.tasks.contents(project))
        """The project's windows, without those of held-out tasks, which nobody may be led to."""

    @classmethod
    def open(cls, store: Store, files: VectorFiles, model: str, project: int) -> Self:
        """The search among what the encoder that serves the project has embedded.

        Raises `NotFoundError` if the project is unknown or nothing of it is embedded, `NoWorkerError` before the first
        worker was up.
        """
        label_space = parse_label_config(store.catalog.project(project).label_config)
        encoder = find_serving(store, model, project, label_space).encoder
        vectors = files.open(encoder.version, encoder.dtype)
        search = cls(store, vectors, project, encoder, channel=label_space.channel)
        if not len(search.rows):
            raise NotFoundError(f"Nothing of project {project} is embedded yet: run `clapboard prelabel -p {project}`.")
        return search

    def find(self, terms: SearchTerms, top: int, embedder: ExampleEmbedder, sources: AudioSources) -> list[Place]:
        """The `top` places most like the terms, best first, without the tasks, or pieces of them, that they name.

        Raises `RequestError` if nothing is wanted, `NotFoundError` for an unknown task, `AudioError`, `SourceError`,
        `LabelConfigError` for an empty text, `ModelError`, `BusyError` if nobody waits any more.
        """
        likes = [centred(self._embed(sound, embedder, sources), self.average) for sound in terms.like]
        dislikes = [centred(self._embed(sound, embedder, sources), self.average) for sound in terms.not_like]
        texts = [centred(*embedder.text(text)) for text in terms.texts]
        tasks = [sound for sound in (*terms.like, *terms.not_like) if isinstance(sound, TaskSound)]
        return self.places(direction([*texts, *likes], dislikes), top, excluded=self._rows_of(tasks))

    def places(self, query: Array, top: int, *, excluded: Rows | None = None) -> list[Place]:
        """The `top` places nearest to the unit-norm query `[D]`, best first, in all rows but the excluded ones.

        Neighbouring windows are one place, down to the first window that would begin a place that isn't shown.
        """
        rows = self.rows if excluded is None else np.setdiff1d(self.rows, excluded, assume_unique=True)
        if not len(rows):
            return []
        num_windows = _WIDER * top
        while True:
            best_rows, cosines = nearest(self._vectors, query, num_windows, among=rows)
            windows = self._vectors.windows[best_rows]
            sha256s = [sha256.hex().ljust(64, "0") for sha256 in windows["sha256"].tolist()]
            tasks = self._tasks_by_content(sha256s)
            num_tasks = {sha256: len(holders) for sha256, holders in tasks.items()}
            ranked = zip(sha256s, windows["index"].tolist(), cosines.tolist(), strict=True)
            runs, is_complete = join_neighbours(ranked, num_tasks, top)
            if is_complete or num_windows >= len(rows):
                break
            num_windows *= _WIDER
        average_score = float(self.average @ query)
        places = [run.place(task, recording, average_score) for run in runs for task, recording in tasks[run.sha256]]
        return places[:top]

    @cached_property
    def average(self) -> Array:
        """The mean `[D]` of the project's windows, or of some thousands of them, the same each time."""
        step = -(-max(1, len(self.rows)) // _ROWS_IN_AVERAGE)
        return self._vectors.matrix[self.rows[::step]].astype(np.float32).mean(axis=0)

    def _embed(self, sound: Sound, embedder: ExampleEmbedder, sources: AudioSources) -> Array:
        """The sound's direction `[D]`. A whole task's comes from the store.

        A fetched file isn't held on disk: it may be gone once it is embedded.
        """
        patience_s = embedder.require_patience()
        if isinstance(sound, FileSound):
            return embedder.sound(sound)
        if isinstance(sound, AddressSound):
            source = sources.fetch(sound.uri, timeout_s=patience_s)
            return embedder.sound(FileSound(source.path, sound.name, sound.span, source.sha256))
        task = self._store.tasks.get(self._project, [sound.task]).get(sound.task)
        if task and sound.span:
            source = sources.fetch(task.uri, task_id=sound.task, timeout_s=patience_s)
            name = f"Task {sound.task}"
            return embedder.sound(FileSound(source.path, name, sound.span, source.sha256, self._channel))
        recordings = self._store.embeddings.recordings([task.uri_key]) if task else {}
        vectors = self._store.embeddings.get(list(recordings.values()), self.encoder.version, self.encoder.dtype)
        if not vectors:
            raise NotFoundError(
                f"Task {sound.task} of project {self._project} isn't embedded: `clapboard jobs` says why, if it was "
                "queued."
            )
        return mean_direction(*vectors.values())

    def _rows_of(self, sounds: Sequence[TaskSound]) -> Rows:
        """The rows of the tasks' windows, or of those that overlap with the pieces that are named."""
        tasks = self._store.tasks.get(self._project, [sound.task for sound in sounds])
        recordings = self._store.embeddings.recordings([task.uri_key for task in tasks.values()])
        parts: list[Rows] = [np.zeros(0, np.intp)]
        for sound in sounds:
            if sound.task in tasks and (recording := recordings.get(tasks[sound.task].uri_key)):
                rows = self._vectors.rows_of([recording.sha256])
                indices = self._vectors.windows["index"][rows].tolist()
                parts.append(rows[[_overlap(sound.span, *window_span(index, recording)) for index in indices]])
        return np.unique(np.concatenate(parts))

    def _tasks_by_content(self, sha256s: Sequence[str]) -> dict[str, list[tuple[KnownTask, Recording]]]:
        """The project's tasks, with their recordings, by the content that they hold."""
        tasks: dict[str, list[tuple[KnownTask, Recording]]] = defaultdict(list)
        for task, recording in self._store.tasks.holding(self._project, sorted(set(sha256s))):
            tasks[recording.sha256].append((task, recording))
        return tasks


def require_same(encoder: Encoder, version: str) -> None:
    """Raises `ModelError` unless the version is that of the encoder that the project was embedded with."""
    if encoder.version != version:
        raise ModelError(
            f"The checkpoint {encoder.model} isn't the one that the workers embedded this project with: use theirs."
        )


def _overlap(span: Span | None, start_s: float, end_s: float) -> bool:
    return span is None or (span.start_s < end_s and start_s < span.end_s)
