"""The tasks that Clapboard has met: where their audio lies, and which are set aside for the test split.

They are the pool that is predicted anew when a project's model changes, without asking Label Studio for all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, func, or_, select

from clapboard.store.database import Database, in_chunks
from clapboard.store.embeddings import Recording
from clapboard.store.schema import recordings, tasks


@dataclass(frozen=True)
class KnownTask:
    """A task of a project. `source` is the recording that it was cut from: tasks of one source stay together."""

    task: int
    uri: str
    uri_key: str
    source: str
    set_aside: bool


class TaskStore:
    """The tasks table."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, project: int, known: Sequence[KnownTask]) -> None:
        """Keep the tasks, or what has changed of them."""
        fresh = {name: tasks.c[name] for name in ("uri", "uri_key", "source", "set_aside")}
        rows = [
            {"project": project, "task": one.task} | {name: getattr(one, name) for name in fresh}
            for one in sorted(known, key=lambda one: one.task)
        ]
        if not rows:
            return
        statement = self._db.insert(tasks)
        new = {name: statement.excluded[name] for name in fresh}
        changed = or_(*(tasks.c[name] != new[name] for name in fresh))
        with self._db.write() as connection:
            connection.execute(
                statement.on_conflict_do_update(index_elements=["project", "task"], set_=new, where=changed), rows
            )

    def of_project(self, project: int, *, at_once: int = 5_000) -> Iterator[list[KnownTask]]:
        """The project's tasks by ascending id, in lists of at most `at_once`."""
        last = None
        while True:
            query = select(tasks).where(tasks.c.project == project).order_by(tasks.c.task).limit(at_once)
            if last is not None:
                query = query.where(tasks.c.task > last)
            with self._db.read() as connection:
                page = [_known(row) for row in connection.execute(query)]
            if not page:
                return
            yield page
            last = page[-1].task

    def get(self, project: int, wanted: Sequence[int]) -> dict[int, KnownTask]:
        """Those of the tasks that are known."""
        found: dict[int, KnownTask] = {}
        with self._db.read() as connection:
            for some in in_chunks(wanted):
                query = select(tasks).where(tasks.c.project == project, tasks.c.task.in_(some))
                found |= {row.task: _known(row) for row in connection.execute(query)}
        return found

    def contents(self, project: int) -> list[str]:
        """The sha256 of all recordings that the project's tasks hold, as far as known; none of tasks set aside."""
        query = select(recordings.c.sha256).distinct().select_from(_HELD).where(_searched(project))
        with self._db.read() as connection:
            return list(connection.scalars(query))

    def holding(self, project: int, sha256s: Sequence[str]) -> list[tuple[KnownTask, Recording]]:
        """The tasks of the project that hold one of these recordings, by ascending id; none that is set aside."""
        found: list[tuple[KnownTask, Recording]] = []
        query: Any = select(*tasks.c, recordings.c.sha256, recordings.c.num_windows, recordings.c.duration_s)
        with self._db.read() as connection:
            for some in in_chunks(sha256s):
                held = query.select_from(_HELD).where(_searched(project), recordings.c.sha256.in_(some))
                for row in connection.execute(held):
                    found.append((_known(row), Recording(row.sha256, row.num_windows, row.duration_s)))
        return sorted(found, key=lambda pair: pair[0].task)

    def forget(self, project: int, gone: Sequence[int]) -> None:
        """The tasks no longer exist."""
        with self._db.write() as connection:
            for some in in_chunks(sorted(gone)):
                connection.execute(delete(tasks).where(tasks.c.project == project, tasks.c.task.in_(some)))

    def count(self, project: int) -> tuple[int, int]:
        """How many tasks of the project are known, and how many of them are set aside."""
        query = select(func.count(), func.count().filter(tasks.c.set_aside.is_(True))).where(tasks.c.project == project)
        with self._db.read() as connection:
            known, aside = connection.execute(query).one()
        return known, aside


_HELD = tasks.join(recordings, tasks.c.uri_key == recordings.c.uri_key)


def _searched(project: int) -> Any:
    return (tasks.c.project == project) & tasks.c.set_aside.is_(False)


def _known(row: Row[Any]) -> KnownTask:
    return KnownTask(row.task, row.uri, row.uri_key, row.source, row.set_aside)
