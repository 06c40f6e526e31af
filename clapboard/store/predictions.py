"""Predictions, and the rule that brings each to Label Studio exactly once.

A prediction reaches Label Studio in one of two ways: inside an answer to `/predict`, which Label Studio stores itself,
or pushed through its API because nobody waits for it any more. `delivery` says which way it goes, and every change of
it is one atomic statement, so that two requests, two workers or a request and a worker can't both take it:

    ready ──► answered          taken by a request that was open
    owed ──► pushing ──► pushed  taken by a worker, which renews its lease as long as it takes; Label Studio is asked
                                 first, so that doing it again is harmless

All versions of one encoder and label space have one name in Label Studio (`prediction.shown_name`), and a task has one
prediction of that name there. When a later version's is pushed, Label Studio's is changed into it, and ours of the
version before becomes `replaced`: people may have it open still. One that is owed when a later one comes is deleted.

While a later version's are brought there, Label Studio may ask for its predictions under the version's own name
(`displays.Display.asks`), and so has a second prediction of a task. It is owed under the shared name in the end.

When its project is disconnected, which takes all predictions out of Label Studio, each is ready again.

A request never answers what was delivered since the request began: that copy is already on its way.

That something was answered is kept through any kill, but not written through to the disk before the answer goes out: a
power cut may undo it. Label Studio sends with each task which predictions it holds, so none is delivered twice for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Text, bindparam, case, cast, delete, exists, or_, select, update

from clapboard.store.database import Database, in_chunks
from clapboard.store.departures import remembered
from clapboard.store.prediction_records import (
    IN_LABEL_STUDIO,
    IS_UNDELIVERED,
    Delivery,
    PredictionRecords,
    StoredPrediction,
    TakenPrediction,
    held_as,
    stored_prediction,
)
from clapboard.store.schema import predictions
from clapboard.suggest.prediction import shown_name

__all__ = ["Delivery", "PredictionStore", "StoredPrediction", "TakenPrediction"]

CHANGES_AT_ONCE = 20
"""One push changes so many: each takes Label Studio 0.1 s, and a later version may change it again."""

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
        ).where(asked, _may_be_answered(bindparam("since")), ~_is_on_its_way(bindparam("since")))
        # Every writer locks several rows in the order of their keys, so that there are no deadlocks.
        self._lock_for_answer = may_be_answered.order_by(*_KEY).with_for_update()
        self._mark_answered = (
            update(predictions)
            .where(asked)
            .values(delivery=Delivery.ANSWERED, delivered_at=bindparam("now"), shown_as=bindparam("name"))
        )
        self._lock_all = (
            select(predictions.c.task, predictions.c.uri_key, predictions.c.score, cast(predictions.c.result, Text))
            .where(asked)
            .order_by(*_KEY)
            .with_for_update()
        )
        is_undelivered = (predictions.c.delivery == Delivery.READY) | (predictions.c.delivery == Delivery.OWED)
        self._mark_taken = self._mark_answered.where(is_undelivered)

    def put(self, connection: Connection, new: Sequence[StoredPrediction], *, push: bool) -> None:
        """Write predictions in the caller's transaction, replacing those of the same tasks for other URIs.

        A prediction that is there for the same URI stays as it is, so that it isn't delivered twice if two workers
        computed it. With `push`, it becomes owed if it is still ready, or if a later version's has replaced it.
        """
        statement = self._db.insert(predictions)
        fresh = {name: statement.excluded[name] for name in _CONTENT}
        is_changed = predictions.c.uri_key != statement.excluded.uri_key
        if push:
            is_changed |= (predictions.c.delivery == Delivery.READY) | (predictions.c.delivery == Delivery.REPLACED)
        statement = statement.on_conflict_do_update(index_elements=_KEY, set_=fresh, where=is_changed)
        rows = remembered(connection, _rows(new, Delivery.OWED if push else Delivery.READY, 0.0))
        if not rows:
            return
        connection.execute(statement, rows)
        if push:
            for project, model_version, tasks in _by_version(new):
                _drop_owed(connection, project, tasks, model_version)

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

    def claim(self, new: Sequence[StoredPrediction]) -> list[StoredPrediction]:
        """Write predictions of one project and version that the caller pushes itself, or write them anew.

        Returns them without those of tasks to which another worker is pushing one of the same name at this moment.
        """
        if not new:
            return []
        project, model_version, name = new[0].project, new[0].model_version, new[0].shown_as
        tasks = sorted(prediction.task for prediction in new)
        statement = self._db.insert(predictions)
        fresh = {column: statement.excluded[column] for column in _CONTENT}
        statement = statement.on_conflict_do_update(index_elements=_KEY, set_=fresh)
        with self._db.write() as connection:
            busy: set[int] = set()
            for chunk in in_chunks(tasks):
                of_name = (predictions.c.project == project) & predictions.c.task.in_(chunk)
                of_name &= (predictions.c.shown_as == name) & (predictions.c.delivery == Delivery.PUSHING)
                busy |= set(connection.scalars(select(predictions.c.task).where(of_name)))
            claimed = [prediction for prediction in new if prediction.task not in busy]
            if rows := remembered(connection, _rows(claimed, Delivery.PUSHING, self._clock())):
                kept = {row["task"] for row in rows}
                claimed = [prediction for prediction in claimed if prediction.task in kept]
                connection.execute(statement, rows)
                _drop_owed(connection, project, sorted(kept), model_version)
        return claimed if rows else []

    def cached(self, project: int, uri_keys: dict[int, str], model_version: str) -> set[int]:
        """The tasks that have a prediction of this version for the URI key that `uri_keys` gives them."""
        parameters = {"of_project": project, "version": model_version, "tasks": list(uri_keys)}
        with self._db.read() as connection:
            rows = connection.execute(self._cached, parameters).all()
        return {task for task, uri_key in rows if uri_keys[task] == uri_key}

    def take_for_answer(
        self,
        project: int,
        uri_keys: Mapping[int, str],
        model_version: str,
        *,
        since: float,
        all_or_none: bool = False,
        own_name: bool = False,
    ) -> dict[int, TakenPrediction]:
        """Take the tasks' predictions for a request that began at `since`; they become answered.

        A prediction is left if it isn't for the task's URI key in `uri_keys`, because the task's audio was replaced, or
        if it was delivered since the request began. With `all_or_none`, none is taken unless every task's can be. With
        `own_name`, they are answered under the version's own name, beside what Label Studio has or gets under the
        shared one: then none is left because it was delivered, and one that is delivered stays as it is.
        """
        if not uri_keys:
            return {}
        parameters: dict[str, Any] = {"of_project": project, "version": model_version}
        lock, name = (self._lock_all, model_version) if own_name else (self._lock_for_answer, shown_name(model_version))
        asked = {"tasks": list(uri_keys)} if own_name else {"tasks": list(uri_keys), "since": since}
        with self._db.write(durable=False) as connection:
            taken = {
                task: TakenPrediction(uri_key, name, score, result)
                for task, uri_key, score, result in connection.execute(lock, parameters | asked).all()
                if uri_keys[task] == uri_key
            }
            if all_or_none and len(taken) < len(uri_keys):
                return {}
            if taken:
                marks = {"tasks": list(taken), "now": self._clock(), "name": name}
                connection.execute(self._mark_taken if own_name else self._mark_answered, parameters | marks)
                if not own_name:
                    _replace(connection, project, list(taken), model_version)
                    _drop_owed(connection, project, list(taken), model_version)
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
                    .values(delivery=Delivery.OWED, delivered_at=due_at, shown_as=shown_name(model_version))
                    .returning(predictions.c.task)
                )
                owed |= (of_chunk := set(rows))
                _drop_owed(connection, project, sorted(of_chunk), model_version)
        return owed

    def under_own_name(self, project: int, model_version: str) -> set[int]:
        """The tasks whose prediction by the version an earlier release delivered, under the version's own name."""
        delivered = (predictions.c.shown_as == "") & predictions.c.delivery.in_(IN_LABEL_STUDIO)
        if shown_name(model_version) == model_version:
            return set()
        with self._db.read() as connection:
            query = select(predictions.c.task).where(_of_version(project, model_version), delivered)
            return set(connection.scalars(query))

    def owe_answered(self, project: int, model_version: str) -> None:
        """Owe, under the shared name, what was answered under the version's own: the Data Manager shows that one."""
        of_version = _of_version(project, model_version) & (predictions.c.shown_as == model_version)
        with self._db.read() as connection:
            tasks = list(connection.scalars(select(predictions.c.task).where(of_version)))
        if tasks and shown_name(model_version) != model_version:
            self.owe(project, tasks, model_version)

    def supersede(self, project: int, model_version: str) -> None:
        """Owe no more what other versions of the same name would change: this one serves now.

        What Label Studio has of those tasks is compared with the new version's anyway.
        """
        is_other = (predictions.c.project == project) & (predictions.c.shown_as == shown_name(model_version))
        is_other &= predictions.c.model_version != model_version
        is_change = _has_other(_other.c.delivery.in_(IN_LABEL_STUDIO))
        owed = is_other & IS_UNDELIVERED & (predictions.c.delivery == Delivery.OWED) & is_change
        with self._db.write() as connection:
            _lock(connection, owed)
            connection.execute(delete(predictions).where(owed))

    def owe_anew(self, project: int, shown_as: str) -> None:
        """Mark all predictions that Label Studio was given under this name to be pushed again: it has lost some.

        Those that it still has are found there before the push, and aren't pushed twice.
        """
        delivered = held_as(project, shown_as) & predictions.c.delivery.in_(IN_LABEL_STUDIO)
        with self._db.write() as connection:
            _lock(connection, delivered)
            connection.execute(update(predictions).where(delivered).values(delivery=Delivery.OWED))

    def take_for_push(self, limit: int, lease_s: float) -> list[StoredPrediction]:
        """Take up to `limit` owed predictions of one project and version, for this worker to push.

        Either none or all of them replace one in Label Studio; of those, some `CHANGES_AT_ONCE`.

        A prediction that another worker took longer than `lease_s` ago and hasn't renewed counts as owed.
        """
        now = self._clock()
        lost = (predictions.c.delivery == Delivery.PUSHING) & (predictions.c.delivered_at < now - lease_s)
        due = (predictions.c.delivery == Delivery.OWED) & (predictions.c.delivered_at <= now)
        other_is_pushing = _has_other(_other.c.delivery == Delivery.PUSHING)
        is_change = _has_other(_other.c.delivery.in_(IN_LABEL_STUDIO))
        waiting = (
            select(*_KEY, is_change.label("is_change"))
            .where(IS_UNDELIVERED, or_(due & ~other_is_pushing, lost))
            .order_by(predictions.c.project, predictions.c.model_version, predictions.c.task)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        with self._db.write() as connection:
            rows = connection.execute(waiting).all()
            if not rows:
                return []
            first = rows[0]
            of_kind = [row for row in rows if (row[0], *row[2:]) == (first[0], *first[2:])]
            tasks = [row.task for row in (of_kind[:CHANGES_AT_ONCE] if first.is_change else of_kind)]
            taken = connection.execute(
                update(predictions)
                .where(_of(first.project, tasks, first.model_version))
                .values(delivery=Delivery.PUSHING, delivered_at=now, shown_as=shown_name(first.model_version))
                .returning(*predictions.c)
            ).all()
        return sorted(map(stored_prediction, taken), key=lambda prediction: prediction.task)

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

    def forget_names(self, project: int, names: Collection[str], *, before: float = math.inf) -> None:
        """Delete what was delivered under these names in Label Studio before that time, and what is owed."""
        with self._db.write() as connection:
            for name in sorted(names):
                of_name = held_as(project, name)
                if before < math.inf:
                    of_name &= predictions.c.delivered_at < before
                _lock(connection, of_name)
                connection.execute(delete(predictions).where(of_name))

    def forget_replaced(self, project: int, before: float) -> None:
        """Delete predictions that a later version's replaced before that time, and those that nobody was given."""
        is_replaced = predictions.c.delivery == Delivery.REPLACED
        later = _has_other(_other.c.delivered_at > predictions.c.delivered_at, _other.c.delivered_at < before)
        is_unused = (predictions.c.delivery == Delivery.READY) & _has_other(_other.c.delivered_at < before)
        of_project = (predictions.c.project == project) & ((is_replaced & later) | is_unused)
        with self._db.write() as connection:
            _lock(connection, of_project)
            connection.execute(delete(predictions).where(of_project))

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
                if delivery == Delivery.PUSHED:
                    _replace(connection, project, chunk, model_version)


_KEY = [predictions.c.project, predictions.c.task, predictions.c.model_version]


_CONTENT = ("uri_key", "score", "result", "delivery", "delivered_at", "shown_as")

_other = predictions.alias("other")


def _rows(new: Sequence[StoredPrediction], delivery: Delivery, delivered_at: float) -> list[dict[str, Any]]:
    """The table's rows in the order of their keys, in which every writer locks them."""
    in_order = sorted(new, key=lambda prediction: (prediction.project, prediction.task, prediction.model_version))
    return [
        vars(prediction) | {"delivery": delivery, "delivered_at": delivered_at, "shown_as": prediction.shown_as}
        for prediction in in_order
    ]


def _by_version(new: Sequence[StoredPrediction]) -> list[tuple[int, str, list[int]]]:
    """Project, version and tasks of the predictions."""
    tasks: dict[tuple[int, str], list[int]] = {}
    for prediction in new:
        tasks.setdefault((prediction.project, prediction.model_version), []).append(prediction.task)
    return [(project, model_version, sorted(ids)) for (project, model_version), ids in sorted(tasks.items())]


def _of_version(project: Any, model_version: Any) -> Any:
    return (predictions.c.project == project) & (predictions.c.model_version == model_version)


def _of(project: int, tasks: Sequence[int], model_version: str) -> Any:
    return _of_version(project, model_version) & predictions.c.task.in_(tasks)


def _may_be_answered(since: Any) -> Any:
    """Spelt out, because an IN list would be expanded anew at each execution."""
    is_free = (
        (predictions.c.delivery == Delivery.READY)
        | (predictions.c.delivery == Delivery.OWED)
        | (predictions.c.delivery == Delivery.REPLACED)
    )
    is_delivered = (predictions.c.delivery == Delivery.ANSWERED) | (predictions.c.delivery == Delivery.PUSHED)
    return is_free | (is_delivered & (predictions.c.delivered_at < since))


def _is_on_its_way(since: Any) -> Any:
    """Whether Label Studio has got another version's prediction of the same name since then, or is about to."""
    is_delivered = (_other.c.delivery == Delivery.ANSWERED) | (_other.c.delivery == Delivery.PUSHED)
    return _has_other((_other.c.delivery == Delivery.PUSHING) | (is_delivered & (_other.c.delivered_at >= since)))


def _has_other(*conditions: Any) -> Any:
    """Whether the task has such a prediction by another version of the same name."""
    return exists().where(
        _other.c.project == predictions.c.project,
        _other.c.task == predictions.c.task,
        _other.c.model_version != predictions.c.model_version,
        _other.c.shown_as == predictions.c.shown_as,
        *conditions,
    )


def _of_others(project: int, tasks: Sequence[int], model_version: str) -> Any:
    """The tasks' predictions by other versions of the same name."""
    of_tasks = (predictions.c.project == project) & predictions.c.task.in_(tasks)
    return (
        of_tasks
        & (predictions.c.shown_as == shown_name(model_version))
        & (predictions.c.model_version != model_version)
    )


def _drop_owed(connection: Connection, project: int, tasks: Sequence[int], model_version: str) -> None:
    """Delete what is owed to these tasks by other versions of the same name, because this one's comes instead."""
    for chunk in in_chunks(tasks):
        owed = _of_others(project, chunk, model_version) & (predictions.c.delivery == Delivery.OWED)
        _lock(connection, owed)
        connection.execute(delete(predictions).where(owed))


def _replace(connection: Connection, project: int, tasks: Sequence[int], model_version: str) -> None:
    """Mark what Label Studio had of other versions of the same name as replaced by this one's."""
    for chunk in in_chunks(tasks):
        delivered = _of_others(project, chunk, model_version) & predictions.c.delivery.in_(IN_LABEL_STUDIO)
        _lock(connection, delivered)
        connection.execute(update(predictions).where(delivered).values(delivery=Delivery.REPLACED))


def _lock(connection: Connection, condition: Any) -> None:
    """Lock the rows in the order of their keys, as every writer does, so that there are no deadlocks."""
    connection.execute(select(predictions.c.task).where(condition).order_by(*_KEY).with_for_update())
