"""Predictions, and the rule that brings each to Label Studio exactly once.

A prediction reaches Label Studio in one of two ways: inside an answer to `/predict`, which Label Studio stores itself,
or pushed through its API because nobody waits for it any more. `delivery` says which way it goes, and every change of
it is one atomic statement, so that two requests, two workers or a request and a worker can't both take it:

    ready ──► answered          taken by a request that was open
    owed ──► pushing ──► pushed  taken by a worker; Label Studio is asked first, so that doing it again is harmless

A request never answers what was delivered since the request began: that copy is already on its way.

That something was answered is kept through any kill, but not written through to the disk before the answer goes out: a
power cut may undo it. Label Studio sends with each task which predictions it holds, so none is delivered twice for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Text, bindparam, case, cast, delete, or_, select, update

from clapboard.store.database import Database, in_chunks
from clapboard.store.prediction_records import Delivery, PredictionRecords, StoredPrediction, TakenPrediction
from clapboard.store.schema import predictions

__all__ = ["Delivery", "PredictionStore", "StoredPrediction", "TakenPrediction"]

STORING_S = 5.0
"""How long Label Studio may take from our answer to having stored it."""


class PredictionStore(PredictionRecords):
    """The predictions table."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        super().__init__(database)
        self._clock = clock
        asked = _of_version(bindparam("of_project"), bindparam("version")) & database.among(predictions.c.task, "tasks")
        self._cached = select(predictions.c.task, predictions.c.uri_key).where(asked)
        may_be_answered = select(
            predictions.c.task, predictions.c.uri_key, predictions.c.score, cast(predictions.c.result, Text)
        ).where(asked, _may_be_answered(bindparam("since")))
        # In the order of their keys, in which all who write several rows wait for them: no two wait for each other.
        self._lock_for_answer = may_be_answered.order_by(*_KEY).with_for_update()
        self._mark_answered = (
            update(predictions).where(asked).values(delivery=Delivery.ANSWERED, delivered_at=bindparam("now"))
        )

    def put(self, connection: Connection, found: Sequence[StoredPrediction], *, push: bool) -> None:
        """Write predictions, or replace those of other URIs, in the caller's transaction.

        One that is there for the same URI stays as it is, so that what was delivered is not delivered again because
        two computed it; but it becomes owed if it still waits to be taken.
        """
        statement = self._db.insert(predictions)
        fresh = {name: statement.excluded[name] for name in _CONTENT}
        news = predictions.c.uri_key != statement.excluded.uri_key
        if push:
            news |= predictions.c.delivery == Delivery.READY
        statement = statement.on_conflict_do_update(index_elements=_KEY, set_=fresh, where=news)
        if found:
            connection.execute(statement, _rows(found, Delivery.OWED if push else Delivery.READY, 0.0))

    def put_all(self, found: Sequence[StoredPrediction], *, push: bool) -> None:
        """Write predictions that somebody waits for, or, with `push`, that are owed."""
        with self._db.write() as connection:
            self.put(connection, found, push=push)

    def put_for_push(self, found: Sequence[StoredPrediction]) -> list[StoredPrediction]:
        """Write predictions of a new version that the caller pushes by itself; those that were there are left out."""
        if not found:
            return []
        statement = self._db.insert(predictions).on_conflict_do_nothing().returning(*_KEY)
        with self._db.write() as connection:
            rows = connection.execute(statement, _rows(found, Delivery.PUSHING, self._clock()))
            written = {tuple(row) for row in rows}
        return [one for one in found if (one.project, one.task, one.model_version) in written]

    def cached(self, project: int, wanted: dict[int, str], model_version: str) -> set[int]:
        """Those of the tasks (task → URI key) that have a prediction of this version for that very URI."""
        asked = {"of_project": project, "version": model_version, "tasks": list(wanted)}
        with self._db.read() as connection:
            held = connection.execute(self._cached, asked).all()
        return {task for task, uri_key in held if wanted[task] == uri_key}

    def take_for_answer(
        self, project: int, wanted: Mapping[int, str], model_version: str, *, since: float, all_or_none: bool = False
    ) -> dict[int, TakenPrediction]:
        """The predictions that the request which began at `since` may answer; they count as answered.

        `wanted` says for which URI key each task's prediction must be: a task's audio may have been replaced. With
        `all_or_none`, nothing is taken unless every task's may be answered.
        """
        if not wanted:
            return {}
        asked = {"of_project": project, "version": model_version}
        with self._db.write(durable=False) as connection:
            rows = connection.execute(self._lock_for_answer, asked | {"tasks": list(wanted), "since": since}).all()
            taken = {
                task: TakenPrediction(uri_key, model_version, score, result)
                for task, uri_key, score, result in rows
                if wanted[task] == uri_key
            }
            if all_or_none and len(taken) < len(wanted):
                return {}
            if taken:
                connection.execute(self._mark_answered, asked | {"tasks": list(taken), "now": self._clock()})
        return taken

    def owe(self, project: int, tasks: Sequence[int], model_version: str) -> set[int]:
        """Have the tasks' predictions pushed by a worker, as far as they exist; which ones do.

        One that was just answered waits a little: Label Studio may be storing it at this moment.
        """
        just_answered = (predictions.c.delivery == Delivery.ANSWERED, predictions.c.delivered_at + STORING_S)
        due_at = case(just_answered, else_=predictions.c.delivered_at)
        found: set[int] = set()
        with self._db.write() as connection:
            for some in in_chunks(sorted(tasks)):
                may = _of(project, some, model_version) & (predictions.c.delivery != Delivery.PUSHING)
                _lock(connection, may)
                rows = connection.scalars(
                    update(predictions)
                    .where(may)
                    .values(delivery=Delivery.OWED, delivered_at=due_at)
                    .returning(predictions.c.task)
                )
                found |= set(rows)
        return found

    def take_for_push(self, limit: int, lease_s: float) -> list[StoredPrediction]:
        """Up to `limit` owed predictions of one project and version, for this worker to push.

        Also those that another worker took longer than `lease_s` ago and never finished.
        """
        now = self._clock()
        lost = (predictions.c.delivery == Delivery.PUSHING) & (predictions.c.delivered_at < now - lease_s)
        due = (predictions.c.delivery == Delivery.OWED) & (predictions.c.delivered_at <= now)
        waiting = (
            select(predictions.c.project, predictions.c.task, predictions.c.model_version)
            .where(or_(due, lost))
            .order_by(predictions.c.project, predictions.c.model_version, predictions.c.task)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        with self._db.write() as connection:
            rows = connection.execute(waiting).all()
            if not rows:
                return []
            first = rows[0]
            tasks = [r.task for r in rows if (r.project, r.model_version) == (first.project, first.model_version)]
            taken = connection.execute(
                update(predictions)
                .where(_of(first.project, tasks, first.model_version))
                .values(delivery=Delivery.PUSHING, delivered_at=now)
                .returning(*predictions.c)
            ).all()
        return sorted(map(_prediction, taken), key=lambda prediction: prediction.task)

    def pushed(self, project: int, tasks: Sequence[int], model_version: str) -> None:
        """The tasks' predictions are in Label Studio."""
        self._leave_pushing(project, tasks, model_version, Delivery.PUSHED, self._clock())

    def push_later(self, project: int, tasks: Sequence[int], model_version: str, delay_s: float) -> None:
        """Label Studio didn't take them: they are owed again, in `delay_s`."""
        self._leave_pushing(project, tasks, model_version, Delivery.OWED, self._clock() + delay_s)

    def give_up_push(self, project: int, tasks: Sequence[int], model_version: str) -> None:
        """Label Studio will never take them (the task or the project is gone): keep them for who asks."""
        self._leave_pushing(project, tasks, model_version, Delivery.READY, 0.0)

    def forget_tasks(self, project: int, tasks: Sequence[int]) -> None:
        """Drop all predictions of tasks that no longer exist."""
        with self._db.write() as connection:
            of_tasks = (predictions.c.project == project) & predictions.c.task.in_(tasks)
            _lock(connection, of_tasks)
            connection.execute(delete(predictions).where(of_tasks))

    def forget_versions(self, project: int, model_versions: Collection[str]) -> None:
        """Drop all predictions of those versions; what is owed of them is owed no more."""
        of_versions = (predictions.c.project == project) & predictions.c.model_version.in_(sorted(model_versions))
        with self._db.write() as connection:
            _lock(connection, of_versions)
            connection.execute(delete(predictions).where(of_versions))

    def _leave_pushing(
        self, project: int, tasks: Sequence[int], model_version: str, delivery: Delivery, delivered_at: float
    ) -> None:
        with self._db.write() as connection:
            _lock(connection, _of(project, tasks, model_version))
            connection.execute(
                update(predictions)
                .where(_of(project, tasks, model_version), predictions.c.delivery == Delivery.PUSHING)
                .values(delivery=delivery, delivered_at=delivered_at)
            )


_KEY = [predictions.c.project, predictions.c.task, predictions.c.model_version]


_CONTENT = ("uri_key", "score", "result", "delivery", "delivered_at")


def _rows(found: Sequence[StoredPrediction], delivery: Delivery, delivered_at: float) -> list[dict[str, Any]]:
    """The table's rows in the order of their keys, in which all who write several wait for them."""
    in_order = sorted(found, key=lambda one: (one.project, one.task, one.model_version))
    return [vars(one) | {"delivery": delivery, "delivered_at": delivered_at} for one in in_order]


def _of_version(project: Any, model_version: Any) -> Any:
    return (predictions.c.project == project) & (predictions.c.model_version == model_version)


def _of(project: int, tasks: Sequence[int], model_version: str) -> Any:
    return _of_version(project, model_version) & predictions.c.task.in_(tasks)


def _may_be_answered(since: Any) -> Any:
    """Spelt out: a list would be expanded anew at each execution."""
    is_free = (predictions.c.delivery == Delivery.READY) | (predictions.c.delivery == Delivery.OWED)
    is_delivered = (predictions.c.delivery == Delivery.ANSWERED) | (predictions.c.delivery == Delivery.PUSHED)
    return is_free | (is_delivered & (predictions.c.delivered_at < since))


def _lock(connection: Connection, condition: Any) -> None:
    """Wait for the rows in the order of their keys, as all do who write several, so that no two wait for each other."""
    connection.execute(select(predictions.c.task).where(condition).order_by(*_KEY).with_for_update())


def _prediction(row: Row[Any]) -> StoredPrediction:
    return StoredPrediction(row.project, row.task, row.model_version, row.uri_key, row.score, row.result)
