"""Predictions in Label Studio: which are stored, storing what is missing, and making sure that it was stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

from label_studio_sdk.core.api_error import ApiError

from clapboard.label_studio.failures import reason_in
from clapboard.label_studio.records import Project
from clapboard.label_studio.session import IMPORT_ONCE, ONCE, LabelStudioSession
from clapboard.label_studio.validation import PredictionsDropped, invalid_items, is_cheaper_one_by_one

IDS_PER_QUERY = 200  # they travel in the URL
ITEMS_PER_IMPORT = 1000

T = TypeVar("T")


class PredictionCalls(LabelStudioSession):
    """The part of `LabelStudioClient` that concerns predictions."""

    def predictions(
        self, project_id: int, task_ids: Iterable[int] | None = None, model_version: str | None = None
    ) -> Iterator[tuple[int, list[int]]]:
        """Each task's id with the ids of its predictions, oldest first, of one model version or of all.

        A task without any comes with an empty list, one that is not in the project not at all. `None` is all tasks,
        page by page. Costs Label Studio about 1 ms a task.
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
        """Number of predictions stored; a task that already has one of the same model version gets no other.

        Label Studio is asked which are there, which takes it longer than to store them; `known_absent` says that none
        can be, because nobody has ever been given the version. `record` is the project's, for who has just read it.

        An item is `{"task", "model_version", "score", "result"}`. After `LabelStudioUnreachable` the same call may be
        made again. Raises `PredictionsDropped`, once all others are stored, which tells the tasks that have none.
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
        """Deletes the predictions; one that is already gone is no error."""
        for prediction_id in prediction_ids:
            with self._asking(f"prediction {prediction_id}"):
                try:
                    self._sdk.predictions.delete(prediction_id)
                except ApiError as error:
                    if error.status_code != 404 or not isinstance(error.body, dict):
                        raise

    def _stored(
        self, project_id: int, task_ids: Iterable[int] | None
    ) -> Iterator[tuple[int, list[tuple[int, str | None]]]]:
        """Each task's id with the id and model version of its predictions, oldest first."""
        # No ids at all must never be asked for: Label Studio takes an empty selection for all tasks.
        chunks = [None] if task_ids is None else chunks_of(sorted(set(task_ids)), IDS_PER_QUERY)
        for chunk in chunks:
            for page in self._task_pages(project_id, "id,predictions", IDS_PER_QUERY, chunk):
                for task in page:
                    yield task.id, sorted((stored.id, stored.model_version) for stored in task.predictions or [])

    def _missing(
        self, items: list[Mapping[str, Any]], project_id: int, dropped: dict[int, str]
    ) -> list[dict[str, Any]]:
        """The items whose task exists and has no prediction of that model version; the others are told to `dropped`."""
        stored = dict(self._stored(project_id, [item["task"] for item in items]))
        versions = {task: {version for _, version in predictions} for task, predictions in stored.items()}
        missing = []
        for item in items:
            if item["task"] not in versions:
                dropped[item["task"]] = "there is no such task"
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
                    dropped[item["task"]] = "Label Studio dropped it without a word"
        return num_created


def _as_sent(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: item[name] for name in ("task", "model_version", "score", "result")}


def chunks_of(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
