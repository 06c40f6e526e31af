"""Which suggestion an annotation answered: the one that its person had in view, whatever was promoted since."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Suggestion:
    """A prediction that was delivered to Label Studio, and when."""

    model_version: str
    score: float
    result: list[dict[str, Any]]
    delivered_at: float

    def as_json(self) -> dict[str, Any]:
        """As the inbox keeps it beside the event."""
        return {"model_version": self.model_version, "score": self.score, "result": self.result}


def annotations_in(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The annotations of an event: one in most, a list in bulk ones."""
    held = body.get("annotation")
    for item in held if isinstance(held, list) else [held]:
        if isinstance(item, Mapping):
            yield item


def answered(annotation: Mapping[str, Any], delivered: Sequence[Suggestion]) -> Suggestion | None:
    """The one of the task's suggestions that the annotation answered; None if there was none.

    Label Studio keeps a result's id when somebody accepts or corrects it, and ours name their version. An annotation
    without any of them answered what was delivered last before its person opened the task.
    """
    if not delivered:
        return None
    results = annotation.get("result")
    kept = {item.get("id") for item in results if isinstance(item, Mapping)} if isinstance(results, list) else set()
    by_age = sorted(delivered, key=lambda one: (one.delivered_at, one.model_version))
    for suggestion in reversed(by_age):
        if any(item.get("id") in kept for item in suggestion.result):
            return suggestion
    opened_at = _opened_at(annotation)
    before = [one for one in by_age if one.delivered_at <= opened_at]
    return before[-1] if before else by_age[0]


def _opened_at(annotation: Mapping[str, Any]) -> float:
    lead_time_s = annotation.get("lead_time")
    if not isinstance(lead_time_s, int | float) or not 0 <= lead_time_s < 1e9:
        lead_time_s = 0.0
    try:
        return datetime.fromisoformat(str(annotation.get("created_at"))).timestamp() - lead_time_s
    except (ValueError, OverflowError):
        return float("inf")
