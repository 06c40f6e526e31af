"""Queries of the predictions table. `clapboard.store.predictions` has what changes it, and the rule for that."""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, case, func, select, text

from clapboard.feedback.suggestions import Suggestion
from clapboard.store.database import Database, in_chunks
from clapboard.store.schema import prediction_tallies, predictions
from clapboard.suggest.prediction import shown_name


class Delivery(enum.StrEnum):
    """How far a prediction has got on its way to Label Studio."""

    READY = "ready"
    ANSWERED = "answered"
    OWED = "owed"
    PUSHING = "pushing"
    PUSHED = "pushed"
    REPLACED = "replaced"  # it was answered or pushed, and has been changed into a later version's since


IN_LABEL_STUDIO = (Delivery.ANSWERED, Delivery.PUSHED)


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
        """The prediction as Label Studio gets it."""
        return {"result": self.result, "score": self.score, "model_version": self.shown_as}

    @property
    def shown_as(self) -> str:
        """The version's name in Label Studio."""
        return shown_name(self.model_version)


class TakenPrediction(NamedTuple):
    """A prediction that was taken for an answer, with its result as the JSON text that the table has."""

    uri_key: str
    shown_as: str
    score: float
    result: str

    def as_json(self) -> dict[str, Any]:
        """The prediction as an answer to `/predict` has it."""
        return {"result": json.loads(self.result), "score": self.score, "model_version": self.shown_as}

    def as_text(self) -> str:
        """The same as JSON text, without parsing the result."""
        return f'{{"result":{self.result},"score":{self.score!r},"model_version":{_quoted(self.shown_as)}}}'


class PredictionRecords:
    """The part of `PredictionStore` that only reads."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def delivered(self, project: int, tasks: Sequence[int]) -> dict[int, list[Suggestion]]:
        """By task, the predictions of any version that Label Studio has, or may have by now."""
        delivered = predictions.c.delivery.in_([*IN_LABEL_STUDIO, Delivery.PUSHING, Delivery.REPLACED])
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

    def current(
        self, project: int, tasks: Sequence[int], shown_as: str
    ) -> dict[int, tuple[Delivery, StoredPrediction]]:
        """By task, the prediction that Label Studio has under this name, or the one that is on its way there."""
        states = [*IN_LABEL_STUDIO, Delivery.PUSHING, Delivery.OWED]
        current: dict[int, tuple[Delivery, StoredPrediction]] = {}
        with self._db.read() as connection:
            for chunk in in_chunks(tasks):
                of_tasks = (predictions.c.project == project) & predictions.c.task.in_(chunk)
                query = select(predictions).where(
                    of_tasks, predictions.c.shown_as == shown_as, predictions.c.delivery.in_(states)
                )
                for row in connection.execute(query):
                    delivery = Delivery(row.delivery)
                    if row.task not in current or delivery not in IN_LABEL_STUDIO:
                        current[row.task] = delivery, stored_prediction(row)
        return current

    def delivered_tasks(self, project: int, shown_as: str) -> set[int]:
        """The project's tasks that have a prediction of this name in Label Studio."""
        delivered = predictions.c.delivery.in_(IN_LABEL_STUDIO)
        with self._db.read() as connection:
            return set(connection.scalars(select(predictions.c.task).where(held_as(project, shown_as), delivered)))

    def least_sure(self, project: int, shown_as: str) -> list[int]:
        """The tasks whose predictions in Label Studio have the lowest scores, lowest first; annotated ones, too."""
        delivered = predictions.c.delivery.in_(IN_LABEL_STUDIO)
        query = select(predictions.c.task).where(
            predictions.c.project == project, predictions.c.shown_as == shown_as, delivered
        )
        with self._db.read() as connection:
            return list(connection.scalars(query.order_by(predictions.c.score, predictions.c.task)))

    def counts(self, project: int, shown_as: str) -> dict[Delivery, int]:
        """How many of the project's predictions of this name there are, by delivery."""
        query = (
            select(predictions.c.delivery, func.count())
            .where(held_as(project, shown_as))
            .group_by(predictions.c.delivery)
        )
        with self._db.read() as connection:
            return {Delivery(delivery): count for delivery, count in connection.execute(query)}

    def counts_of_version(self, project: int, model_version: str) -> dict[Delivery, int]:
        """How many of the project's predictions one version has made, by delivery."""
        of_version = (predictions.c.project == project) & (predictions.c.model_version == model_version)
        query = select(predictions.c.delivery, func.count()).where(of_version).group_by(predictions.c.delivery)
        with self._db.read() as connection:
            return {Delivery(delivery): count for delivery, count in connection.execute(query)}

    def num_owed(self, project: int | None = None, shown_as: str | None = None) -> int:
        """How many predictions wait to be pushed: of all, or of one project or name in Label Studio."""
        if shown_as is None:
            is_owed = prediction_tallies.c.delivery.in_([Delivery.OWED, Delivery.PUSHING])
            query = select(func.sum(prediction_tallies.c.num)).where(is_owed)
            if project is not None:
                query = query.where(prediction_tallies.c.project == project)
        else:
            query = select(func.count()).select_from(predictions).where(IS_UNDELIVERED, _name == shown_as)
            if project is not None:
                query = query.where(predictions.c.project == project)
        with self._db.read() as connection:
            return int(connection.scalar(query) or 0)

    def model_versions(self, project: int | None) -> list[str]:
        """The model versions that have predictions, sorted."""
        query = _STORED_VERSIONS.order_by(prediction_tallies.c.model_version)
        if project is not None:
            query = query.where(prediction_tallies.c.project == project)
        with self._db.read() as connection:
            return list(connection.scalars(query))

    def shown_names(self, project: int | None) -> list[str]:
        """The names in Label Studio of the model versions that have predictions, sorted."""
        return sorted({shown_name(version) for version in self.model_versions(project)})

    def names(self, project: int) -> list[str]:
        """The names that the project's predictions have in Label Studio, those that were delivered last first.

        Some may have a version's own name, see `PredictionStore`. Reads all of the project's predictions.
        """
        query = select(_name).group_by(_name).order_by(func.max(predictions.c.delivered_at).desc(), _name)
        query = query.where(predictions.c.project == project)
        with self._db.read() as connection:
            return list(connection.scalars(query))


_STORED_VERSIONS = (
    select(prediction_tallies.c.model_version)
    .group_by(prediction_tallies.c.model_version)
    .having(func.sum(prediction_tallies.c.num) > 0)
)

_name: ColumnElement[str] = case(
    (predictions.c.shown_as == "", predictions.c.model_version), else_=predictions.c.shown_as
)


def held_as(project: int, shown_as: str) -> ColumnElement[bool]:
    """The project's predictions that have this name in Label Studio, those of earlier releases too."""
    return (predictions.c.project == project) & (_name == shown_as)


def stored_prediction(row: Any) -> StoredPrediction:
    """A row of the table as a record."""
    return StoredPrediction(row.project, row.task, row.model_version, row.uri_key, row.score, row.result)


_quoted = lru_cache(maxsize=64)(json.dumps)
