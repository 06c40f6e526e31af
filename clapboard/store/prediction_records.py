"""Queries of the predictions table. `clapboard.store.predictions` has what changes it, and the rule for that."""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, cast, func, select, text

from clapboard.feedback.suggestions import Suggestion
from clapboard.store.database import Database, in_chunks
from clapboard.store.schema import prediction_tallies, predictions


class Delivery(enum.StrEnum):
    """How far a prediction has got on its way to Label Studio."""

    READY = "ready"
    ANSWERED = "answered"
    OWED = "owed"
    PUSHING = "pushing"
    PUSHED = "pushed"


# Spelt as in the index, which a database recognises only without parameters.
IS_UNDELIVERED = text("predictions.delivery IN ('owed', 'pushing')")


@dataclass(frozen=True)
class StoredPrediction:
    """One task's prediction by one model version; `result` is Label Studio's list of results."""

    project: int
    task: int
    model_version: str
    uri_key: str
    score: float
    result: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """The prediction as an answer to `/predict` has it."""
        return {"result": self.result, "score": self.score, "model_version": self.model_version}


class TakenPrediction(NamedTuple):
    """A prediction that was taken for an answer, with its result as the JSON text that the table has."""

    uri_key: str
    model_version: str
    score: float
    result: str

    def as_json(self) -> dict[str, Any]:
        """The prediction as an answer to `/predict` has it."""
        return {"result": json.loads(self.result), "score": self.score, "model_version": self.model_version}

    def as_text(self) -> str:
        """The same as JSON text, without parsing the result."""
        return f'{{"result":{self.result},"score":{self.score!r},"model_version":{_quoted(self.model_version)}}}'


class PredictionRecords:
    """The part of `PredictionStore` that only reads."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def delivered(self, project: int, tasks: Sequence[int]) -> dict[int, list[Suggestion]]:
        """By task, the predictions of any version that Label Studio has, or may have by now."""
        delivered = predictions.c.delivery.in_([Delivery.ANSWERED, Delivery.PUSHING, Delivery.PUSHED])
        suggestions: dict[int, list[Suggestion]] = {}
        with self._db.read() as connection:
            for chunk in in_chunks(tasks):
                of_tasks = (predictions.c.project == project) & predictions.c.task.in_(chunk)
                for row in connection.execute(select(predictions).where(of_tasks, delivered)):
                    suggestion = Suggestion(row.model_version, row.score, row.result, row.delivered_at)
                    suggestions.setdefault(row.task, []).append(suggestion)
        return suggestions

    def results(self, project: int, tasks: Sequence[int], model_version: str) -> dict[int, list[dict[str, Any]]]:
        """By task, the results of its prediction by this version, whether Label Studio has it yet or not."""
        of_version = (predictions.c.project == project) & (predictions.c.model_version == model_version)
        results: dict[int, list[dict[str, Any]]] = {}
        with self._db.read() as connection:
            for chunk in in_chunks(tasks):
                query = select(predictions.c.task, predictions.c.result).where(
                    of_version, predictions.c.task.in_(chunk)
                )
                results |= {row.task: row.result for row in connection.execute(query)}
        return results

    def delivered_tasks(self, project: int, model_version: str) -> set[int]:
        """The project's tasks of whose predictions by this version Label Studio has one."""
        of_version = (predictions.c.project == project) & (predictions.c.model_version == model_version)
        delivered = predictions.c.delivery.in_([Delivery.ANSWERED, Delivery.PUSHED])
        with self._db.read() as connection:
            return set(connection.scalars(select(predictions.c.task).where(of_version, delivered)))

    def counts(self, project: int, model_version: str) -> dict[Delivery, int]:
        """How many of the project's predictions of the version there are, by delivery."""
        num = cast(func.sum(prediction_tallies.c.num), BigInteger)
        query = (
            select(prediction_tallies.c.delivery, num)
            .where(prediction_tallies.c.project == project, prediction_tallies.c.model_version == model_version)
            .group_by(prediction_tallies.c.delivery)
            .having(num > 0)
        )
        with self._db.read() as connection:
            return {Delivery(delivery): count for delivery, count in connection.execute(query)}

    def num_owed(self, project: int | None = None, model_version: str | None = None) -> int:
        """How many predictions wait to be pushed: of all, or of one project or version."""
        is_owed = prediction_tallies.c.delivery.in_([Delivery.OWED, Delivery.PUSHING])
        query = select(func.sum(prediction_tallies.c.num)).where(is_owed)
        if project is not None:
            query = query.where(prediction_tallies.c.project == project)
        if model_version is not None:
            query = query.where(prediction_tallies.c.model_version == model_version)
        with self._db.read() as connection:
            return int(connection.scalar(query) or 0)

    def model_versions(self, project: int | None) -> list[str]:
        """The model versions that have predictions, sorted."""
        query = _STORED_VERSIONS.order_by(prediction_tallies.c.model_version)
        if project is not None:
            query = query.where(prediction_tallies.c.project == project)
        with self._db.read() as connection:
            return list(connection.scalars(query))

    def newest_versions(self, project: int, limit: int) -> list[str]:
        """The model versions that were delivered last, newest first."""
        query = _STORED_VERSIONS.where(prediction_tallies.c.project == project)
        query = query.order_by(func.max(prediction_tallies.c.last_at).desc()).limit(limit)
        with self._db.read() as connection:
            return list(connection.scalars(query))


_STORED_VERSIONS = (
    select(prediction_tallies.c.model_version)
    .group_by(prediction_tallies.c.model_version)
    .having(func.sum(prediction_tallies.c.num) > 0)
)

_quoted = lru_cache(maxsize=64)(json.dumps)
