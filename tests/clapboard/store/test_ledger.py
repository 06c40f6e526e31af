"""The ledger on both databases: each event entered once, and what stands in whatever order events came."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import permutations
from typing import Any

from sqlalchemy import delete, insert, update

from clapboard.feedback.entries import entries
from clapboard.store import Store
from clapboard.store.schema import inbox, ledger, ledger_events
from tests.support.annotation_events import (
    PROJECT,
    UPDATED,
    annotation,
    bulk,
    clip,
    deleted,
    in_the_api,
    said,
    suggestion,
)
from tests.support.together import together

Sent = tuple[str, Mapping[str, Any]]

DOG, RAIN = clip("dog"), clip("rain")
FIRST = said(annotation(3, DOG, second=1))
SECOND = said(annotation(3, RAIN, second=2), UPDATED)
OTHER = said(annotation(4, DOG, task=12, second=1))


def receive(store: Store, *events: Sent, project: int = PROJECT) -> None:
    """The events arrive and are entered."""
    for action, body in events:
        store.inbox.append(action, project, body, {"11": suggestion(DOG)})
    store.ledger.catch_up()


def standing(store: Store, project: int = PROJECT) -> list[tuple[int, str, list[str]]]:
    return [(entry.annotation, str(entry.outcome), entry.labels) for entry in store.ledger.standing(project)]


def test_entries_come_back_as_they_were_meant(store: Store) -> None:
    letters = annotation(5, clip("häufig ☃ 🐕", control="ключ"), task=2**62, second=3, lead_time=0.1 + 0.2)
    receive(store, FIRST, OTHER, bulk(annotation(6, DOG), annotation(7, task=13)), said(letters))
    meant = [entry for event in store.inbox.events() for entry in entries(event)]
    assert len(meant) == 5
    assert store.ledger.standing(PROJECT) == sorted(meant, key=lambda entry: entry.annotation)


def test_events_are_read_once_also_those_that_say_nothing(store: Store) -> None:
    receive(store, FIRST, ("START_TRAINING", {}), ("ANNOTATION_CREATED", {"annotation": {"id": "\0"}}))
    assert store.ledger.unread() == []
    assert store.ledger.catch_up() == 0
    store.inbox.append(*_args(SECOND))
    (event,) = store.ledger.unread()
    assert event.body == SECOND[1]
    assert store.ledger.append(event, entries(event))
    assert not store.ledger.append(event, entries(event))
    assert store.ledger.unread() == []
    assert standing(store) == [(3, "added", ["rain"])]


def test_more_events_than_are_read_at_once(store: Store) -> None:
    _fill(store, (said(annotation(number, DOG, task=number)) for number in range(1, 501)))
    assert [event.id for event in store.ledger.unread(3)] == [1, 2, 3]
    assert store.ledger.catch_up() == 500
    assert len(store.ledger.revisions(PROJECT)) == 500


def test_an_event_that_comes_to_light_late_is_entered(store: Store) -> None:
    """On PostgreSQL an event has its number before it is committed, and others may overtake it."""
    receive(store, *(said(annotation(number, DOG, task=number)) for number in range(1, 6)))
    with store.database.write() as connection:
        row = connection.execute(delete(inbox).where(inbox.c.id == 2).returning(*inbox.c)).one()
        connection.execute(delete(ledger).where(ledger.c.inbox_id == 2))
        connection.execute(delete(ledger_events).where(ledger_events.c.inbox_id == 2))
    assert store.ledger.unread() == []
    with store.database.write() as connection:
        connection.execute(insert(inbox).values(**row._mapping))
    assert store.ledger.catch_up() == 1
    assert sorted(store.ledger.revisions(PROJECT)) == [1, 2, 3, 4, 5]


def test_the_latest_revision_stands_in_whatever_order_events_come(store: Store) -> None:
    third = said(annotation(3, clip("dog", "rain"), second=3), UPDATED)
    for project, order in enumerate(permutations([FIRST, SECOND, third, FIRST]), start=1):
        receive(store, *order, project=project)
        assert standing(store, project) == [(3, "relabelled", ["dog", "rain"])]
        assert store.ledger.num_entries(project) == 4


def test_a_deleted_annotation_is_gone_in_whatever_order_events_come(store: Store) -> None:
    for project, order in enumerate(permutations([FIRST, SECOND, deleted(3), OTHER]), start=1):
        receive(store, *order, project=project)
        assert standing(store, project) == [(4, "added", ["dog"])]
        assert list(store.ledger.revisions(project)) == [4]


def test_a_revision_that_says_less_replaces_one_that_said_more(store: Store) -> None:
    two = annotation(3, DOG, clip("loud", control="level"), second=1)
    receive(store, said(two), said(annotation(3, second=2), UPDATED))
    assert standing(store) == [(3, "deleted", [])]
    receive(store, said(annotation(3, DOG, second=3, was_cancelled=True), UPDATED))
    assert standing(store) == [(3, "skipped", [])]


def test_an_annotation_that_says_nothing_has_a_revision(store: Store) -> None:
    receive(store, said(annotation(9, task=99, second=1)), said(annotation(3, DOG, DOG, second=2)))
    assert list(store.ledger.revisions(PROJECT)) == [3, 9]
    assert store.ledger.revisions(PROJECT)[3] - store.ledger.revisions(PROJECT)[9] == 1.0


def test_the_first_to_tell_of_a_revision_counts(store: Store) -> None:
    """Reconciliation may come upon what a webhook has told already, when the suggestion is no longer known."""
    receive(store, FIRST)
    action, body = in_the_api(FIRST)
    store.inbox.append(action, PROJECT, body)
    store.ledger.catch_up()
    (entry,) = store.ledger.standing(PROJECT)
    assert (entry.outcome, entry.model_version) == ("accepted", "v1")


def test_what_reconciliation_has_seen_since_is_not_gone(store: Store) -> None:
    receive(store, FIRST, deleted(3), FIRST)
    assert standing(store) == []
    receive(store, in_the_api(FIRST))
    assert standing(store) == [(3, "accepted", ["dog"])]
    receive(store, SECOND)
    assert standing(store) == [(3, "relabelled", ["rain"])]
    receive(store, in_the_api(deleted(3)))
    assert standing(store) == []


def test_projects_do_not_mix(store: Store) -> None:
    receive(store, FIRST, OTHER)
    receive(store, SECOND, deleted(4), project=7)
    assert standing(store) == [(3, "accepted", ["dog"]), (4, "added", ["dog"])]
    assert standing(store, 7) == [(3, "relabelled", ["rain"])]
    assert [store.ledger.num_entries(project) for project in (PROJECT, 7, 8)] == [2, 2, 0]
    assert store.ledger.standing(8) == []
    assert store.ledger.revisions(8) == {}


def test_several_workers_enter_each_event_once(open_store: Callable[[], Store]) -> None:
    stores = [open_store() for _ in range(4)]
    _fill(stores[0], (said(annotation(number, DOG, RAIN, task=number)) for number in range(1, 801)))
    entered = together([store.ledger.catch_up for store in stores])
    assert sum(entered) == stores[0].ledger.num_entries(PROJECT) == 800
    assert len(stores[0].ledger.standing(PROJECT)) == 800
    assert stores[0].ledger.replay(stores[0].inbox).agrees


def test_workers_that_enter_while_events_arrive_lose_none(open_store: Callable[[], Store]) -> None:
    stores = [open_store() for _ in range(4)]

    def send(store: Store, first: int) -> int:
        for number in range(first, first + 20):
            store.inbox.append(*_args(said(annotation(number, DOG, task=number))))
        return 0

    def enter(store: Store) -> int:
        return sum(store.ledger.catch_up() for _ in range(20))

    together(
        [lambda i=i: send(stores[i], 1 + 100 * i) for i in (0, 1)] + [lambda i=i: enter(stores[i]) for i in (2, 3)]
    )
    stores[0].ledger.catch_up()
    assert sorted(stores[1].ledger.revisions(PROJECT)) == [*range(1, 21), *range(101, 121)]
    assert stores[0].ledger.num_entries(PROJECT) == 40


class TestReplay:
    def test_the_inbox_read_anew_gives_the_same_ledger(self, store: Store) -> None:
        many = [annotation(number, DOG, RAIN, task=number, second=number) for number in range(20, 320)]
        receive(store, FIRST, SECOND, ("PROJECT_UPDATED", {}), bulk(*many), deleted(3, 20), OTHER, FIRST)
        _fill(store, (said(one | {"result": []}, UPDATED) for one in many))
        store.ledger.catch_up()
        replayed = store.ledger.replay(store.inbox)
        assert (replayed.agrees, replayed.differing, replayed.num_unread) == (True, [], 0)
        assert replayed.num_events == 307
        assert replayed.num_entries == store.ledger.num_entries(PROJECT) == 606

    def test_a_ledger_rebuilt_from_nothing_is_the_same(self, store: Store) -> None:
        receive(store, SECOND, FIRST, deleted(4), OTHER, bulk(annotation(6, DOG, task=13)))
        before = store.ledger.standing(PROJECT)
        with store.database.write() as connection:
            connection.execute(delete(ledger))
            connection.execute(delete(ledger_events))
        assert store.ledger.replay(store.inbox).num_unread == 5
        assert store.ledger.catch_up() == 5
        assert store.ledger.standing(PROJECT) == before != []

    def test_events_that_differ_are_named(self, store: Store) -> None:
        receive(store, FIRST, SECOND, OTHER, FIRST)
        with store.database.write() as connection:
            connection.execute(update(ledger).where(ledger.c.inbox_id == 2).values(labels=["dog"]))
            connection.execute(delete(ledger).where(ledger.c.inbox_id == 3))
            connection.execute(delete(inbox).where(inbox.c.id == 1))
        replayed = store.ledger.replay(store.inbox)
        assert (replayed.agrees, replayed.differing) == (False, [1, 2, 3])

    def test_an_event_that_waits_is_no_difference(self, store: Store) -> None:
        receive(store, FIRST)
        store.inbox.append(*_args(SECOND))
        replayed = store.ledger.replay(store.inbox)
        assert (replayed.agrees, replayed.num_unread, replayed.num_events) == (True, 1, 2)

    def test_an_empty_inbox_agrees(self, store: Store) -> None:
        assert store.ledger.replay(store.inbox).agrees


def _args(sent: Sent) -> tuple[str, int, Mapping[str, Any]]:
    return sent[0], PROJECT, sent[1]


def _fill(store: Store, events: Iterable[Sent]) -> None:
    """Many events in the inbox at once, in one transaction for the test's speed."""
    rows = [
        {"received_at": 0.0, "action": action, "project": PROJECT, "body": dict(body), "suggestions": {}}
        for action, body in events
    ]
    with store.database.write() as connection:
        connection.execute(insert(inbox), rows)
