"""When a crontab line comes next, by local time, also where the clocks change."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
import tzlocal

from clapboard.settings.crontab import next_time


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    tzlocal.reload_localzone()
    yield
    monkeypatch.undo()
    tzlocal.reload_localzone()


def at(text: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(fold=fold, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()


@pytest.mark.parametrize(
    ("crontab", "after", "expected"),
    [
        ("0 3 * * *", "2026-11-30T02:59:59", "2026-11-30T03:00"),
        ("0 3 * * *", "2026-11-30T03:00", "2026-12-01T03:00"),
        ("5 3 1 * 0", "2026-11-30T12:00", "2026-12-01T03:05"),  # the first of the month, and Sundays
        ("5 3 1 * sun", "2026-12-01T12:00", "2026-12-06T03:05"),
        ("*/20 * * jan *", "2026-11-30T12:00", "2027-01-01T00:00"),
        ("30 2 * * *", "2027-03-27T12:00", "2027-03-28T03:00"),  # an hour that doesn't come
        ("30 2 * * *", "2026-10-25T01:00", "2026-10-25T02:30"),  # one that comes twice: the first
        ("30 2 * * *", "2026-10-25T02:30", "2026-10-26T02:30"),
    ],
)
def test_it_comes_when_debians_cron_would_have_it(crontab: str, after: str, expected: str) -> None:
    assert next_time(crontab, at(after)) == at(expected)


def test_in_an_hour_that_comes_twice_short_intervals_go_on() -> None:
    moments = [at("2026-10-25T02:50")]
    for _ in range(4):
        moments.append(next_time("*/20 * * * *", moments[-1]))
    assert moments[1:] == [
        at("2026-10-25T02:00", 1),
        at("2026-10-25T02:20", 1),
        at("2026-10-25T02:40", 1),
        at("2026-10-25T03:00"),
    ]


@pytest.mark.parametrize("line", ["99 3 * * *", "0 3 * *", "a b c d e", "0 0 30 2 *", "@daily", "0 3 * * * *"])
def test_what_is_no_crontab_line_is_refused_in_a_sentence(line: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a crontab line, such as 0 3 \* \* \*, but has "):
        next_time(line, 0.0)


def test_a_time_zone_without_a_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC+3")
    tzlocal.unix._cache_tz = None
    with pytest.raises(ValueError, match=r"^needs the name of a time zone in TZ, such as Europe/Berlin$"):
        next_time("0 3 * * *", 0.0)
