"""Searches that somebody waits for."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import update

from clapboard.store import Store
from clapboard.store.schema import searches
from clapboard.store.searches import KEPT_S


def test_whoever_waits_gets_the_answer_from_any_process(store: Store, open_store: Callable[[], Store]) -> None:
    search = store.searches.ask('{"text": "rain"}')
    worker = open_store()
    assert store.searches.answer_to(search) is None
    assert worker.searches.request(search) == '{"text": "rain"}'
    assert worker.searches.is_open(search)
    for _ in range(2):
        worker.searches.answer(search, '{"matches": []}')
    assert store.searches.answer_to(search) == '{"matches": []}'


def test_nothing_is_kept_of_one_that_is_over(store: Store) -> None:
    one, other = store.searches.ask("1"), store.searches.ask("2")
    store.searches.forget(one)
    store.searches.answer(one, "too late")
    assert store.searches.answer_to(one) is None
    assert (store.searches.request(one), store.searches.request(other)) == (None, "2")
    assert (store.searches.is_open(one), store.searches.is_open(other)) == (False, True)


def test_one_whose_asker_vanished_is_forgotten_when_the_next_is_asked(store: Store) -> None:
    one, other = store.searches.ask("1"), store.searches.ask("2")
    with store.database.write() as connection:
        connection.execute(update(searches).where(searches.c.id == one).values(asked_at=store.clock() - KEPT_S - 1))
    store.searches.ask("3")
    assert (store.searches.request(one), store.searches.request(other)) == (None, "2")
