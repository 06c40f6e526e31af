"""Predictions in Label Studio: listing them, storing missing ones and verifying that, and deleting them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
            yield task_id, [id_ for id_, version in stored if model_version in (None, version)]

    def push_predictions(
        self,
        project_id: int,
        items: Iterable[Mapping[str, Any]],
        *,
        known_absent: bool = False,
        record: Project | None = None,
    ) -> int:
        """Store predictions for tasks that have none of the same model version. Returns how many were stored.

        An item is `{"task", "model_version", "score", "result"}`. Label Studio is first asked for the predictions that
        it has, which takes longer than storing; `known_absent` skips that, for a version that it can't have yet.
        `record` is the project's, if the caller has just read it.

        Raises `PredictionsDropped`, once all others are stored, with the tasks whose predictions weren't. After
        `LabelStudioUnreachable` the same call can be repeated.
        """
        project = record or self.project(project_id)
        num_created = 0
        dropped: dict[int, str] = {}
        for chunk in chunks_of(items, ITEMS_PER_IMPORT):
            dropped |= invalid_items(chunk, project.label_config)
            valid = [item for item in chunk if item["task"] not in dropped]
            missing = [_as_sent(item) for item in valid] if known_absent else self._missing(valid, project_id, dropped)
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
        with self._asking(f"prediction {prediction_id}"):
            try:
                self._request("PATCH", f"api/predictions/{prediction_id}/", json={"model_version": model_version})
            except ApiError as error:
                if error.status_code != 404 or not isinstance(error.body, dict):
                    raise

    def _stored(self, project_id: int, task_ids: Iterable[int] | None) -> Iterator[tuple[int, list[tuple[int, str]]]]:
        """Each task's id with the id and model version of its predictions, oldest first."""
        # Never ask for an empty list of ids, which Label Studio takes for all tasks.
        chunks = [None] if task_ids is None else chunks_of(sorted(set(task_ids)), IDS_PER_QUERY)
        for chunk in chunks:
            for page in self._task_pages(project_id, "id,predictions", IDS_PER_QUERY, chunk):
                for task in page:
                    if isinstance(task, Mapping) and (task_id := identifier(task.get("id"))):
                        yield task_id, sorted(_predictions_in(task.get("predictions")))

    def _missing(
        self, items: list[Mapping[str, Any]], project_id: int, dropped: dict[int, str]
    ) -> list[dict[str, Any]]:
        """The items whose task has no prediction of that version. Tasks that don't exist are added to `dropped`."""
        stored = dict(self._stored(project_id, [item["task"] for item in items]))
        versions = {task: {version for _, version in predictions} for task, predictions in stored.items()}
        missing = []
        for item in items:
            if item["task"] not in versions:
                dropped[item["task"]] = "the task doesn't exist"
            elif item["model_version"] not in versions[item["task"]]:
                versions[item["task"]].add(item["model_version"])
                missing.append(_as_sent(item))
        return missing

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
                if item["model_version"] not in {version for _, version in stored.get(item["task"], [])}:
                    dropped[item["task"]] = "Label Studio dropped it without giving a reason"
        return num_created


def _predictions_in(value: Any) -> Iterator[tuple[int, str]]:
    """Id and model version of each prediction in a task's list."""
    for prediction in value if isinstance(value, list) else []:
        if isinstance(prediction, Mapping) and (prediction_id := identifier(prediction.get("id"))):
            yield prediction_id, str(prediction.get("model_version") or "")


def _as_sent(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item[name] for name in ("task", "model_version", "score", "result")}


def chunks_of(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
