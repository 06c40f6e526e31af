"""Predictions, and the rule that brings each to Label Studio exactly once.

A prediction reaches Label Studio in one of two ways: inside an answer to `/predict`, which Label Studio stores itself,
or pushed through its API because nobody waits for it any more. `delivery` says which way it goes, and every change of
it is one atomic statement, so that two requests, two workers or a request and a worker can't both take it:

    ready ──► answered          taken by a request that was open
    owed ──► pushing ──► pushed  taken by a worker, which renews its lease as long as it takes; Label Studio is asked
                                 first, so that doing it again is harmless

When its project is disconnected, which takes all predictions out of Label Studio, each is ready again.

A request never answers what was delivered since the request began: that copy is already on its way.

That something was answered is kept through any kill, but not written through to the disk before the answer goes out: a
power cut may undo it. Label Studio sends with each task which predictions it holds, so none is delivered twice for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Text, bindparam, case, cast, delete, or_, select, update

from clapboard.store.database import Database, in_chunks
from clapboard.store.departures import remembered
from clapboard.store.prediction_records import (
    IS_UNDELIVERED,
    Delivery,
    PredictionRecords,
    StoredPrediction,
    TakenPrediction,
)
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
        # Every writer locks several rows in the order of their keys, so that there are no deadlocks.
        self._lock_for_answer = may_be_answered.order_by(*_KEY).with_for_update()
        self._mark_answered = (
            update(predictions).where(asked).values(delivery=Delivery.ANSWERED, delivered_at=bindparam("now"))
        )

    def put(self, connection: Connection, new: Sequence[StoredPrediction], *, push: bool) -> None:
        """Write predictions in the caller's transaction, replacing those of the same tasks for other URIs.

        A prediction that is there for the same URI stays as it is, so that it isn't delivered twice if two workers
        computed it. With `push`, it becomes owed if it is still ready.
        """
        statement = self._db.insert(predictions)
        fresh = {name: statement.excluded[name] for name in _CONTENT}
        is_changed = predictions.c.uri_key != statement.excluded.uri_key
        if push:
            is_changed |= predictions.c.delivery == Delivery.READY
        statement = statement.on_conflict_do_update(index_elements=_KEY, set_=fresh, where=is_changed)
        if rows := remembered(connection, _rows(new, Delivery.OWED if push else Delivery.READY, 0.0)):
            connection.execute(statement, rows)

    def put_all(self, new: Sequence[StoredPrediction], *, push: bool) -> None:
        """Write predictions that a request waits for, or, with `push`, that are owed."""
        with self._db.write() as connection:
            self.put(connection, new, push=push)

    def put_for_push(self, new: Sequence[StoredPrediction]) -> list[StoredPrediction]:
        """Write predictions that the caller pushes itself. Returns those that weren't in the table before."""
        if not new:
            return []
        statement = self._db.insert(predictions).on_conflict_do_nothing().returning(*_KEY)
        with self._db.write() as connection:
            rows = remembered(connection, _rows(new, Delivery.PUSHING, self._clock()))
            written = {tuple(row) for row in connection.execute(statement, rows)} if rows else set()
        return [
            prediction
            for prediction in new
            if (prediction.project, prediction.task, prediction.model_version) in written
        ]

    def cached(self, project: int, uri_keys: dict[int, str], model_version: str) -> set[int]:
        """The tasks that have a prediction of this version for the URI key that `uri_keys` gives them."""
        parameters = {"of_project": project, "version": model_version, "tasks": list(uri_keys)}
        with self._db.read() as connection:
            rows = connection.execute(self._cached, parameters).all()
        return {task for task, uri_key in rows if uri_keys[task] == uri_key}

    def take_for_answer(
        self, project: int, uri_keys: Mapping[int, str], model_version: str, *, since: float, all_or_none: bool = False
    ) -> dict[int, TakenPrediction]:
        """Take the tasks' predictions for a request that began at `since`; they become answered.

        A prediction is left if it isn't for the task's URI key in `uri_keys`, because the task's audio was replaced, or
        if it was delivered since the request began. With `all_or_none`, none is taken unless every task's can be.
        """
        if not uri_keys:
            return {}
        parameters: dict[str, Any] = {"of_project": project, "version": model_version}
        with self._db.write(durable=False) as connection:
            locked = connection.execute(self._lock_for_answer, parameters | {"tasks": list(uri_keys), "since": since})
            taken = {
                task: TakenPrediction(uri_key, model_version, score, result)
                for task, uri_key, score, result in locked.all()
                if uri_keys[task] == uri_key
            }
            if all_or_none and len(taken) < len(uri_keys):
                return {}
            if taken:
                connection.execute(self._mark_answered, parameters | {"tasks": list(taken), "now": self._clock()})
        return taken

    def owe(self, project: int, tasks: Sequence[int], model_version: str) -> set[int]:
        """Mark the tasks' predictions for a worker to push. Returns the tasks that have one.

        The push of one that was just answered is delayed, because Label Studio may be storing it at this moment.
        """
        just_answered = (predictions.c.delivery == Delivery.ANSWERED, predictions.c.delivered_at + STORING_S)
        due_at = case(just_answered, else_=predictions.c.delivered_at)
        owed: set[int] = set()
        with self._db.write() as connection:
            for chunk in in_chunks(sorted(tasks)):
                untaken = _of(project, chunk, model_version) & (predictions.c.delivery != Delivery.PUSHING)
                _lock(connection, untaken)
                rows = connection.scalars(
                    update(predictions)
                    .where(untaken)
                    .values(delivery=Delivery.OWED, delivered_at=due_at)
                    .returning(predictions.c.task)
                )
                owed |= set(rows)
        return owed

    def owe_anew(self, project: int, model_version: str) -> None:
        """Mark all delivered predictions of the version to be pushed again, because Label Studio has lost some.

        Those that it still has are found there before the push, and aren't pushed twice.
        """
        delivered = _of_version(project, model_version) & predictions.c.delivery.in_(
            [Delivery.ANSWERED, Delivery.PUSHED]
        )
        with self._db.write() as connection:
            _lock(connection, delivered)
            connection.execute(update(predictions).where(delivered).values(delivery=Delivery.OWED))

    def take_for_push(self, limit: int, lease_s: float) -> list[StoredPrediction]:
        """Take up to `limit` owed predictions of one project and version, for this worker to push.

        A prediction that another worker took longer than `lease_s` ago and hasn't renewed counts as owed.
        """
        now = self._clock()
        lost = (predictions.c.delivery == Delivery.PUSHING) & (predictions.c.delivered_at < now - lease_s)
        due = (predictions.c.delivery == Delivery.OWED) & (predictions.c.delivered_at <= now)
        waiting = (
            select(predictions.c.project, predictions.c.task, predictions.c.model_version)
            .where(IS_UNDELIVERED, or_(due, lost))
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

    def renew_push(self, project: int, tasks: Sequence[int], model_version: str) -> float:
        """Renew the lease of predictions that this worker is pushing. Returns the time from which it now runs."""
        now = self._clock()
        for chunk in in_chunks(tasks):
            self._leave_pushing(project, chunk, model_version, Delivery.PUSHING, now)
        return now

    def pushed(self, project: int, tasks: Sequence[int], model_version: str) -> None:
        """Record that Label Studio has the tasks' predictions."""
        self._leave_pushing(project, tasks, model_version, Delivery.PUSHED, self._clock())

    def push_later(self, project: int, tasks: Sequence[int], model_version: str, delay_s: float) -> None:
        """Mark predictions that Label Studio didn't accept to be pushed again in `delay_s`."""
        self._leave_pushing(project, tasks, model_version, Delivery.OWED, self._clock() + delay_s)

    def give_up_push(self, project: int, tasks: Sequence[int], model_version: str) -> None:
        """Push these predictions no more, because their task or project is gone; a request can still take them."""
        self._leave_pushing(project, tasks, model_version, Delivery.READY, 0.0)

    def forget_tasks(self, project: int, tasks: Sequence[int]) -> None:
        """Delete all predictions of tasks that no longer exist."""
        with self._db.write() as connection:
            for chunk in in_chunks(sorted(tasks)):
                of_tasks = (predictions.c.project == project) & predictions.c.task.in_(chunk)
                _lock(connection, of_tasks)
                connection.execute(delete(predictions).where(of_tasks))

    def forget_versions(self, project: int, model_versions: Collection[str]) -> None:
        """Delete all predictions of these versions, owed ones too."""
        with self._db.write() as connection:
            for chunk in in_chunks(sorted(model_versions)):
                of_versions = (predictions.c.project == project) & predictions.c.model_version.in_(chunk)
                _lock(connection, of_versions)
                connection.execute(delete(predictions).where(of_versions))

    def _leave_pushing(
        self, project: int, tasks: Sequence[int], model_version: str, delivery: Delivery, delivered_at: float
    ) -> None:
        with self._db.write() as connection:
            for chunk in in_chunks(sorted(tasks)):
                of_tasks = _of(project, chunk, model_version)
                _lock(connection, of_tasks)
                connection.execute(
                    update(predictions)
                    .where(of_tasks, predictions.c.delivery == Delivery.PUSHING)
                    .values(delivery=delivery, delivered_at=delivered_at)
                )


_KEY = [predictions.c.project, predictions.c.task, predictions.c.model_version]


_CONTENT = ("uri_key", "score", "result", "delivery", "delivered_at")


def _rows(new: Sequence[StoredPrediction], delivery: Delivery, delivered_at: float) -> list[dict[str, Any]]:
    """The table's rows in the order of their keys, in which every writer locks them."""
    in_order = sorted(new, key=lambda prediction: (prediction.project, prediction.task, prediction.model_version))
    return [vars(prediction) | {"delivery": delivery, "delivered_at": delivered_at} for prediction in in_order]


def _of_version(project: Any, model_version: Any) -> Any:
    return (predictions.c.project == project) & (predictions.c.model_version == model_version)


def _of(project: int, tasks: Sequence[int], model_version: str) -> Any:
    return _of_version(project, model_version) & predictions.c.task.in_(tasks)


def _may_be_answered(since: Any) -> Any:
    """Spelt out, because an IN list would be expanded anew at each execution."""
    is_free = (predictions.c.delivery == Delivery.READY) | (predictions.c.delivery == Delivery.OWED)
    is_delivered = (predictions.c.delivery == Delivery.ANSWERED) | (predictions.c.delivery == Delivery.PUSHED)
    return is_free | (is_delivered & (predictions.c.delivered_at < since))


def _lock(connection: Connection, condition: Any) -> None:
    """Lock the rows in the order of their keys, as every writer does, so that there are no deadlocks."""
    connection.execute(select(predictions.c.task).where(condition).order_by(*_KEY).with_for_update())


def _prediction(row: Row[Any]) -> StoredPrediction:
    return StoredPrediction(row.project, row.task, row.model_version, row.uri_key, row.score, row.result)
