"""What the store remembers of audio that could not be had."""

from __future__ import annotations

import pytest

from clapboard.errors import AudioError, SourceRefused, SourceUnavailable, SourceUnreachable
from clapboard.queue.celery_app import INTERACTIVE
from clapboard.store import Store
from clapboard.store.jobs import JobRequest
from tests.clapboard.store.conftest import Clock


@pytest.mark.parametrize(
    ("subject", "error", "recent_s"),
    [
        ("a" * 64, SourceUnavailable("Not now."), 60),
        ("a" * 64, AudioError("It is damaged."), 600),
        ("https://host:8443", SourceUnreachable("No connection."), 30),
    ],
)
def test_how_long_a_failure_is_recent(
    store: Store, clock: Clock, subject: str, error: SourceUnavailable, recent_s: float
) -> None:
    store.audio_failures.put({subject: error})
    clock.now += recent_s - 1
    found = store.audio_failures.of([subject, "b" * 64])
    assert {name: (known.error_code, known.is_recent) for name, known in found.items()} == {subject: (error.code, True)}
    clock.now += 2
    assert not store.audio_failures.of([subject])[subject].is_recent
    store.audio_failures.put({subject: error})
    assert store.audio_failures.of([subject])[subject].is_recent


def test_what_went_well_is_forgotten_and_so_are_kinds(store: Store) -> None:
    store.audio_failures.put({"a": AudioError("Bad."), "b": SourceRefused("Not allowed."), "c": AudioError("Bad.")})
    store.audio_failures.forget(["a", "z"])
    store.audio_failures.forget_kinds(["source_refused"])
    assert set(store.audio_failures.of(["a", "b", "c"])) == {"c"}


def test_audio_that_took_a_worker_along_each_time_is_a_failure_that_lasts(store: Store, clock: Clock) -> None:
    store.jobs.add(INTERACTIVE, [JobRequest("predict", 1, 1, "v1", {"uri_key": "a"}), JobRequest("learn", 1)])
    for _ in range(3):
        store.jobs.claim("worker", INTERACTIVE, 2)
        store.jobs.claim("worker", INTERACTIVE, 2)
        assert store.audio_failures.of(["a"]) == {}
        clock.now += 100
        store.jobs.requeue_lost(30)
    assert store.audio_failures.of(["a"])["a"].error_code == "worker_lost"
    clock.now += 599
    assert store.audio_failures.of(["a"])["a"].is_recent
