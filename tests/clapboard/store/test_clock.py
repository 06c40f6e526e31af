"""The database's clock, asked of both databases by machines whose own clocks go wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from sqlalchemy import Connection

from clapboard.errors import StoreError
from clapboard.store.clock import SYNC_EVERY_S, DatabaseClock
from clapboard.store.database import Database
from tests.clapboard.store.conftest import Clock

WRONG_S = 35.0


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    database = Database(postgres_url)
    yield database
    database.close()


def test_machines_whose_clocks_differ_agree_on_the_time(database: Database) -> None:
    ahead = DatabaseClock(database, own=lambda: time.time() + WRONG_S)
    behind = DatabaseClock(database, own=lambda: time.time() - WRONG_S)
    assert ahead() == pytest.approx(behind(), abs=1.0)
    assert ahead() == pytest.approx(time.time(), abs=1.0)  # this test's database tells this machine's time


def test_in_between_the_steady_clock_goes_on_and_the_database_is_not_asked(database: Database) -> None:
    steady = Clock()
    clock = DatabaseClock(database, steady=steady)
    began = clock()
    steady.advance(SYNC_EVERY_S / 2)
    assert clock() == began + SYNC_EVERY_S / 2


def test_it_is_asked_again_from_time_to_time_so_that_it_does_not_drift(database: Database) -> None:
    steady = Clock()
    clock = DatabaseClock(database, steady=steady)
    began = clock()
    steady.advance(1000.0)
    assert clock() == pytest.approx(began, abs=5.0)  # by the database's clock hardly any time has passed


class TimesAway(Database):
    """A database that can't be reached while it is `away`."""

    away = False

    def read(self) -> AbstractContextManager[Connection]:
        if self.away:
            raise StoreError("The store is away.")
        return super().read()


def test_while_the_database_is_away_time_goes_on(postgres_url: str) -> None:
    database, steady = TimesAway(postgres_url), Clock()
    clock = DatabaseClock(database, steady=steady)
    began = clock()
    database.away = True
    for _ in range(3):
        steady.advance(SYNC_EVERY_S)
    assert clock() == began + 3 * SYNC_EVERY_S
    database.away = False
    steady.advance(SYNC_EVERY_S)
    assert clock() == pytest.approx(began, abs=5.0)
    database.close()


def test_all_who_share_an_sqlite_file_have_their_machines_clock(tmp_path: Path) -> None:
    own = Clock()
    clock = DatabaseClock(Database(f"sqlite:///{tmp_path / 'clapboard.db'}"), own=own)
    assert clock() == own.now
    own.advance(5)
    assert clock() == own.now
