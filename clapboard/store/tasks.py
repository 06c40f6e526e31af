"""The tasks that Clapboard has seen: where their audio is, and which are held out for the test split.

When a project's model version changes, its tasks are predicted anew from this table, without listing them in Label
Studio.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, exists, func, or_, select

from clapboard.feedback.task_labels import draw
from clapboard.store.database import Database, in_chunks
from clapboard.store.departures import remembered
from clapboard.store.embeddings import Recording
from clapboard.store.inline_audio import audio_of, keep_audio
from clapboard.store.schema import annotation_states, content_changes, predictions, recordings, tasks

_WALKED = 5
"""How many times as many tasks a sample is sought among as it has: some are held out, others aren't embedded yet."""


@dataclass(frozen=True)
class KnownTask:
    """A task of a project. `source` is the recording that it was cut from; tasks of one source stay in one split.

    `content` is the sha256 of its audio, empty until that was read. A twin wasn't drawn to be held out, but has the
    same content as a task that was; so it is held out, too.
    """

    task: int
    uri: str
    uri_key: str
    source: str
    held_out: bool
    content: str = ""
    is_twin: bool = False


class TaskStore:
    """The tasks table."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._contents: dict[int, tuple[int, list[str]]] = {}  # by project, as they were after so many changes

    def put(self, project: int, seen: Sequence[KnownTask]) -> None:
        """Store the tasks, or their changes."""
        fresh = {name: tasks.c[name] for name in ("uri", "uri_key", "source", "held_out")}
        rows = [
            {"project": project, "task": task.task}
            | {name: getattr(task, name) for name in fresh}
            | {"held_out": task.held_out and not task.is_twin, "draw": draw(project, task.task)}
            for task in sorted(seen, key=lambda task: task.task)
        ]
        if not rows:
            return
        statement = self._db.insert(tasks)
        new = {name: statement.excluded[name] for name in fresh}
        changed = or_(*(tasks.c[name] != new[name] for name in fresh))
        with self._db.write() as connection:
            if rows := remembered(connection, rows):
                uris = keep_audio(self._db, connection, {row["uri"] for row in rows})
                rows = [row | {"uri": uris[row["uri"]]} for row in rows]
                connection.execute(
                    statement.on_conflict_do_update(index_elements=["project", "task"], set_=new, where=changed), rows
                )

    def of_project(self, project: int, *, at_once: int = 5_000) -> Iterator[list[KnownTask]]:
        """The project's tasks by ascending id, in pages of at most `at_once`."""
        last = None
        while True:
            query = _KNOWN.where(tasks.c.project == project).order_by(tasks.c.task).limit(at_once)
            if last is not None:
                query = query.where(tasks.c.task > last)
            with self._db.read() as connection:
                page = _known(connection, connection.execute(query).all())
            if not page:
                return
            yield page
            last = page[-1].task

    def after(self, project: int, after: int, limit: int) -> list[KnownTask]:
        """The first tasks with ids above `after` that weren't drawn to be held out, ascending."""
        query = _KNOWN.where(_not_drawn(project), tasks.c.task > after).order_by(tasks.c.task).limit(limit)
        with self._db.read() as connection:
            return _known(connection, connection.execute(query).all())

    def open_after(
        self, project: int, after: int, limit: int, annotations_per_task: int = 1, *, among: Sequence[int] = ()
    ) -> list[KnownTask]:
        """The first tasks with ids above `after` that aren't held out and still lack annotations, ascending.

        `among`: only these tasks, if any are named.
        """
        query = _KNOWN.where(tasks.c.project == project, tasks.c.task > after, tasks.c.held_out.is_(False), ~_IS_TWIN)
        if among:
            query = query.where(tasks.c.task.in_(among))
        query = query.where(_num_annotations < annotations_per_task).order_by(tasks.c.task).limit(limit)
        with self._db.read() as connection:
            return _known(connection, connection.execute(query).all())

    def get(self, project: int, task_ids: Sequence[int]) -> dict[int, KnownTask]:
        """By id, those of the tasks that are stored."""
        stored: dict[int, KnownTask] = {}
        with self._db.read() as connection:
            for chunk in in_chunks(task_ids):
                query = _KNOWN.where(tasks.c.project == project, tasks.c.task.in_(chunk))
                stored |= {task.task: task for task in _known(connection, connection.execute(query).all())}
        return stored

    def contents(self, project: int) -> Sequence[str]:
        """The sha256 of all recordings of the project's tasks that have been read, without held-out tasks.

        They are remembered until a task or a recording changes.
        """
        query = select(recordings.c.sha256, tasks.c.held_out).distinct().select_from(_READ)
        with self._db.read() as connection:
            num_changes = int(connection.scalar(select(func.sum(content_changes.c.num))) or 0)
            remembered = self._contents.get(project)
            if remembered and remembered[0] == num_changes:
                return remembered[1]
            rows = connection.execute(query.where(tasks.c.project == project)).all()
        drawn = {sha256 for sha256, held_out in rows if held_out}
        contents = [sha256 for sha256, held_out in rows if not held_out and sha256 not in drawn]
        self._contents = {project: (num_changes, contents)}
        return contents

    def holding(self, project: int, sha256s: Sequence[str]) -> list[tuple[KnownTask, Recording]]:
        """The project's tasks with one of these recordings, by ascending id, without held-out ones."""
        pairs: list[tuple[KnownTask, Recording]] = []
        query: Any = _KNOWN.add_columns(recordings.c.num_windows, recordings.c.duration_s)
        with self._db.read() as connection:
            for chunk in in_chunks(sha256s):
                with_recording = query.where(_searched(project), recordings.c.sha256.in_(chunk))
                rows = connection.execute(with_recording).all()
                for row, task in zip(rows, _known(connection, rows), strict=True):
                    pairs.append((task, Recording(row.sha256, row.num_windows, row.duration_s)))
        return sorted(pairs, key=lambda pair: pair[0].task)

    def learnable(self, project: int, task_ids: Sequence[int]) -> dict[int, Recording]:
        """By task, the recordings of those of the tasks that have been read and aren't held out."""
        chosen = self._db.among(tasks.c.task, "tasks")
        query = select(*_RECORDING).select_from(_READ).where(_not_drawn(project), chosen)
        with self._db.read(by_index=True) as connection:
            rows = [row for chunk in in_chunks(sorted(task_ids)) for row in connection.execute(query, {"tasks": chunk})]
            return self._without_twins(connection, project, rows)

    def sample(self, project: int, limit: int) -> dict[int, Recording]:
        """The same of up to `limit` tasks, drawn at random, but the same ones in every process.

        They are sought among the first `limit` · `_WALKED` of the draw, so that the cost doesn't grow with the project.
        """
        first = select(tasks).where(tasks.c.project == project).order_by(tasks.c.draw).limit(limit * _WALKED).subquery()
        query = (
            select(first.c.task, recordings.c.sha256, recordings.c.num_windows, recordings.c.duration_s)
            .join(recordings, recordings.c.uri_key == first.c.uri_key)
            .where(first.c.held_out.is_(False))
            .order_by(first.c.draw)
            .limit(limit)
        )
        with self._db.read(by_index=True) as connection:
            return self._without_twins(connection, project, connection.execute(query).all())

    def _without_twins(self, connection: Connection, project: int, rows: Sequence[Any]) -> dict[int, Recording]:
        """The rows' recordings by task, without those whose content is also that of a held-out task.

        In two queries that name nothing but addresses: else a database may go through all tasks of the project.
        """
        addresses = select(recordings.c.uri_key, recordings.c.sha256)
        addresses = addresses.where(self._db.among(recordings.c.sha256, "contents"))
        same = select(tasks.c.uri_key, tasks.c.project).where(self._db.among(tasks.c.uri_key, "keys"))
        drawn = same.where(tasks.c.held_out.is_(True))
        held_out: set[str] = set()
        for contents in in_chunks(sorted({row.sha256 for row in rows})):
            content_of = {row.uri_key: row.sha256 for row in connection.execute(addresses, {"contents": contents})}
            there = connection.execute(drawn, {"keys": list(content_of)})
            held_out |= {content_of[row.uri_key] for row in there if row.project == project}
        return {
            row.task: Recording(row.sha256, row.num_windows, row.duration_s)
            for row in rows
            if row.sha256 not in held_out
        }

    def suggested_contents(self, project: int) -> set[str]:
        """The sha256 of the recordings that have a suggestion in a task that wasn't drawn to be held out.

        A person who labels the same recording in another task may have seen that suggestion.
        """
        predicted = exists().where(predictions.c.project == tasks.c.project, predictions.c.task == tasks.c.task)
        query = select(recordings.c.sha256).distinct().select_from(_READ)
        with self._db.read() as connection:
            return set(connection.scalars(query.where(_not_drawn(project), predicted)))

    def forget(self, project: int, task_ids: Sequence[int]) -> None:
        """Delete tasks that no longer exist."""
        with self._db.write() as connection:
            for chunk in in_chunks(sorted(task_ids)):
                connection.execute(delete(tasks).where(tasks.c.project == project, tasks.c.task.in_(chunk)))

    def held_out(self, project: int) -> list[int]:
        """The ids of the project's tasks that were drawn to be held out, ascending."""
        query = select(tasks.c.task).where(tasks.c.project == project, tasks.c.held_out.is_(True))
        with self._db.read() as connection:
            return list(connection.scalars(query.order_by(tasks.c.task)))

    def count(self, project: int) -> tuple[int, int]:
        """How many tasks of the project are stored, and how many of them are held out, including twins."""
        num_held_out: Any = func.count().filter(tasks.c.held_out.is_(True) | _IS_TWIN)
        query = select(func.count(), num_held_out).select_from(_MAYBE_READ).where(tasks.c.project == project)
        with self._db.read() as connection:
            row = connection.execute(query).one()
        return row[0], row[1]


_READ = tasks.join(recordings, tasks.c.uri_key == recordings.c.uri_key)
_RECORDING = (tasks.c.task, recordings.c.sha256, recordings.c.num_windows, recordings.c.duration_s)
_MAYBE_READ = tasks.outerjoin(recordings, tasks.c.uri_key == recordings.c.uri_key)

_drawn = tasks.alias("drawn")
_drawn_recordings = recordings.alias("drawn_recordings")
_IS_TWIN = tasks.c.held_out.is_(False) & exists().where(
    _drawn.c.project == tasks.c.project,
    _drawn.c.held_out.is_(True),
    _drawn_recordings.c.uri_key == _drawn.c.uri_key,
    _drawn_recordings.c.sha256 == recordings.c.sha256,
)
"""Whether a task has the same content as one that was drawn to be held out."""

_num_annotations = (
    select(func.count())
    .where(
        annotation_states.c.project == tasks.c.project,
        annotation_states.c.task == tasks.c.task,
        annotation_states.c.stands.is_(True),
    )
    .correlate(tasks)
    .scalar_subquery()
)
"""How many annotations a task has that nobody has deleted."""

_KNOWN: Any = select(*tasks.c, recordings.c.sha256, _IS_TWIN.label("is_twin")).select_from(_MAYBE_READ)


def _searched(project: int) -> Any:
    return _not_drawn(project) & ~_IS_TWIN


def _not_drawn(project: int) -> Any:
    return (tasks.c.project == project) & tasks.c.held_out.is_(False)


def _known(connection: Connection, rows: Sequence[Any]) -> list[KnownTask]:
    audio = audio_of(connection, [row.uri for row in rows])
    known = []
    for row in rows:
        uri, is_held_out = audio.get(row.uri, row.uri), bool(row.held_out or row.is_twin)
        content, is_twin = row.sha256 or "", bool(row.is_twin)
        known.append(KnownTask(row.task, uri, row.uri_key, row.source, is_held_out, content, is_twin))
    return known
