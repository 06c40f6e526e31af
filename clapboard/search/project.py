"""Texts and sounds → the places of a project that sound most like them, among millions of windows.

All windows are scored by one product in float16, which reads half of what float32 would; the best, with all that
rounding might have put behind them, are then scored again in float32, so that the answer is exact for the vectors as
they are stored.

A score is the cosine of a window with what is searched for, less that of the project's average window: 0 is no nearer
than anything there, and the more, the nearer. So searches by text and by sound have one scale, although CLAP's texts
lie apart from its sounds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import httpx
import numpy as np
import numpy.typing as npt
import torch

from clapboard.audio import WINDOW_S, Span
from clapboard.errors import ModelError, NotFoundError
from clapboard.label_studio.links import task_url
from clapboard.labels import parse_label_config
from clapboard.scoring import Array, mean_direction
from clapboard.search.examples import Listener, OfAddress, OfFile, OfTask, Sound, Wanted
from clapboard.search.query import centred, direction
from clapboard.serving import find_serving
from clapboard.sources import AudioSources
from clapboard.sources.uris import read_uri
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.embeddings import Recording
from clapboard.store.tasks import KnownTask
from clapboard.store.vectors import VectorFiles, Vectors

Rows = npt.NDArray[np.intp]

# A product of unit vectors is off by less than half of this: 2⁻¹¹ because the query is rounded, 2⁻¹¹ because the
# product is, and less than 2⁻¹¹ for what PyTorch adds up in float32.
_BLUR = 2**-8
_ROWS_AT_ONCE = 32_768  # few large products: on a busy machine, threads that meet often mostly wait for each other
_ROWS_IN_AVERAGE = 4_096
_WIDER = 4


@dataclass(frozen=True)
class Place:
    """Where a task sounds like it: windows side by side, with the score of the best one, which begins at `best_s`."""

    task: int
    start_s: float
    end_s: float
    best_s: float
    score: float
    uri: str

    def as_json(self, project: int, label_studio_url: str) -> dict[str, Any]:
        """What may be shown. `uri` stays out: an address may have a signature in it, or be the audio itself."""
        shown = {name: getattr(self, name) for name in ("task", "start_s", "end_s", "best_s", "score")}
        audio = read_uri(self.uri, httpx.URL(label_studio_url)).name
        return shown | {"audio": audio, "url": task_url(label_studio_url, project, self.task)}


class ProjectSearch:
    """Searches one project's windows under one encoder, as they stood when it was made."""

    def __init__(self, store: Store, vectors: Vectors, project: int, encoder: Encoder) -> None:
        self.encoder = encoder
        self._store = store
        self._vectors = vectors
        self._project = project
        self.rows = vectors.rows_of(store.tasks.contents(project))
        """The project's windows. Tasks that are set aside aren't among them: nobody shall be led to some of them."""

    @classmethod
    def open(cls, store: Store, files: VectorFiles, model: str, project: int) -> Self:
        """The search among what the encoder that serves the project has embedded.

        Raises `NotFoundError` if the project is unknown or nothing of it is embedded, `NoWorkerError` before the first
        worker was up.
        """
        label_space = parse_label_config(store.catalog.project(project).label_config)
        encoder = find_serving(store, model, project, label_space).encoder
        opened = cls(store, files.open(encoder.version, encoder.dtype), project, encoder)
        if not len(opened.rows):
            raise NotFoundError(f"Nothing of project {project} is embedded yet: run `clapboard prelabel -p {project}`.")
        return opened

    def find(self, wanted: Wanted, top: int, listener: Listener, sources: AudioSources) -> list[Place]:
        """The `top` places most like what is wanted, best first; nothing of the tasks, or pieces, that it names.

        Raises `RequestError` if nothing is wanted, `NotFoundError` for a task that isn't there, `AudioError`,
        `SourceError`, `LabelConfigError` for an empty text, `ModelError`, `BusyError` if nobody waits any more.
        """
        likes = [centred(self._hear(sound, listener, sources), self.average) for sound in wanted.like]
        dislikes = [centred(self._hear(sound, listener, sources), self.average) for sound in wanted.not_like]
        texts = [centred(*listener.text(text)) for text in wanted.texts]
        named = [sound for sound in (*wanted.like, *wanted.not_like) if isinstance(sound, OfTask)]
        return self.places(direction([*texts, *likes], dislikes), top, but_not=self._rows_of(named))

    def places(self, query: Array, top: int, *, but_not: Rows | None = None) -> list[Place]:
        """The `top` places nearest to the unit-norm query `[D]`, best first, in all rows but some.

        Windows side by side are one place, as far down as no place that isn't shown comes before them.
        """
        rows = self.rows if but_not is None else np.setdiff1d(self.rows, but_not, assume_unique=True)
        if not len(rows):
            return []
        num_windows = _WIDER * top  # so many that a place too many is among them, as a rule
        while True:
            best, scores = nearest(self._vectors, query, num_windows, among=rows)
            windows = self._vectors.windows[best]
            names = [sha256.hex().ljust(64, "0") for sha256 in windows["sha256"].tolist()]
            homes = self._homes(names)
            ranked = zip(names, windows["index"].tolist(), scores.tolist(), strict=True)
            runs, enough = _side_by_side(ranked, {name: len(held) for name, held in homes.items()}, top)
            if enough or num_windows >= len(rows):
                break
            num_windows *= _WIDER
        zero = float(self.average @ query)
        found = [_place(run, zero, task, recording) for run in runs for task, recording in homes[run.sha256]]
        return found[:top]

    @cached_property
    def average(self) -> Array:
        """The mean `[D]` of the project's windows, or of some thousands of them, the same each time."""
        step = -(-max(1, len(self.rows)) // _ROWS_IN_AVERAGE)
        return self._vectors.matrix[self.rows[::step]].astype(np.float32).mean(axis=0)

    def _hear(self, sound: Sound, listener: Listener, sources: AudioSources) -> Array:
        """The sound's direction `[D]`; a whole task's from the store, without hearing it again.

        What is fetched may leave the disk as soon as it was heard.
        """
        patience_s = listener.require_patience()
        if isinstance(sound, OfFile):
            return listener.sound(sound)
        if isinstance(sound, OfAddress):
            source = sources.fetch(sound.uri, timeout_s=patience_s)
            return listener.sound(OfFile(source.path, sound.name, sound.span, source.sha256))
        known = self._store.tasks.get(self._project, [sound.task]).get(sound.task)
        if known and sound.span:
            source = sources.fetch(known.uri, task_id=sound.task, timeout_s=patience_s)
            return listener.sound(OfFile(source.path, f"Task {sound.task}", sound.span, source.sha256))
        recordings = self._store.embeddings.recordings([known.uri_key]) if known else {}
        found = self._store.embeddings.get(list(recordings.values()), self.encoder.version, self.encoder.dtype)
        if not found:
            raise NotFoundError(
                f"Task {sound.task} of project {self._project} isn't embedded: `clapboard jobs` says why, if it was "
                "queued."
            )
        return mean_direction(*found.values())

    def _rows_of(self, named: Sequence[OfTask]) -> Rows:
        """The rows of what the tasks hold, or of the windows that a piece of it lies in."""
        known = self._store.tasks.get(self._project, [sound.task for sound in named])
        recordings = self._store.embeddings.recordings([task.uri_key for task in known.values()])
        found: list[Rows] = [np.zeros(0, np.intp)]
        for sound in named:
            if sound.task in known and (recording := recordings.get(known[sound.task].uri_key)):
                rows = self._vectors.rows_of([recording.sha256])
                indices = self._vectors.windows["index"][rows].tolist()
                found.append(rows[[_overlap(sound.span, *_span(index, recording)) for index in indices]])
        return np.unique(np.concatenate(found))

    def _homes(self, sha256s: Sequence[str]) -> dict[str, list[tuple[KnownTask, Recording]]]:
        """The project's tasks by what they hold."""
        homes: dict[str, list[tuple[KnownTask, Recording]]] = defaultdict(list)
        for task, recording in self._store.tasks.holding(self._project, sorted(set(sha256s))):
            homes[recording.sha256].append((task, recording))
        return homes


@dataclass
class _Run:
    """Windows `first` to `last` of a recording; `best` has the score."""

    sha256: str
    first: int
    last: int
    best: int
    score: float


def require_same(encoder: Encoder, version: str) -> None:
    """Raises `ModelError` unless that version is the one that the project was embedded with."""
    if encoder.version != version:
        raise ModelError(
            f"The checkpoint {encoder.model} isn't the one that the workers embedded this project with: use theirs."
        )


def nearest(vectors: Vectors, query: Array, top: int, *, among: Rows | None = None) -> tuple[Rows, Array]:
    """The rows of the `top` largest cosines with the unit-norm query `[D]` and these, best first.

    `among` restricts it to some rows. Equal cosines come in the order of their rows.
    """
    num_rows = len(vectors) if among is None else len(among)
    top = min(top, num_rows)
    if not top:
        return np.zeros(0, np.intp), np.zeros(0, np.float32)
    blurred = torch.mv(torch.from_numpy(vectors.matrix), torch.from_numpy(query).half()).float()  # [N]
    if among is not None:
        blurred = blurred[torch.from_numpy(among)]
    least = torch.topk(blurred, top, sorted=False).values.min() - _BLUR
    rows = torch.nonzero(blurred >= least).flatten().numpy()
    rows = rows if among is None else among[rows]
    exact = np.concatenate(
        [
            vectors.matrix[rows[start : start + _ROWS_AT_ONCE]].astype(np.float32) @ query
            for start in range(0, len(rows), _ROWS_AT_ONCE)
        ]
    )
    order = np.argsort(-exact, kind="stable")[:top]
    return rows[order], exact[order]


def _side_by_side(
    ranked: Iterable[tuple[str, int, float]], num_homes: dict[str, int], top: int
) -> tuple[list[_Run], bool]:
    """Windows as (sha256, index, score), best first → the first runs that are `top` places; whether there are so many.

    A run is a place in each of its recording's homes. It takes up neighbours until a window begins one place too many.
    """
    runs: dict[int, _Run] = {}  # by rank, and so best first
    beside: dict[tuple[str, int], int] = {}  # the rank of the run that a window is in
    num_places = 0
    for rank, (sha256, index, score) in enumerate(ranked):
        near = sorted(beside[key] for key in ((sha256, index - 1), (sha256, index + 1)) if key in beside)
        if not near and num_places >= top:
            return list(runs.values()), True
        run = runs.setdefault(near[0] if near else rank, _Run(sha256, index, index, index, score))
        joined = runs.pop(near[1]) if len(near) == 2 else run
        run.first, run.last = min(run.first, joined.first, index), max(run.last, joined.last, index)
        for end in (run.first, run.last, index):
            beside[sha256, end] = near[0] if near else rank
        num_places += num_homes.get(sha256, 0) * (1 - len(near))
    return list(runs.values()), False


def _place(run: _Run, zero: float, task: KnownTask, recording: Recording) -> Place:
    start_s, _ = _span(run.first, recording)
    _, end_s = _span(run.last, recording)
    best_s, _ = _span(run.best, recording)
    return Place(task.task, start_s, end_s, best_s, run.score - zero, task.uri)


def _overlap(span: Span | None, start_s: float, end_s: float) -> bool:
    return span is None or (span.start_s < end_s and start_s < span.end_s)


def _span(index: int, recording: Recording) -> tuple[float, float]:
    """From where to where a window of a recording goes, in seconds: `clapboard.audio.windows` is the rule.

    One that is alone holds the whole recording, which is longer than a window where an encoder with fusion heard it.
    """
    if recording.num_windows == 1:
        return 0.0, recording.duration_s
    end_s = min((index + 1) * WINDOW_S, recording.duration_s)
    return max(0.0, end_s - WINDOW_S), end_s
