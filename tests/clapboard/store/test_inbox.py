from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from clapboard.store import Store
from clapboard.store.predictions import StoredPrediction
from tests.support.together import together

CREATED, DELETED = "ANNOTATION_CREATED", "ANNOTATIONS_DELETED"


def test_events_are_read_in_the_order_in_which_they_came(store: Store, clock: Callable[..., float]) -> None:
    ids = []
    for number in range(5):
        ids.append(store.inbox.append(CREATED, 1, {"number": number}))
        clock.advance(1)
    events = store.inbox.events()
    assert [event.id for event in events] == ids == sorted(ids)
    assert [event.body["number"] for event in events] == list(range(5))
    assert [event.received_at - events[0].received_at for event in events] == list(range(5))
    assert [event.id for event in store.inbox.events(after_id=ids[1], limit=2)] == ids[2:4]


def test_the_same_event_twice_is_two_events(store: Store) -> None:
    body = {"action": CREATED, "annotation": {"id": 1}}
    assert store.inbox.append(CREATED, 1, body) != store.inbox.append(CREATED, 1, body)
    assert [event.body for event in store.inbox.events()] == [body, body]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": "ключ «1» 🐕 \u2028 \x00 \ud83d"},
        {"nested": [[{"a": None, "b": True, "c": -1e308, "d": 2**63}]]},
        {"huge": "x" * 3_000_000},
        {"many": [{"id": number, "result": []} for number in range(20_000)]},
    ],
    ids=["empty", "unicode", "nested", "huge", "many"],
)
def test_any_body_comes_back_as_it_was(store: Store, body: dict[str, Any]) -> None:
    store.inbox.append(CREATED, 1, body)
    (event,) = store.inbox.events()
    assert event.body == body
    assert list(event.body) == list(body)


def test_events_and_counts_are_those_of_a_project(store: Store) -> None:
    for action, project in [(CREATED, 1), (DELETED, 1), (CREATED, 2), ("PROJECT_DELETED", None), (CREATED, 1)]:
        store.inbox.append(action, project, {})
    assert [event.project for event in store.inbox.events()] == [1, 1, 2, None, 1]
    assert [event.action for event in store.inbox.events(project=1)] == [CREATED, DELETED, CREATED]
    assert store.inbox.counts(1) == {CREATED: 2, DELETED: 1}
    assert store.inbox.counts() == {CREATED: 3, DELETED: 1, "PROJECT_DELETED": 1}


def test_concurrent_events_are_all_kept(open_store: Callable[[], Store]) -> None:
    stores = [open_store() for _ in range(4)]

    def append_all(store: Store, sender: int) -> list[int]:
        return [store.inbox.append(CREATED, 1, {"sender": sender, "number": number}) for number in range(15)]

    ids = together([lambda store=store, i=i: append_all(store, i) for i, store in enumerate(stores)])
    events = stores[0].inbox.events()
    assert [event.id for event in events] == sorted(event_id for some in ids for event_id in some)
    for sender in range(4):
        assert [e.body["number"] for e in events if e.body["sender"] == sender] == list(range(15))


RESULT = [{"id": "clapboard-clip-00000001", "from_name": "clip", "type": "choices", "value": {"choices": ["dog"]}}]


def test_an_event_keeps_what_its_annotations_answered_as_it_was_then(store: Store) -> None:
    found = [StoredPrediction(1, task, "v1", "key", 0.75, RESULT) for task in (11, 12)]
    store.predictions.put_for_push(found)
    annotations = [{"task": task, "result": RESULT} for task in (11, 12, 13)]
    store.append_event("ANNOTATIONS_CREATED", 1, {"annotation": annotations})
    store.predictions.forget_tasks(1, [11, 12])
    (event,) = store.inbox.events()
    kept = {"model_version": "v1", "score": 0.75, "result": RESULT}
    assert event.suggestions == {"11": kept, "12": kept}  # 13 had none


@pytest.mark.parametrize(
    "body",
    [
        {"annotation": {"task": "11", "result": RESULT}},
        {"annotation": {"task": True, "result": RESULT}},
        {"annotation": {"task": 2**70}},
        {"annotation": [None, "x", {"result": RESULT}]},
        {"annotation": "x"},
        {"task": {"id": 11}},
        {},
    ],
)
def test_an_event_that_names_no_task_in_order_is_kept_all_the_same(store: Store, body: dict[str, Any]) -> None:
    store.append_event("ANNOTATION_CREATED", 1, body)
    (event,) = store.inbox.events()
    assert (event.body, event.suggestions) == (body, {})


@pytest.mark.parametrize("ahead_s", [-3600.0, 0.0, 3600.0])
@pytest.mark.parametrize("is_synced", [False, True])
def test_what_was_in_view_is_told_alike_however_label_studios_clock_goes(
    store: Store, clock: Callable[..., float], ahead_s: float, is_synced: bool
) -> None:
    store.predictions.put_for_push([StoredPrediction(1, 11, "v1", "key", 0.75, RESULT)])
    store.predictions.pushed(1, [11], "v1")
    opened_at = clock.advance(60)
    store.predictions.put_for_push([StoredPrediction(1, 11, "v2", "key", 0.75, RESULT)])
    clock.advance(60)
    store.predictions.pushed(1, [11], "v2")
    made_at = clock.advance(60)
    said = [datetime.fromtimestamp(made_at + ahead_s, UTC).isoformat()] * 2
    times = dict(zip(("created_at", "updated_at"), said, strict=True)) | {"lead_time": made_at - opened_at}
    body = {"annotation": {"task": 11, "result": [{"id": "own"}], "parent_prediction": 5} | times}
    if is_synced:  # long after
        clock.advance(10_000)
    store.append_event("ANNOTATION_CREATED", 1, body, ahead_s=-ahead_s if is_synced else None)
    (event,) = store.inbox.events()
    assert event.suggestions["11"]["model_version"] == "v1"


def test_an_event_of_no_project_answers_nothing(store: Store) -> None:
    store.predictions.put_for_push([StoredPrediction(1, 11, "v1", "key", 0.75, RESULT)])
    store.append_event("ANNOTATION_CREATED", None, {"annotation": {"task": 11, "result": RESULT}})
    assert store.inbox.events()[0].suggestions == {}


def test_the_newest_event_of_a_project_is_known_by_its_number(store: Store) -> None:
    assert store.inbox.last_id(1) == 0
    first = store.inbox.append(CREATED, 1, {})
    store.inbox.append(CREATED, 2, {})
    assert store.inbox.last_id(1) == first


def test_it_knows_when_people_last_said_something(store: Store, clock: Callable[..., float]) -> None:
    assert store.inbox.last_annotated_at(1) == 0.0
    store.inbox.append("ANNOTATIONS_DELETED", 1, {})
    said_at = clock()
    clock.advance(5)
    store.inbox.append("PROJECT_UPDATED", 1, {})
    store.inbox.append(CREATED, 2, {})
    assert store.inbox.last_annotated_at(1) == said_at
