"""Work under way, by project: how much of it is done, its rate in the last minutes, and the time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Row, case, cast, func, select, true

from clapboard.queue.pace import RATE_OVER_S, time_left_s
from clapboard.store.database import Database
from clapboard.store.job_records import OPEN, State
from clapboard.store.predictions import Delivery
from clapboard.store.schema import job_tallies, jobs, prediction_tallies, predictions

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
        now = self._clock()
        group = (jobs.c.project, jobs.c.queue, jobs.c.model_version)
        lately = (jobs.c.finished_at > now - RATE_OVER_S) & jobs.c.state.in_([State.DONE, State.FAILED])
        ended = select(*group, func.count().label("num"), func.min(jobs.c.started_at).label("since"))
        ended = ended.where(jobs.c.kind == "predict", lately, jobs.c.started_at.is_not(None)).group_by(*group)
        rates = {tuple(row[:3]): (row.num, row.since) for row in connection.execute(ended)}
        tallies = job_tallies.c
        for row in _unfinished(
            connection,
            (tallies.project, tallies.queue, tallies.model_version),
            tallies.num,
            tallies.state.in_(OPEN),
            of=_of(tallies.project, project) & (tallies.kind == "predict"),
        ):
            num_lately, first = rates.get(tuple(row[:3]), (0, 0.0))
            since = max(first, now - RATE_OVER_S)
            per_s = num_lately / (now - since) if num_lately and now > since else None
            yield _under_way(row, row.queue, per_s)

    def _pushing(self, connection: Connection, project: int | None) -> Iterator[UnderWay]:
        tallies = prediction_tallies.c
        is_owed = tallies.delivery.in_([Delivery.OWED, Delivery.PUSHING])
        for row in _unfinished(
            connection,
            (tallies.project, tallies.model_version),
            tallies.num,
            is_owed,
            of=_of(tallies.project, project) & (is_owed | (tallies.delivery == Delivery.PUSHED)),
        ):
            yield _under_way(row, PUSH, self._pushed_per_s(connection, row))

    def _pushed_per_s(self, connection: Connection, row: Row[Any]) -> float | None:
        """The rate since the first push of the last minutes ended, because when it began isn't known."""
        now = self._clock()
        of_version = (predictions.c.project == row.project) & (predictions.c.model_version == row.model_version)
        pushed = of_version & (predictions.c.delivery == Delivery.PUSHED)
        lately = pushed & (predictions.c.delivered_at > now - RATE_OVER_S)
        since = connection.scalar(select(func.min(predictions.c.delivered_at)).where(lately))
        if since is None or now <= since:
            return None
        num_pushed = connection.scalar(select(func.count()).where(pushed, predictions.c.delivered_at > since)) or 0
        return num_pushed / (now - since) if num_pushed else None


def _unfinished(
    connection: Connection, group: Sequence[Any], num: Any, is_left: ColumnElement[bool], *, of: ColumnElement[bool]
) -> Sequence[Any]:
    """The groups of tallies that have something left, with what they have in all."""
    left = func.sum(case((is_left, num), else_=0))
    query = select(*group, cast(func.sum(num), BigInteger).label("total"), cast(left, BigInteger).label("left"))
    return connection.execute(query.where(of).group_by(*group).having(left > 0)).all()


def _of(column: ColumnElement[int], project: int | None) -> ColumnElement[bool]:
    return true() if project is None else column == project


def _under_way(row: Row[Any], queue: str, per_s: float | None) -> UnderWay:
    return UnderWay(row.project, queue, row.model_version, row.total - row.left, row.total, per_s)
