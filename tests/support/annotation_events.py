"""Webhook events as Label Studio 1.23.2 sends them, for tests of what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clapboard.store.inbox import Event

PROJECT = 6
CREATED, UPDATED, DELETED = "ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED"
CREATED_IN_BULK = "ANNOTATIONS_CREATED"


def clip(*labels: str, control: str = "clip", result_id: str = "c1") -> dict[str, Any]:
    """A whole-clip result of Choices."""
    value = {"choices": list(labels)}
    return {"id": result_id, "from_name": control, "to_name": "audio", "type": "choices", "value": value}


def region(result_id: str, start: float, end: float, *labels: str, control: str = "ev") -> dict[str, Any]:
    """A region of Labels."""
    value = {"start": start, "end": end, "channel": 0, "labels": list(labels)}
    about = {"id": result_id, "from_name": control, "to_name": "audio", "type": "labels"}
    return about | {"original_length": 10.0, "value": value}


def suggestion(*result: dict[str, Any], version: str = "v1", score: float = 0.75) -> dict[str, Any]:
    """What the inbox keeps beside an event."""
    return {"model_version": version, "score": score, "result": list(result)}


def moment(second: int) -> str:
    """A date and time as Label Studio writes it."""
    return f"2026-11-22T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.250000Z"


def annotation(
    number: int, *result: Any, task: int = 11, second: int = 0, by: Any = 1, **others: Any
) -> dict[str, Any]:
    """An annotation of somebody who opened the task."""
    return {
        "id": number,
        "result": list(result),
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": moment(0),
        "updated_at": moment(second),
        "lead_time": 3.5,
        "bulk_created": False,
        "task": task,
        "project": PROJECT,
        "completed_by": by,
        "updated_by": by,
        "parent_prediction": None,
    } | others


def said(one: Mapping[str, Any], action: str = CREATED) -> tuple[str, dict[str, Any]]:
    """Action and body of the event that tells of an annotation."""
    return action, {"action": action, "annotation": dict(one), "project": {"id": PROJECT}}


def bulk(*those: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """«Create annotations from predictions» in the data manager: the annotations as it makes them."""
    by_nobody = {"updated_by": None, "lead_time": None, "parent_prediction": 5}
    body = {"annotation": [dict(one) | by_nobody for one in those], "project": {"id": PROJECT}}
    return CREATED_IN_BULK, {"action": CREATED_IN_BULK} | body


def deleted(*numbers: int) -> tuple[str, dict[str, Any]]:
    """Annotations that are gone."""
    body = {"annotations": [{"id": number} for number in numbers], "project": {"id": PROJECT}}
    return DELETED, {"action": DELETED} | body


def event(
    what: tuple[str, Mapping[str, Any]], suggestions: Mapping[str, Any] | None = None, *, number: int = 1
) -> Event:
    """The event as the inbox gives it."""
    return Event(number, 0.0, what[0], PROJECT, what[1], suggestions or {})


def in_the_api(what: tuple[str, Mapping[str, Any]]) -> tuple[str, dict[str, Any]]:
    """The same, as reconciliation enters what it has read through Label Studio's API."""
    return what[0], dict(what[1]) | {"source": "sync"}
