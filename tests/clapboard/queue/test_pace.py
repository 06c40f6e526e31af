"""Pace and remaining time, by a clock that the test moves."""

from __future__ import annotations

import pytest

from clapboard.queue.pace import RATE_OVER_S, REPORT_EVERY_S, Pace, duration, time_left_s
from tests.clapboard.store.conftest import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said() -> list[str]:
    return []


def test_the_time_left_follows_from_what_was_measured(clock: Clock, said: list[str]) -> None:
    pace = Pace("tasks", 10_000, said.append, clock)
    clock.advance(10)
    pace.advance(0)
    clock.advance(10)
    pace.advance(2000)
    clock.advance(20)
    pace.reach(8000)
    assert said == ["0 of 10,000 tasks", "2,000 of 10,000 tasks, 80 s left", "8,000 of 10,000 tasks, 10 s left"]


def test_what_is_done_at_once_is_not_spoken_of(clock: Clock, said: list[str]) -> None:
    pace = Pace("tasks", 2, said.append, clock)
    clock.advance(REPORT_EVERY_S / 2)
    pace.advance(2)
    assert said == []
    assert str(pace) == "2 of 2 tasks, 0 s left"


def test_it_speaks_once_a_second_however_often_it_is_told(clock: Clock, said: list[str]) -> None:
    pace = Pace("tasks", 100, said.append, clock)
    for _ in range(12):
        pace.advance()
        clock.advance(REPORT_EVERY_S / 4)
    assert said == ["5 of 100 tasks, 19 s left", "9 of 100 tasks, 20 s left"]


def test_what_was_long_ago_does_not_count(clock: Clock, said: list[str]) -> None:
    pace = Pace("tasks", 1000, said.append, clock)
    clock.advance(1)
    pace.advance(500)  # a fast beginning
    for _ in range(300):
        clock.advance(1)
        pace.advance()
    assert said[-1] == "800 of 1,000 tasks, 3 min left"


def test_where_nothing_moves_no_time_is_told(clock: Clock, said: list[str]) -> None:
    pace = Pace("tasks", 10, said.append, clock)
    clock.advance(1)
    pace.advance(4)
    for _ in range(int(RATE_OVER_S) + 2):
        clock.advance(1)
        pace.advance(0)
    assert said[-1] == "4 of 10 tasks"


def test_where_the_total_is_not_known_or_was_wrong_the_count_alone_is_told(clock: Clock, said: list[str]) -> None:
    for total in (None, 5):
        pace = Pace("annotations", total, said.append, clock)
        clock.advance(1)
        pace.advance(1234)
    assert said == ["1,234 annotations"] * 2


def test_what_is_done_takes_no_time(clock: Clock, said: list[str]) -> None:
    pace = Pace("tasks", 7, said.append, clock)
    clock.advance(1)
    pace.advance(7)
    assert said == ["7 of 7 tasks, 0 s left"]


@pytest.mark.parametrize(
    ("num_left", "per_s", "expected"), [(10, 2.0, 5.0), (10, None, None), (10, 0.0, None), (0, None, 0.0)]
)
def test_time_left(num_left: int, per_s: float | None, expected: float | None) -> None:
    assert time_left_s(num_left, per_s) == expected


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (119, "119 s"), (130, "2 min"), (7100, "118 min"), (7300, "2 h"), (200_000, "2 d")],
)
def test_durations_have_one_unit(seconds: float, said: str) -> None:
    assert duration(seconds) == said
