"""Deleting everything about a project or a task.

Every table is in one of the lists below; a test fails if one isn't. Rows are deleted table by table, each step in a
transaction of its own. What tells where the rest is goes last, so that an interrupted run can be repeated.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, delete, select, update

from clapboard.store import schema
from clapboard.store.annotations import lock_ledger
from clapboard.store.database import Database, in_chunks
from clapboard.store.departures import WHOLE_PROJECT, is_empty, without_tasks
from clapboard.store.inbox import Event
from clapboard.store.inline_audio import audio_of, unused_audio
from clapboard.store.ledger import LedgerStore
from clapboard.untrusted import large_json

_EVENTS_AT_ONCE = 500

OF_PROJECT = (
    schema.jobs,
    schema.predictions,
    schema.ledger,
    schema.annotation_states,
    schema.agreed_labels,
    schema.labelled_tasks,
    schema.label_counts,
    schema.learning,
    schema.displays,
    schema.tabs,
    schema.versions,
    schema.trial_answers,
    schema.trials,
    schema.label_renames,
    schema.tasks,
    schema.job_tallies,  # counted by triggers, so that they come after what they count
    schema.prediction_tallies,
)
"""Rows with a `project`, and perhaps a `task`, in the order in which they are deleted."""

OF_EVENTS = (schema.inbox, schema.ledger_events)
OF_SOUNDS = (schema.recordings, schema.embeddings, schema.frames, schema.audio_failures, schema.inline_audio)
"""Shared by all tasks with the same sound: deleted with the last of them."""

OF_VERSIONS = (schema.heads, schema.class_weights, schema.label_spaces)
"""Deleted if no version of another project has them."""

OTHERWISE = (schema.projects, schema.annotators, schema.searches, schema.encoders)

KEPT: Mapping[Table, str] = {
    schema.departures: "says what was forgotten, by its number alone",
    schema.project_locks: "expires by itself",
    schema.schema_versions: "about the store",
    schema.clapboard_revision: "about the store",
    schema.content_changes: "a number",
    schema.workers: "about processes",
    schema.plans: "about all projects",
    schema.label_studios: "about Label Studio",
    schema.credentials: "about the backend",
    schema.backend_urls: "about the backend",
}
"""Tables that hold nothing about a single project or task, and why."""


class Forgetting:
    """Deletes from all tables what is about one project, or about some of its tasks."""

    def __init__(self, database: Database, project: int, tasks: Sequence[int] = (WHOLE_PROJECT,)) -> None:
        self._db = database
        self._project = project
        self._tasks = sorted(tasks)
        self._is_whole = WHOLE_PROJECT in tasks
        self.counts: Counter[str] = Counter()
        """How many rows went, by table."""

    def uri_keys(self) -> set[str]:
        """The URI keys of sounds that nothing else has."""
        keys = {key for table in (schema.tasks, schema.predictions) for key in self._keys(table, ours=True)}
        payloads = self._payloads(ours=True)
        keys |= {payload["uri_key"] for payload in payloads if isinstance(payload.get("uri_key"), str)}
        shared: set[str] = set()
        for chunk in in_chunks(sorted(keys)):
            for table in (schema.tasks, schema.predictions):
                shared |= self._keys(table, ours=False, among=chunk)
        if keys - shared:
            shared |= {str(payload.get("uri_key")) for payload in self._payloads(ours=False)}
        return keys - shared

    def sounds(self, uri_keys: Iterable[str]) -> None:
        """Delete the sounds' recordings, failures, and the embeddings and frames that no other recording has."""
        recordings = schema.recordings
        for chunk in in_chunks(sorted(uri_keys), 500):
            with self._db.write() as connection:
                of_keys = recordings.c.uri_key.in_(chunk)
                sha256s = set(connection.scalars(select(recordings.c.sha256).where(of_keys)))
                others = recordings.c.sha256.in_(sha256s) & recordings.c.uri_key.not_in(chunk)
                sha256s -= set(connection.scalars(select(recordings.c.sha256).where(others)))
                for table in (schema.embeddings, schema.frames):
                    self._delete(connection, table, table.c.sha256.in_(sha256s))
                self._delete(connection, recordings, of_keys)
                self._delete(connection, schema.audio_failures, schema.audio_failures.c.subject.in_(chunk))

    def inline_audio(self) -> None:
        """Delete the audio of `data:` URIs that no task or open job has any more, once `rows` has deleted ours."""
        audio = schema.inline_audio
        with self._db.write() as connection:
            keys = unused_audio(connection)
            marked = update(audio).where(audio.c.key.in_(keys)).values(unused_since=0.0)
            connection.execute(marked)  # waits for whoever refers to it at this moment
        if keys:
            with self._db.write() as connection:
                still = audio.c.key.in_(unused_audio(connection)) & audio.c.unused_since.is_not(None)
                self._delete(connection, audio, still & audio.c.key.in_(keys))

    def addresses(self, uri_keys: Iterable[str]) -> set[str]:
        """The addresses of the tasks with one of these URI keys."""
        tasks = schema.tasks
        found: set[str] = set()
        with self._db.read() as connection:
            for chunk in in_chunks(sorted(uri_keys)):
                query = select(tasks.c.uri).where(self._ours(tasks), tasks.c.uri_key.in_(chunk))
                found |= set(connection.scalars(query))
            return {*found, *audio_of(connection, found).values()}

    def checkpoints(self, on_disk: Iterable[str]) -> set[str]:
        """The folders of finetuned encoders that no other project's version has, `on_disk` those in its folder."""
        versions = schema.versions
        of_project = versions.c.project == self._project
        with self._db.read() as connection:
            ours = set(connection.scalars(select(versions.c.encoder).where(of_project)))
            theirs = set(connection.scalars(select(versions.c.encoder).where(~of_project)))
        return {encoder for encoder in {*ours, *on_disk} - theirs if encoder.startswith("models/")}

    def encoders(self, checkpoints: Iterable[str]) -> None:
        """Delete what is stored of these finetuned encoders, and what they have embedded."""
        encoders = schema.encoders
        of_checkpoints = encoders.c.model.in_(sorted(checkpoints))
        with self._db.write() as connection:
            versions = set(connection.scalars(select(encoders.c.version).where(of_checkpoints)))
            versions -= set(connection.scalars(select(encoders.c.version).where(~of_checkpoints)))
            for table in (schema.embeddings, schema.frames):
                self._delete(connection, table, table.c.encoder_version.in_(versions))
            self._delete(connection, encoders, of_checkpoints)

    def versions(self) -> None:
        """Delete the heads, class weights and label spaces that no other project's version needs."""
        if not self._is_whole:
            return
        versions, heads = schema.versions, schema.heads
        key = ("encoder_version", "space_id")
        with self._db.write() as connection:
            of_project = versions.c.project == self._project
            columns = [versions.c[name] for name in (*key, "head")]
            ours = {tuple(row) for row in connection.execute(select(*columns).where(of_project))}
            theirs = {tuple(row) for row in connection.execute(select(*columns).where(~of_project))}
            for encoder_version, space_id, name in ours - theirs:
                of_head = (heads.c.encoder_version == encoder_version) & (heads.c.space_id == space_id)
                self._delete(connection, heads, of_head & (heads.c.name == name))
            others = connection.scalars(select(schema.jobs.c.payload).where(self._others(schema.jobs)))
            needed = {space_id for _, space_id, _ in theirs} | {payload.get("space_id") for payload in others}
            for space_id in set(self._spaces(connection)) - needed:
                self._delete(connection, schema.class_weights, schema.class_weights.c.space_id == space_id)
                self._delete(connection, schema.label_spaces, schema.label_spaces.c.space_id == space_id)
                self._delete(connection, heads, heads.c.space_id == space_id)

    def events(self) -> None:
        """Delete the events with their entries; of events that are about other tasks too, what is about ours."""
        inbox, last = schema.inbox, 0
        annotations = self._annotations()
        while True:
            page = select(inbox).where(inbox.c.project == self._project, inbox.c.id > last).order_by(inbox.c.id)
            with self._db.write() as connection:
                lock_ledger(connection)
                rows = connection.execute(page.limit(_EVENTS_AT_ONCE)).all()
                if not rows:
                    break
                last = rows[-1].id
                gone = [row.id for row in rows if self._is_whole]
                for row in rows if not self._is_whole else ():
                    body = without_tasks(row.body, self._tasks, annotations)
                    if is_empty(row.body, body):
                        gone.append(row.id)
                    elif body != row.body or _mentions(row.suggestions, self._tasks):
                        self._rewrite(connection, row, body)
                self._delete(connection, schema.ledger, schema.ledger.c.inbox_id.in_(gone))
                self._delete(connection, schema.ledger_events, schema.ledger_events.c.inbox_id.in_(gone))
                self._delete(connection, inbox, inbox.c.id.in_(gone))
        if not self._is_whole:  # even if nothing was found: an earlier run may have been killed before this
            LedgerStore(self._db).rebuild(self._project)

    def rows(self) -> int:
        """Delete what has the project, or the tasks, in a column of its own. Returns how many rows went."""
        num_rows = 0
        for table in OF_PROJECT:
            if self._is_whole or "task" in table.c:
                with self._db.write() as connection:
                    num_rows += self._delete(connection, table, self._ours(table))
        return num_rows

    def rest(self) -> None:
        """Delete the project itself, and the names of people who have labelled nothing else."""
        if not self._is_whole:
            return
        ledger, annotators, searches = schema.ledger, schema.annotators, schema.searches
        with self._db.write() as connection:
            self._delete(connection, schema.projects, schema.projects.c.id == self._project)
            labelled = select(ledger.c.annotator).distinct()
            self._delete(connection, annotators, annotators.c.id.not_in(labelled))
            requests = connection.execute(select(searches.c.id, searches.c.request))
            ours = [row.id for row in requests if json.loads(row.request).get("project") == self._project]
            self._delete(connection, searches, searches.c.id.in_(ours))

    def _ours(self, table: Table) -> Any:
        of_project = table.c.project == self._project
        return of_project if self._is_whole else of_project & table.c.task.in_(self._tasks)

    def _others(self, table: Table) -> Any:
        return ~self._ours(table)

    def _keys(self, table: Table, *, ours: bool, among: Sequence[str] | None = None) -> set[str]:
        query = select(table.c.uri_key).where(self._ours(table) if ours else self._others(table))
        if among is not None:
            query = query.where(table.c.uri_key.in_(among))
        with self._db.read() as connection:
            return set(connection.scalars(query))

    def _payloads(self, *, ours: bool) -> list[Mapping[str, Any]]:
        jobs = schema.jobs
        query = select(jobs.c.payload).where(self._ours(jobs) if ours else self._others(jobs))
        with self._db.read() as connection:
            return list(connection.scalars(query))

    def _annotations(self) -> set[int]:
        """The ids of the tasks' annotations."""
        ledger = schema.ledger
        with self._db.read() as connection:
            return set(connection.scalars(select(ledger.c.annotation).where(self._ours(ledger))))

    def _spaces(self, connection: Connection) -> list[str]:
        """The label spaces that no version of another project and no other project's label config has."""
        versions, projects, spaces = schema.versions, schema.projects, schema.label_spaces
        configs = set(connection.scalars(select(projects.c.label_config).where(projects.c.id != self._project)))
        needed = select(versions.c.space_id).where(versions.c.project != self._project)
        unneeded = select(spaces.c.space_id, spaces.c.label_config).where(spaces.c.space_id.not_in(needed))
        return [row.space_id for row in connection.execute(unneeded) if row.label_config not in configs]

    def _rewrite(self, connection: Connection, row: Any, body: dict[str, Any]) -> None:
        """The event and its entries without the tasks."""
        suggestions = {task: value for task, value in (row.suggestions or {}).items() if int(task) not in self._tasks}
        inbox = schema.inbox
        changed = {"body": large_json(body), "suggestions": suggestions}
        connection.execute(update(inbox).where(inbox.c.id == row.id).values(changed))
        event = Event(row.id, row.received_at, row.action, row.project, body, suggestions)
        if self._delete(connection, schema.ledger_events, schema.ledger_events.c.inbox_id == row.id):
            self._delete(connection, schema.ledger, schema.ledger.c.inbox_id == row.id)
            LedgerStore(self._db).enter_anew(connection, event)
        self.counts["inbox"] += 1

    def _delete(self, connection: Connection, table: Table, condition: Any) -> int:
        count = connection.execute(delete(table).where(condition)).rowcount
        self.counts[table.name] += count
        return count


def _mentions(suggestions: Mapping[str, Any] | None, tasks: Sequence[int]) -> bool:
    return any(str(task) in (suggestions or {}) for task in tasks)
