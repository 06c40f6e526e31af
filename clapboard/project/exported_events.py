"""A project's events, as its annotators agree on them or as they are suggested, recording by recording."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any

from clapboard.event_tables.event_row import EventRow, Place, RowRefused, checked, shown
from clapboard.event_tables.recordings import base_name, path_parts
from clapboard.feedback.consensus import Agreed, counted_annotations
from clapboard.feedback.entries import Entry
from clapboard.feedback.people import display_names
from clapboard.label_studio.client import LabelStudioClient
from clapboard.label_studio.records import Task
from clapboard.labels.label_space import LabelSpace
from clapboard.project.agreement import refresh_labels
from clapboard.project.task_index import original_name
from clapboard.store import Store

_TASKS_AT_ONCE = 500
_TOLD = 100  # sentences on what was skipped
_MAX_ADDRESS = 10_000


@dataclass(frozen=True)
class ExportOptions:
    """What is written about each recording."""

    suggestions: bool = False  # instead of what annotators agree on
    model_version: str = ""  # whose suggestions; or a name in Label Studio, which versions may share
    clips_as_events: bool = False  # labels of whole recordings as events from beginning to end
    annotators: str = "id"  # or «name», or «none»
    licence_key: str = "licence"  # in the tasks' data
    source_key: str = "source"


@dataclass
class ExportReport:
    """What an export has done."""

    project: int
    num_rows: int = 0
    num_recordings: int = 0  # that have rows, or that somebody looked through and found nothing in
    num_files: int = 0
    num_unanswered: int = 0  # tasks without an annotation or suggestion
    num_skipped: int = 0  # rows and recordings
    skipped: list[str] = field(default_factory=list)  # a sentence each, the first ones

    def skip(self, sentence: str) -> None:
        """Note what isn't exported, and why."""
        self.num_skipped += 1
        if len(self.skipped) < _TOLD:
            self.skipped.append(sentence)


@dataclass(frozen=True)
class ExportedRecording:
    """The rows of one task."""

    task: int
    uri: str
    name: str
    rows: Sequence[EventRow]
    duration_s: float | None  # if it is known
    data: Mapping[str, Any] = field(default_factory=dict)  # the task's


class EventExport:
    """Reads a project's events, page by page."""

    def __init__(
        self,
        store: Store,
        client: LabelStudioClient,
        project: int,
        label_space: LabelSpace,
        options: ExportOptions,
        report: ExportReport,
    ) -> None:
        self._store = store
        self._client = client
        self._project = project
        self._space = label_space
        self._options = options
        self._report = report
        self._places: Counter[str] = Counter()
        self._files: Counter[str] = Counter()
        self._measured_s: dict[int, float] = {}  # by task of the page, as annotators' pages measured the recordings

    def recordings(self, on_task: Callable[[int], object] = lambda _count: None) -> Iterator[ExportedRecording]:
        """The recordings with an answer, or with a suggestion, by ascending task. Raises `LabelStudioError`.

        `on_task` gets the number of tasks that were gone through since it was called last.
        """
        self._count_names()
        if not self._options.suggestions:
            self._store.ledger.catch_up()
            refresh_labels(self._store, self._project, self._space)
        tasks = self._client.tasks(self._project)
        while page := list(islice(tasks, _TASKS_AT_ONCE)):
            rows = self._suggested(page) if self._options.suggestions else self._agreed(page)
            lengths_s = self._measured_s | self._lengths_s(page)
            for task in page:
                if task.id not in rows:
                    self._report.num_unanswered += 1
                    continue
                yield self._recording(task, rows[task.id], lengths_s.get(task.id))
            on_task(len(page))

    def _recording(self, task: Task, rows: Sequence[EventRow], duration_s: float | None) -> ExportedRecording:
        uri = _uri(task, self._space)
        name = self._name(task.id, uri)
        licence = _text(task.data.get(self._options.licence_key))
        source = _text(task.data.get(self._options.source_key))
        kept = []
        for row in sorted(rows, key=lambda row: (row.whole, row.start_s)):
            try:
                named = replace(row, recording=name, licence=licence, source=source)
                kept.append(self._placed(checked(named, Place(f"task {task.id}", 0)), duration_s))
            except RowRefused as refused:
                self._report.skip(str(refused))
        return ExportedRecording(task.id, uri, name, kept, duration_s, task.data)

    def _placed(self, row: EventRow, duration_s: float | None) -> EventRow:
        if not row.whole:
            return row
        if not self._options.clips_as_events:
            return replace(row, end_s=duration_s or 0.0)
        if duration_s is None:
            raise RowRefused(
                f"{shown(row.recording)}: how long it is isn't known, so “{shown(row.label)}” can't be an event: "
                f"run `clapboard prelabel --project {self._project}` first."
            )
        return replace(row, end_s=duration_s, whole=False)

    # Names

    def _count_names(self) -> None:
        """Count file names, because those that several tasks have aren't told apart by them."""
        for task in self._client.tasks(self._project):
            uri = _uri(task, self._space)
            if uri:
                self._files[original_name(uri)] += 1
                self._places["/".join(path_parts(uri))] += 1

    def _name(self, task: int, uri: str) -> str:
        """The recording's file name; with its folders, or the task's number, where several have that name."""
        if not uri:
            return f"task-{task}"
        if self._files[original_name(uri)] == 1:
            return original_name(uri)
        place = "/".join(path_parts(uri))
        return place if self._places[place] == 1 else f"task-{task}-{base_name(uri)}"

    def _lengths_s(self, page: Sequence[Task]) -> dict[int, float]:
        """By task, the lengths of the recordings that have been read, in seconds."""
        known = self._store.tasks.get(self._project, [task.id for task in page])
        recordings = self._store.embeddings.recordings([task.uri_key for task in known.values()])
        return {
            number: recordings[task.uri_key].duration_s for number, task in known.items() if task.uri_key in recordings
        }

    # What annotators agree on

    def _agreed(self, page: Sequence[Task]) -> dict[int, list[EventRow]]:
        numbers = [task.id for task in page]
        agreed = self._store.labels.agreed(self._project, numbers)
        self._measured_s = {
            task: one.recording_s for task, labels in agreed.items() for one in labels.values() if one.recording_s
        }
        votes = self._votes(agreed)
        people = sorted({vote.annotator for task_votes in votes.values() for vote in task_votes})
        people += sorted({who for labels in agreed.values() for one in labels.values() for who in _markers(one)})
        names = self._names_of(people)
        return {
            task: [row for control, one in labels.items() for row in _rows(control, one, votes.get(task, []), names)]
            for task, labels in agreed.items()
        }

    def _votes(self, tasks: Iterable[int]) -> dict[int, list[Entry]]:
        """By task, the entries about the whole recording that count."""
        by_task: dict[int, dict[int, list[Entry]]] = defaultdict(lambda: defaultdict(list))
        for entry in self._store.ledger.standing(self._project, list(tasks)):
            by_task[entry.task][entry.annotation].append(entry)
        return {
            task: [
                entry
                for annotation in counted_annotations(list(annotations.values()))
                for entry in annotation
                if not entry.region and entry.control
            ]
            for task, annotations in by_task.items()
        }

    def _names_of(self, people: Sequence[int]) -> dict[int, str]:
        if self._options.annotators == "none":
            return {}
        known = self._store.ledger.annotators() if self._options.annotators == "name" else {}
        ids = [number for number in dict.fromkeys(people) if number > 0]
        if self._options.annotators == "id":
            return {number: str(number) for number in ids}
        return display_names(ids, known)

    # What is suggested

    def _suggested(self, page: Sequence[Task]) -> dict[int, list[EventRow]]:
        name, tasks, predictions = self._options.model_version, [task.id for task in page], self._store.predictions
        if name in self._versions:
            results = predictions.results(self._project, tasks, name)
            return {task: list(_suggestions(result, name)) for task, result in results.items()}
        current = predictions.current(self._project, tasks, name)  # by whichever of the versions that share the name
        return {task: list(_suggestions(one.result, one.model_version)) for task, (_, one) in current.items()}

    @cached_property
    def _versions(self) -> set[str]:
        return {*self._store.predictions.model_versions(self._project)}


def _suggestions(result: Sequence[Mapping[str, Any]], version: str) -> Iterator[EventRow]:
    """The rows of a prediction's results; `recording` is yet to be filled in."""
    for item in result:
        value, kind, score = item.get("value", {}), item.get("type"), item.get("score")
        labels = value.get(kind) if isinstance(kind, str) else None
        if not isinstance(labels, list) or ("start" in value) != (kind == "labels"):
            continue  # what is said about a region, besides its label, has no place in a table
        for label in labels:
            name = " / ".join(label) if isinstance(label, list) else str(label)
            if kind == "labels":
                channel = value.get("channel")
                yield EventRow("-", value["start"], value["end"], name, score, version=version, channel=channel)
            else:
                yield EventRow("-", 0.0, 0.0, name, score, version=version, whole=True)


def _rows(control: str, agreed: Agreed, votes: Sequence[Entry], names: Mapping[int, str]) -> Iterator[EventRow]:
    """The rows of one control's agreed labels; `recording` is yet to be filled in."""
    for region in agreed.regions:
        annotator = "; ".join(names[who] for who in region.annotators if who in names)
        version = "; ".join(region.versions)
        yield EventRow(
            "-", region.start_s, region.end_s, region.label, None, annotator, version, channel=region.channel
        )
    if agreed.regions:
        return
    for label in agreed.labels:
        own = [vote for vote in votes if vote.control == control and label in vote.labels]
        annotator = "; ".join(dict.fromkeys(names[vote.annotator] for vote in own if vote.annotator in names))
        version = "; ".join(sorted({vote.model_version for vote in own} - {""}))
        yield EventRow("-", 0.0, 0.0, label, None, annotator, version, whole=True)


def _markers(agreed: Agreed) -> Iterator[int]:
    for region in agreed.regions:
        yield from region.annotators


def _uri(task: Task, label_space: LabelSpace) -> str:
    """The address of the task's audio; empty if it has none, or one that is no name."""
    uri = task.data.get(label_space.audio_key)
    if not isinstance(uri, str) or len(uri) > _MAX_ADDRESS or uri[:5].lower() == "data:":
        return ""
    return uri


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value) if isinstance(value, int | float) else ""
