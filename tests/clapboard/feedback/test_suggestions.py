"""Which of several suggestions an annotation answered."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from clapboard.feedback.suggestions import Suggestion, annotations_in, answered


def suggestion(version: str, delivered_at: float) -> Suggestion:
    return Suggestion(version, 0.5, [{"id": f"clapboard-clip-{version}", "from_name": "clip"}], delivered_at)


OLD, NEW = suggestion("v1", 1000.0), suggestion("v2", 2000.0)


def annotation(*ids: str, created_at: float | None = None, lead_time_s: Any = 0.0) -> dict[str, Any]:
    made = {} if created_at is None else {"created_at": datetime.fromtimestamp(created_at, UTC).isoformat()}
    return {"result": [{"id": one} for one in ids], "lead_time": lead_time_s} | made


def version(found: Suggestion | None) -> str | None:
    return found.model_version if found else None


def test_without_any_suggestion_there_was_none_to_answer() -> None:
    assert answered(annotation("clapboard-clip-v1"), []) is None


@pytest.mark.parametrize("kept", ["v1", "v2"])
def test_a_results_id_tells_what_its_person_had_in_view_whatever_was_promoted_since(kept: str) -> None:
    late = annotation(f"clapboard-clip-{kept}", created_at=9000.0)
    assert version(answered(late, [NEW, OLD])) == kept


@pytest.mark.parametrize(
    ("created_at", "lead_time_s", "found"),
    [
        (2500.0, 0.0, "v2"),
        (2500.0, 600.0, "v1"),  # opened at 1900, before the new one came
        (1500.0, 0.0, "v1"),
        (500.0, 0.0, "v1"),  # before any: by a clock that goes wrong
        (2500.0, None, "v2"),
        (2500.0, "long", "v2"),
        (2500.0, -5.0, "v2"),
        (2500.0, 1e12, "v2"),
    ],
)
def test_a_label_of_its_own_answered_what_was_there_when_the_task_was_opened(
    created_at: float, lead_time_s: Any, found: str
) -> None:
    own = annotation("r1", created_at=created_at, lead_time_s=lead_time_s) | {"parent_prediction": 7}
    assert version(answered(own, [NEW, OLD])) == found


def test_what_began_with_an_empty_form_answered_nothing_whatever_was_delivered() -> None:
    own = annotation("r1", created_at=2500.0)
    assert answered(own, [NEW, OLD]) is answered(own | {"parent_prediction": None}, [NEW, OLD]) is None


@pytest.mark.parametrize("created_at", [None, "yesterday", 5, "9999-12-31T23:59:59+00:00"])
def test_without_a_usable_time_it_is_the_newest(created_at: Any) -> None:
    own = {"result": None, "created_at": created_at, "parent_prediction": 7}
    assert version(answered(own, [NEW, OLD])) == "v2"


def test_annotations_are_found_in_every_form_of_an_event() -> None:
    one, other = {"id": 1}, {"id": 2}
    assert list(annotations_in({"annotation": one})) == [one]
    assert list(annotations_in({"annotation": [one, None, other]})) == [one, other]
    assert list(annotations_in({"annotation": 5})) == list(annotations_in({})) == []
