"""Projects and tasks that have left: disconnected projects, which may come back, and what was forgotten for good.

Whatever writes about a project or task asks here, in its own transaction, whether that was forgotten. So a late event,
a job that was running or a request that was open can't bring it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, exists, insert, select, update

from clapboard.store.database import Database
from clapboard.store.job_records import State
from clapboard.store.prediction_records import Delivery
from clapboard.store.schema import departures, displays, jobs, predictions, projects

WHOLE_PROJECT = 0
"""The task of a row that is about a project as a whole."""

DISCONNECTED, FORGOTTEN = "disconnected", "forgotten"


def forgotten_tasks(connection: Connection, project: int | None) -> frozenset[int]:
    """The forgotten tasks of the project; `WHOLE_PROJECT` is among them if all of it was forgotten."""
    if not project:
        return frozenset()
    query = select(departures.c.task).where(departures.c.project == project, departures.c.kind == FORGOTTEN)
    return frozenset(connection.scalars(query))


def is_forgotten(connection: Connection, project: int | None) -> bool:
    """Whether the project as a whole was forgotten."""
    return WHOLE_PROJECT in forgotten_tasks(connection, project)


def remembered(connection: Connection, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, without those whose `project` or `task` was forgotten."""
    forgotten = {project: forgotten_tasks(connection, project) for project in {row["project"] for row in rows}}
    return [
        row
        for row in rows
        if WHOLE_PROJECT not in forgotten[row["project"]]
        and (row["task"] == WHOLE_PROJECT or row["task"] not in forgotten[row["project"]])
    ]


def without_tasks(body: Mapping[str, Any], tasks: Iterable[int], annotations: Iterable[int] = ()) -> dict[str, Any]:
    """An event's body without what it says of these tasks, and of their annotations."""
    gone, gone_annotations = set(tasks), set(annotations)

    def is_about(name: str, item: Any) -> bool:
        if name == "annotations":
            return _id_of(item) in gone_annotations
        task = item.get("task") if name == "annotation" and isinstance(item, Mapping) else item
        return _id_of(task) in gone

    stripped: dict[str, Any] = {}
    for name, value in body.items():
        if name not in ("annotation", "task", "tasks", "annotations"):
            stripped[name] = value
        elif isinstance(value, list):
            stripped[name] = [item for item in value if not is_about(name, item)]
        elif not is_about(name, value):
            stripped[name] = value
    return stripped


def is_empty(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether an event's body was about tasks or annotations, and without some tasks it is about none any more."""
    names = [name for name in ("annotation", "task", "tasks", "annotations") if before.get(name)]
    return bool(names) and not any(after.get(name) for name in names)


def _id_of(value: Any) -> Any:
    number = value.get("id") if isinstance(value, Mapping) else value
    return number if isinstance(number, int) else None


class DepartureStore:
    """The departures table."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._db = database
        self._clock = clock

    def disconnect(self, project: int) -> bool:
        """End all that is to be done for the project: its queued jobs go, and nothing more is pushed.

        Returns whether it was connected. What is known of it stays; so does what was drawn to be held out.
        """
        of_project = (predictions.c.project == project) & (predictions.c.delivery == Delivery.OWED)
        with self._db.write() as connection:
            was_connected = connection.execute(
                update(projects).where(projects.c.id == project, projects.c.connected.is_(True)).values(connected=False)
            )
            if was_connected.rowcount:
                self._put(connection, project, [WHOLE_PROJECT], DISCONNECTED)
            connection.execute(delete(jobs).where(jobs.c.project == project, jobs.c.state == State.QUEUED))
            connection.execute(update(predictions).where(of_project).values(delivery=Delivery.READY))
            connection.execute(delete(displays).where(displays.c.project == project))  # which ends its sweep
        return bool(was_connected.rowcount)

    def undelivered(self, project: int) -> None:
        """Record that Label Studio holds none of the project's predictions any more."""
        delivered = (predictions.c.project == project) & (predictions.c.delivery != Delivery.READY)
        with self._db.write() as connection:
            connection.execute(update(predictions).where(delivered).values(delivery=Delivery.READY, delivered_at=0.0))

    def num_pushing(self, project: int, lease_s: float) -> int:
        """How many of the project's predictions are being pushed by workers that have renewed that within the time."""
        pushing = (
            (predictions.c.project == project)
            & (predictions.c.delivery == Delivery.PUSHING)
            & (predictions.c.delivered_at > self._clock() - lease_s)
        )
        with self._db.read() as connection:
            return len(connection.scalars(select(predictions.c.task).where(pushing)).all())

    def forget(self, project: int, tasks: Sequence[int] = (WHOLE_PROJECT,)) -> None:
        """Let nothing more be written about the tasks, or about the project, and delete their queued jobs."""
        of_tasks = jobs.c.project == project
        if WHOLE_PROJECT not in tasks:
            of_tasks &= jobs.c.task.in_(tasks)
        with self._db.write() as connection:
            self._put(connection, project, tasks, FORGOTTEN)
            connection.execute(delete(jobs).where(of_tasks, jobs.c.state == State.QUEUED))
            if WHOLE_PROJECT in tasks:
                connection.execute(update(projects).where(projects.c.id == project).values(connected=False))

    def num_forgotten(self, project: int) -> int:
        """How many single tasks of the project were forgotten."""
        return len(self.forgotten(project))

    def forgotten(self, project: int) -> frozenset[int]:
        """The single tasks of the project that were forgotten."""
        with self._db.read() as connection:
            return forgotten_tasks(connection, project) - {WHOLE_PROJECT}

    def return_project(self, project: int) -> None:
        """Somebody connects the project on purpose, though it was forgotten: it may be written about again.

        Tasks that were forgotten stay so.
        """
        with self._db.write() as connection:
            of_project = (departures.c.project == project) & (departures.c.task == WHOLE_PROJECT)
            connection.execute(delete(departures).where(of_project, departures.c.kind == FORGOTTEN))

    def is_known(self, project: int) -> bool:
        """Whether there is anything about the project, or it was forgotten before."""
        with self._db.read() as connection:
            return any(
                connection.scalar(select(exists().where(column == project)))
                for column in (projects.c.id, departures.c.project, jobs.c.project, predictions.c.project)
            )

    def _put(self, connection: Connection, project: int, tasks: Sequence[int], kind: str) -> None:
        of_tasks = (departures.c.project == project) & departures.c.task.in_(tasks)
        connection.execute(delete(departures).where(of_tasks))
        rows = [{"project": project, "task": task, "kind": kind, "departed_at": self._clock()} for task in tasks]
        connection.execute(insert(departures), rows)
