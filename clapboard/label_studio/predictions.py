"""Predictions in Label Studio: listing them, storing missing ones, changing others, and deleting them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from label_studio_sdk.core.api_error import ApiError

from clapboard.label_studio.failures import reason_in
from clapboard.label_studio.records import Project
from clapboard.label_studio.session import IMPORT_ONCE, ONCE, LabelStudioSession
from clapboard.label_studio.validation import PredictionsDropped, invalid_items, is_cheaper_one_by_one
from clapboard.untrusted import identifier

IDS_PER_QUERY = 200  # they travel in the URL
ITEMS_PER_IMPORT = 1000

T = TypeVar("T")


@dataclass(frozen=True)
class _Stored:
    """A prediction that Label Studio has."""

    id: int
    model_version: str
    score: Any
    result: Any

    def is_like(self, item: Mapping[str, Any]) -> bool:
        """Whether it is what the item would make it."""
        return bool(self.result == item["result"] and self.score == item["score"])


class PredictionCalls(LabelStudioSession):
    """The part of `LabelStudioClient` that concerns predictions."""

    def predictions(
        self, project_id: int, task_ids: Iterable[int] | None = None, model_version: str | None = None
    ) -> Iterator[tuple[int, list[int]]]:
        """Each task's id with the ids of its predictions, oldest first: of one model version, or of all.

        A task without predictions has an empty list; one that isn't in the project is left out. With `task_ids` None,
        all tasks are read, page by page. Takes Label Studio about 1 ms per task.
        """
        for task_id, stored in self._stored(project_id, task_ids):
            yield task_id, [one.id for one in stored if model_version in (None, one.model_version)]

    def push_predictions(
        self,
        project_id: int,
        items: Iterable[Mapping[str, Any]],
        *,
        known_absent: bool = False,
        record: Project | None = None,
    ) -> int:
        """Give each task this prediction of its model version. Returns how many were stored or changed.

        An item is `{"task", "model_version", "score", "result"}`. Label Studio is first asked for the predictions that
        it has. One of the same version is changed into the item, and keeps its id, which pages that people have open
        name; `known_absent` skips that, for a version that it can't have yet. `record` is the project's, if the caller
        has just read it.

        Raises `PredictionsDropped`, once all others are stored, with the tasks whose predictions weren't. After
        `LabelStudioUnreachable` the same call can be repeated.
        """
        project = record or self.project(project_id)
        num_created = 0
        dropped: dict[int, str] = {}
        for chunk in chunks_of(items, ITEMS_PER_IMPORT):
            dropped |= invalid_items(chunk, project.label_config)
            valid = [item for item in chunk if item["task"] not in dropped]
            missing = [_as_sent(item) for item in valid]
            if not known_absent:
                missing, changed = self._compare(valid, project_id, dropped)
                for prediction_id, item in changed:
                    self.change_prediction(project_id, prediction_id, item)
                num_created += len(changed)
            if is_cheaper_one_by_one(len(missing), project.num_tasks):
                num_created += sum(self._push_one(item, dropped) for item in missing)
            elif missing:
                num_created += self._push_many(project_id, missing, dropped)
        if dropped:
            raise PredictionsDropped(project_id, num_created, dropped)
        return num_created

    def delete_predictions(self, prediction_ids: Iterable[int]) -> None:
        """Delete the predictions; those that don't exist are ignored."""
        for prediction_id in prediction_ids:
            with self._asking(f"prediction {prediction_id}"):
                try:
                    self._sdk.predictions.delete(prediction_id)
                except ApiError as error:
                    if error.status_code != 404 or not isinstance(error.body, dict):
                        raise

    def set_prediction_version(self, prediction_id: int, model_version: str) -> None:
        """Change the prediction's model version, unless it has been deleted."""
        self._change(prediction_id, {"model_version": model_version})

    def change_prediction(self, project_id: int, prediction_id: int, item: Mapping[str, Any]) -> bool:
        """Change the prediction's result and score; False if it has been deleted. Takes Label Studio 0.1 s or less.

        Label Studio recounts nothing, unlike at an import.
        """
        fields = {"project": project_id, "result": item["result"], "score": item["score"]}  # it checks the result so
        return self._change(prediction_id, fields)

    def predictions_of_task(self, task_id: int, model_version: str) -> list[int]:
        """The ids of the task's predictions of the version, oldest first: for one task faster than `predictions`."""
        with self._asking(f"the predictions of task {task_id}"):
            answer = self._request("GET", "api/predictions/", params={"task": task_id})
        return sorted(one.id for one in _predictions_in(answer) if one.model_version == model_version)

    def _change(self, prediction_id: int, fields: Mapping[str, Any]) -> bool:
        with self._asking(f"prediction {prediction_id}"):
            try:
                self._request("PATCH", f"api/predictions/{prediction_id}/", json=dict(fields))
            except ApiError as error:
                if error.status_code != 404 or not isinstance(error.body, dict):
                    raise
                return False
        return True

    def _stored(self, project_id: int, task_ids: Iterable[int] | None) -> Iterator[tuple[int, list[_Stored]]]:
        """Each task's id with its predictions, oldest first."""
        # Never ask for an empty list of ids, which Label Studio takes for all tasks.
        chunks = [None] if task_ids is None else chunks_of(sorted(set(task_ids)), IDS_PER_QUERY)
        for chunk in chunks:
            for page in self._task_pages(project_id, "id,predictions", IDS_PER_QUERY, chunk):
                for task in page:
                    if isinstance(task, Mapping) and (task_id := identifier(task.get("id"))):
                        yield task_id, sorted(_predictions_in(task.get("predictions")), key=lambda one: one.id)

    def _compare(
        self, items: Sequence[Mapping[str, Any]], project_id: int, dropped: dict[int, str]
    ) -> tuple[list[dict[str, Any]], list[tuple[int, Mapping[str, Any]]]]:
        """The items whose task has no prediction of that version, and those whose prediction differs, with its id.

        Tasks that don't exist are added to `dropped`.
        """
        stored = dict(self._stored(project_id, [item["task"] for item in items]))
        missing, changed, seen = [], [], set()
        for item in items:
            key = (item["task"], item["model_version"])
            if item["task"] not in stored:
                dropped[item["task"]] = "the task doesn't exist"
            elif key not in seen:
                seen.add(key)
                of_version = [one for one in stored[item["task"]] if one.model_version == item["model_version"]]
                if not of_version:
                    missing.append(_as_sent(item))
                elif not of_version[-1].is_like(item):
                    changed.append((of_version[-1].id, item))
        return missing, changed

    def _push_one(self, item: dict[str, Any], dropped: dict[int, str]) -> int:
        with self._asking(f"a prediction for task {item['task']}"):
            try:
                self._sdk.predictions.create(**item, request_options=ONCE)
            except ApiError as error:
                if error.status_code != 400:
                    raise
                dropped[item["task"]] = reason_in(error.body)
                return 0
        return 1

    def _push_many(self, project_id: int, items: list[dict[str, Any]], dropped: dict[int, str]) -> int:
        with self._asking(f"predictions for project {project_id}"):
            answer = self._sdk.projects.import_predictions(project_id, request=items, request_options=IMPORT_ONCE)
            num_created = int(answer.created or 0)
        if num_created != len(items):
            stored = dict(self._stored(project_id, [item["task"] for item in items]))
            for item in items:
                if item["model_version"] not in {one.model_version for one in stored.get(item["task"], [])}:
                    dropped[item["task"]] = "Label Studio dropped it without giving a reason"
        return num_created


def _predictions_in(value: Any) -> Iterator[_Stored]:
    """The predictions in a task's list."""
    for prediction in value if isinstance(value, list) else []:
        if isinstance(prediction, Mapping) and (prediction_id := identifier(prediction.get("id"))):
            model_version = str(prediction.get("model_version") or "")
            yield _Stored(prediction_id, model_version, prediction.get("score"), prediction.get("result"))


def _as_sent(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item[name] for name in ("task", "model_version", "score", "result")}


def chunks_of(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
