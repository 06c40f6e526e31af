"""Work under way, by project: how much of it is done, its rate in the last minutes, and the time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, case, func, select, tuple_

from clapboard.queue.pace import RATE_OVER_S, time_left_s
from clapboard.store.database import Database
from clapboard.store.job_records import OPEN, State
from clapboard.store.predictions import Delivery
from clapboard.store.schema import jobs, predictions

PUSH = "push"


@dataclass(frozen=True)
class UnderWay:
    """Work on one model version of a project: its `predict` jobs in one queue, or the pushes of its predictions.

    `num_done` of `num_total` have ended, ever. `per_s` is None if none has ended lately.
    """

    project: int
    queue: str  # `PUSH` for predictions on their way to Label Studio
    model_version: str
    num_done: int
    num_total: int
    per_s: float | None

    @property
    def eta_s(self) -> float | None:
        """The seconds until all is done, at the rate of the last minutes; None if that isn't known."""
        return time_left_s(self.num_total - self.num_done, self.per_s)


class ProgressReader:
    """Queries of the jobs and predictions tables about work under way."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._db = database
        self._clock = clock

    def under_way(self, project: int | None = None) -> list[UnderWay]:
        """All unfinished work, of one project or of all, sorted."""
        with self._db.read() as connection:
            unfinished = [*self._predicting(connection, project), *self._pushing(connection, project)]
        return sorted(unfinished, key=lambda work: (work.project, work.model_version, work.queue == PUSH, work.queue))

    def _predicting(self, connection: Connection, project: int | None) -> Iterator[UnderWay]:
        group = (jobs.c.project, jobs.c.queue, jobs.c.model_version)
        now = self._clock()
        is_open = jobs.c.state.in_(OPEN)
        lately = jobs.c.state.in_([State.DONE, State.FAILED]) & (jobs.c.finished_at > now - RATE_OVER_S)
        lately &= jobs.c.started_at.is_not(None)
        waiting = select(*group).distinct().where(is_open, jobs.c.kind == "predict")
        query = (
            select(
                *group,
                func.count().label("total"),
                func.count().filter(is_open).label("left"),
                func.count().filter(lately).label("lately"),
                func.min(case((lately, jobs.c.started_at))).label("since"),
            )
            .where(jobs.c.kind == "predict", tuple_(*group).in_(_of(waiting, jobs.c.project, project)))
            .group_by(*group)
        )
        for row in connection.execute(query):
            since = max(row.since or 0.0, now - RATE_OVER_S)
            per_s = row.lately / (now - since) if row.lately and now > since else None
            yield _under_way(row, row.queue, per_s)

    def _pushing(self, connection: Connection, project: int | None) -> Iterator[UnderWay]:
        group = (predictions.c.project, predictions.c.model_version)
        now = self._clock()
        is_owed = predictions.c.delivery.in_([Delivery.OWED, Delivery.PUSHING])
        is_pushed = predictions.c.delivery == Delivery.PUSHED
        lately = is_pushed & (predictions.c.delivered_at > now - RATE_OVER_S)
        owing = select(*group).distinct().where(is_owed)
        query = (
            select(
                *group,
                func.count().filter(is_owed | is_pushed).label("total"),
                func.count().filter(is_owed).label("left"),
                func.min(case((lately, predictions.c.delivered_at))).label("since"),
            )
            .where(tuple_(*group).in_(_of(owing, predictions.c.project, project)))
            .group_by(*group)
        )
        for row in connection.execute(query).all():
            yield _under_way(row, PUSH, self._pushed_per_s(connection, row, now))

    def _pushed_per_s(self, connection: Connection, row: Row[Any], now: float) -> float | None:
        """The rate since the first push of the last minutes ended, because when it began isn't known."""
        if row.since is None or now <= row.since:
            return None
        after = (predictions.c.delivery == Delivery.PUSHED) & (predictions.c.delivered_at > row.since)
        of_version = (predictions.c.project == row.project) & (predictions.c.model_version == row.model_version)
        num_pushed = connection.scalar(select(func.count()).where(of_version, after)) or 0
        return num_pushed / (now - row.since) if num_pushed else None


def _of(groups: Any, column: Any, project: int | None) -> Any:
    """The groups with work under way, of one project or of all."""
    return groups if project is None else groups.where(column == project)


def _under_way(row: Row[Any], queue: str, per_s: float | None) -> UnderWay:
    return UnderWay(row.project, queue, row.model_version, row.total - row.left, row.total, per_s)
