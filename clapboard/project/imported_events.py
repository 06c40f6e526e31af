"""Tables of events → tasks with annotations in Label Studio. It can be stopped and run again; nothing is there twice.

An annotation is sent with a UUID that its task and annotator decide, of which Label Studio keeps only one. It is
submitted as people's are, so that Label Studio tells of it, and the ledger has it as an answer without a suggestion.
"""

from __future__ import annotations

import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from clapboard.errors import EventTableError, LabelStudioError, RequestError
from clapboard.event_tables.event_row import EventRow, shown
from clapboard.event_tables.recordings import RecordingNames, base_name, path_parts
from clapboard.label_studio.client import FILES_PER_IMPORT, LabelStudioClient
from clapboard.label_studio.predictions import ITEMS_PER_IMPORT, chunks_of
from clapboard.label_studio.records import Task
from clapboard.labels.label_config import parse_label_config
from clapboard.labels.label_space import LabelSpace
from clapboard.plurals import counted, plural
from clapboard.project.imported_results import ResultsOf
from clapboard.project.task_index import TaskIndex, upload_name

MAX_ROWS = 1_000_000
"""How many rows one import takes, which are held in memory by recording."""

_NAMESPACE = uuid.UUID("b1f8d3c2-6a57-4a3e-8b0e-2f5d9f1c7e44")
_TOLD = 100  # sentences on what was skipped
_PLACEHOLDER = re.compile(r"\{(name|path)\}")


@dataclass(frozen=True)
class ImportOptions:
    """Where recordings without a task are, and how rows become annotations."""

    uri: str = ""  # a pattern with {name} or {path}; empty if there is none
    upload: Path | None = None  # the folder to upload files from
    control: str = ""
    ground_truth: bool = False
    licence_key: str = "licence"  # in the data of new tasks
    source_key: str = "source"

    def __post_init__(self) -> None:
        """Raises `RequestError` for a pattern without a place for the name."""
        if self.uri and not _PLACEHOLDER.search(self.uri):
            raise RequestError("--uri has no {name} or {path} in it, so that all recordings would be one: add it.")


@dataclass
class ImportReport:
    """What an import has done."""

    project: int
    num_rows: int = 0
    num_recordings: int = 0
    num_tasks_created: int = 0
    num_annotations: int = 0  # stored now
    num_present: int = 0  # stored by an earlier import
    num_regions: int = 0  # of the annotations that were stored now
    num_others: int = 0  # annotations of people whom Label Studio doesn't know
    num_skipped: int = 0  # rows, recordings and annotations
    skipped: list[str] = field(default_factory=list)  # a sentence each, the first ones

    def skip(self, sentence: str) -> None:
        """Note what isn't imported, and why."""
        self.num_skipped += 1
        if len(self.skipped) < _TOLD:
            self.skipped.append(sentence)

    def __str__(self) -> str:
        were = plural(self.num_annotations, "was", "were")
        text = (
            f"{counted(self.num_annotations, 'annotation')} with {counted(self.num_regions, 'region')} {were} stored "
            f"from {counted(self.num_rows, 'row')} on {counted(self.num_recordings, 'recording')}, and "
            f"{counted(self.num_tasks_created, 'task')} created; {self.num_present:,} were there already"
        )
        if self.num_others:
            text += f"; {self.num_others:,} of people unknown to Label Studio are the token's user's"
        return f"{text}; {self.num_skipped:,} skipped."


OnProgress = Callable[[int, int], object]
"""Is told how many of how many recordings are done."""


def grouped(rows: Iterable[EventRow], report: ImportReport) -> dict[str, list[EventRow]]:
    """The rows by recording. Raises `EventTableError` for more than `MAX_ROWS`."""
    by_recording: dict[str, list[EventRow]] = defaultdict(list)
    for row in rows:
        report.num_rows += 1
        if report.num_rows > MAX_ROWS:
            raise EventTableError(f"The tables have more than {MAX_ROWS:,} rows: import them in several parts.")
        by_recording[row.recording].append(row)
    report.num_recordings = len(by_recording)
    return by_recording


class EventImport:
    """Imports rows into one project."""

    def __init__(
        self,
        client: LabelStudioClient,
        project: int,
        options: ImportOptions,
        report: ImportReport,
        duration_of: Callable[[int], float | None] = lambda _task: None,
    ) -> None:
        """`duration_of` gives the length of a task's recording in seconds, if it is known.

        Raises `LabelConfigError`, `LabelStudioError`.
        """
        self._client = client
        self._project = project
        self._options = options
        self._report = report
        self._duration_of = duration_of
        self._space: LabelSpace = parse_label_config(client.project(project).label_config)
        self._results = ResultsOf(self._space, options.control)

    def run(self, by_recording: Mapping[str, Sequence[EventRow]], on_progress: OnProgress) -> None:
        """Import the rows. Raises `LabelStudioError`; then the same can be run again."""
        index = TaskIndex(self._client.tasks(self._project), self._space.audio_key)
        tasks, missing = self._match(index, by_recording)
        if missing and (self._options.uri or self._options.upload):
            self._create(missing, by_recording)
            index = TaskIndex(self._client.tasks(self._project), self._space.audio_key)
            created, missing = self._match(index, {name: by_recording[name] for name in missing})
            for task, rows in created.items():
                tasks[task] += rows
        for recording in missing:
            self._report.skip(
                f"{shown(recording)}: no task of the project has this recording: say with --upload FOLDER or --uri "
                "where it is."
            )
        users = {name.casefold(): number for number, name in self._client.users().items()} if tasks else {}
        for count, (task, rows) in enumerate(sorted(tasks.items()), 1):
            self._annotate(task, rows, self._duration_of(task), users)
            on_progress(count, len(tasks))

    def _match(
        self, index: TaskIndex, by_recording: Mapping[str, Sequence[EventRow]]
    ) -> tuple[dict[int, list[EventRow]], list[str]]:
        """The rows by task, and the recordings that no task has."""
        tasks: dict[int, list[EventRow]] = defaultdict(list)
        missing = []
        for recording, rows in by_recording.items():
            try:
                task = index.find(recording)
            except EventTableError as error:
                self._report.skip(str(error))
                continue
            if task is None:
                missing.append(recording)
            else:
                tasks[task] += rows
        return tasks, missing

    def _create(self, recordings: Sequence[str], by_recording: Mapping[str, Sequence[EventRow]]) -> None:
        """Make a task of each recording that can be found."""
        about = {name: self._about(by_recording[name]) for name in recordings}
        if self._options.upload is None:
            uris = {self._uri(name): about[name] for name in recordings}
            for chunk in chunks_of(uris.items(), ITEMS_PER_IMPORT):
                data = [{self._space.audio_key: uri} | more for uri, more in chunk]
                self._report.num_tasks_created += len(self._client.import_tasks(self._project, data))
            return
        files = files_in(self._options.upload)
        names = RecordingNames(files)
        chosen: dict[str, dict[str, Any]] = {}
        for recording in recordings:
            try:
                if name := names.find(recording):
                    chosen[name] = about[recording]
            except EventTableError as error:
                self._report.skip(str(error))
        for uploaded in chunks_of(chosen, FILES_PER_IMPORT):
            paths = [files[name] for name in uploaded]
            ids = self._client.import_files(self._project, paths, called=lambda path: upload_name(path.name))
            self._report.num_tasks_created += len(ids)
            self._tell(dict(zip(ids, (chosen[name] for name in uploaded), strict=True)))

    def _tell(self, about: Mapping[int, dict[str, Any]]) -> None:
        """Add licences and sources to the data of uploaded files' tasks."""
        if not any(about.values()):
            return
        for task in self._client.tasks(self._project, after=min(about) - 1):
            if more := about.get(task.id):
                self._client.add_task_data(Task(task.id, task.data), more)

    def _about(self, rows: Sequence[EventRow]) -> dict[str, Any]:
        licence = next((row.licence for row in rows if row.licence), "")
        source = next((row.source for row in rows if row.source), "")
        named = {self._options.licence_key: licence, self._options.source_key: source}
        return {key: value for key, value in named.items() if key and value and key != self._space.audio_key}

    def _uri(self, recording: str) -> str:
        encode = quote if self._options.uri.lower().startswith(("http", "/")) else str
        fields = {"name": base_name(recording), "path": "/".join(path_parts(recording))}
        return _PLACEHOLDER.sub(lambda match: encode(fields[match[1]]), self._options.uri)

    def _annotate(
        self, task: int, rows: Sequence[EventRow], duration_s: float | None, users: Mapping[str, int]
    ) -> None:
        by_annotator: dict[str, list[EventRow]] = defaultdict(list)
        for row in rows:
            by_annotator[row.annotator].append(row)
        for annotator, own in by_annotator.items():
            result = self._results.results(own, task, duration_s, self._report.skip)
            if not result:
                continue
            try:
                self._store_one(task, annotator, result, users)
            except LabelStudioError as error:
                if error.retryable:
                    raise
                self._report.skip(str(error))  # the others are stored all the same

    def _store_one(self, task: int, annotator: str, result: list[dict[str, Any]], users: Mapping[str, int]) -> None:
        user = users.get(annotator.casefold()) or (int(annotator) if annotator in map(str, users.values()) else None)
        unique_id = str(uuid.uuid5(_NAMESPACE, "\0".join((str(self._project), str(task), annotator))))
        is_new = self._client.create_annotation(
            task, result, unique_id=unique_id, completed_by=user, ground_truth=self._options.ground_truth
        )
        if is_new:
            self._report.num_annotations += 1
            self._report.num_regions += sum("start" in item["value"] for item in result)
            self._report.num_others += bool(annotator) and user is None
        elif self._differs(task, result):
            self._report.skip(
                f"Task {task}: an annotation of {shown(annotator) or 'nobody named'} was imported before, with other "
                "events: delete it in Label Studio to import these, and import all tables at once."
            )
        else:
            self._report.num_present += 1

    def _differs(self, task: int, result: Sequence[Mapping[str, Any]]) -> bool:
        stored: set[Any] = set()
        for annotation in self._client.annotations(task):
            items = annotation.get("result")
            stored |= {item.get("id") for item in (items if isinstance(items, list) else []) if isinstance(item, dict)}
        return any(item["id"] not in stored for item in result)


def files_in(folder: Path) -> dict[str, Path]:
    """By path within the folder, its files, those of its folders too; links that lead out of it are left out.

    Raises `EventTableError` if it is no folder.
    """
    if not folder.is_dir():
        raise EventTableError(f"{shown(str(folder))} is no folder: name the one that has the recordings.")
    root = folder.resolve()
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.resolve().is_relative_to(root):
            files[path.relative_to(folder).as_posix()] = path
    return files
