"""The suggestion that an annotation answered: the one that its annotator had in view, whatever was promoted since.

Not every suggestion that Label Studio has was in view: its label stream shows none while it can't reach the backend
that it asks (`clapboard.project.display`), or if predictions are switched off. So the annotation itself decides. Label
Studio's page fills the form from the suggestion, keeps the ids of results that are accepted or corrected, and sends the
suggestion's id as `parent_prediction`. An annotation with neither began with an empty form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Suggestion:
    """A prediction that was delivered to Label Studio, with the time."""

    model_version: str
    score: float
    result: list[dict[str, Any]]
    delivered_at: float

    def as_json(self) -> dict[str, Any]:
        """The form in which the inbox stores it with the event."""
        return {"model_version": self.model_version, "score": self.score, "result": self.result}


def annotations_in(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The annotations of an event: one in most events, a list in bulk ones."""
    value = body.get("annotation")
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, Mapping):
            yield item


def answered(annotation: Mapping[str, Any], delivered: Sequence[Suggestion], ahead_s: float = 0.0) -> Suggestion | None:
    """The suggestion of the task that the annotation answered; None if none was in view.

    The ids of kept results tell the suggestion. A region that several versions suggest has one id in all of them, so
    the suggestion with most of the ids was in view, and of several the latest. An annotation that was made from a
    prediction but has kept no result (all were deleted, or it had none) answered the suggestion that was delivered last
    before the task was opened.
    `ahead_s` is the clock of `delivered_at` minus Label Studio's.
    """
    if not delivered:
        return None
    results = annotation.get("result")
    items = results if isinstance(results, list) else []
    kept = {item["id"] for item in items if isinstance(item, Mapping) and isinstance(item.get("id"), str)}
    by_age = sorted(delivered, key=lambda suggestion: (suggestion.delivered_at, suggestion.model_version))
    num_kept = [len({item.get("id") for item in suggestion.result} & kept) for suggestion in by_age]
    if most := max(num_kept):
        return next(each for each, number in zip(by_age[::-1], num_kept[::-1], strict=True) if number == most)
    if annotation.get("parent_prediction") is None:
        return None
    opened_at = _opened_at(annotation) + ahead_s
    before = [suggestion for suggestion in by_age if suggestion.delivered_at <= opened_at]
    return before[-1] if before else by_age[0]


def changed_at(annotation: Mapping[str, Any]) -> float | None:
    """When the annotation was made or last changed, by Label Studio's clock; None if it has no such time."""
    try:
        return datetime.fromisoformat(str(annotation.get("updated_at"))).timestamp()
    except (ValueError, OverflowError):
        return None


def _opened_at(annotation: Mapping[str, Any]) -> float:
    lead_time_s = annotation.get("lead_time")
    if not isinstance(lead_time_s, int | float) or not 0 <= lead_time_s < 1e9:
        lead_time_s = 0.0
    try:
        return datetime.fromisoformat(str(annotation.get("created_at"))).timestamp() - lead_time_s
    except (ValueError, OverflowError, OSError):
        return float("inf")
