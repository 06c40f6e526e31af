from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from sqlalchemy import create_engine, func, select, text

from clapboard.store import Store
from clapboard.store.inbox import Event
from clapboard.store.inline_audio import REFERENCE
from clapboard.store.jobs import JobRequest
from clapboard.store.migrations import VERSIONS
from clapboard.store.migrations.upgrade import upgrade
from clapboard.store.retention import DAY_S, Retention
from clapboard.store.schema import inbox, inline_audio, jobs, tasks
from clapboard.store.tasks import KnownTask
from tests.clapboard.store.conftest import Clock

URI = "data:audio/wav;base64," + "QUJD" * 5_000
OTHER = "DATA:audio/wav;base64," + "QUJE" * 5_000
ADDRESS = "https://host.example/a.wav?signature=" + "f" * 500


def known(task: int, uri: str) -> KnownTask:
    return KnownTask(task, uri, f"key of {uri[-3:]}", "s", held_out=False)


def event(task: int, uri: str) -> dict[str, object]:
    annotation = {"id": task, "task": task, "project": 1, "result": [], "updated_at": "2026-11-22T12:00:00Z"}
    return {"annotation": annotation | {"completed_by": 1}, "task": {"id": task, "data": {"audio": uri, "n": [uri]}}}


def fill(store: Store, *uris: str) -> None:
    """Tasks with these addresses, and a job and an event about each."""
    store.tasks.put(1, [known(number, uri) for number, uri in enumerate(uris, 1)])
    for number, uri in enumerate(uris, 1):
        store.jobs.add("batch", [JobRequest("predict", 1, number, "v1", {"uri": uri, "uri_key": "k"})])
        store.append_event("ANNOTATION_CREATED", 1, event(number, uri))


def texts(store: Store) -> str:
    """All that the tables have besides the audio."""
    with store.database.read() as connection:
        return json.dumps(
            [list(connection.scalars(select(column))) for column in (tasks.c.uri, jobs.c.payload, inbox.c.body)]
        )


def num_kept(store: Store) -> int:
    with store.database.read() as connection:
        return connection.scalar(select(func.count()).select_from(inline_audio)) or 0


@pytest.fixture
def retention(store: Store, clock: Clock) -> Retention:
    return Retention(store.database, clock, keep_days=30)


def test_audio_in_an_address_is_kept_once(store: Store) -> None:
    fill(store, URI, URI, OTHER, ADDRESS)
    assert num_kept(store) == 2
    assert "QUJDQUJD" not in texts(store)
    assert "QUJEQUJE" not in texts(store)
    stored = store.tasks.get(1, [1, 2, 3, 4])
    assert [stored[number].uri for number in (1, 2, 3, 4)] == [URI, URI, OTHER, ADDRESS]
    (page,) = store.tasks.of_project(1)
    assert page == list(stored.values())
    assert [job.payload["uri"] for job in store.jobs.claim("w", "batch", 9)] == [URI, URI, OTHER, ADDRESS]
    (first, *_, last) = store.inbox.events()
    assert first.body["task"]["data"]["n"] == [first.body["task"]["data"]["audio"]]
    assert first.body["task"]["data"]["audio"].startswith(REFERENCE)
    assert last.body == event(4, ADDRESS)
    store.ledger.catch_up()
    assert store.ledger.replay(store.inbox).agrees


def test_nobody_can_name_anothers_audio(store: Store) -> None:
    fill(store, URI)
    with store.database.read() as connection:
        (named,) = connection.scalars(select(tasks.c.uri)).all()
    store.tasks.put(2, [known(9, named)])
    store.jobs.add("batch", [JobRequest("predict", 2, 9, "v1", {"uri": named})])
    assert store.tasks.get(2, [9])[9].uri == named
    assert [job.payload["uri"] for job in store.jobs.claim("w", "batch", 9)] == [URI, named]


def test_audio_that_no_task_has_goes_after_that_time(store: Store, clock: Clock, retention: Retention) -> None:
    fill(store, URI, OTHER)
    store.tasks.put(2, [known(5, OTHER)])
    store.tasks.forget(1, [1, 2])
    assert retention.finish() == {}
    clock.advance(20 * DAY_S)
    store.tasks.put(1, [known(8, URI)])  # it was imported again
    retention.finish()
    store.tasks.forget(1, [8])
    retention.finish()
    clock.advance(20 * DAY_S)
    assert retention.finish() == {}
    clock.advance(20 * DAY_S)
    assert retention.finish() == {"sounds in tasks": 1}
    assert store.tasks.get(2, [5])[5].uri == OTHER


def write_as_earlier_releases_did(url: str, *uris: str) -> None:
    """A store of the schema before, with tasks that have these addresses, and a job and an event about each."""
    (ours,) = VERSIONS.glob("*_keep_audio_once.py")
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    upgrade(engine, to=f"{int(ours.name[:4]) - 1:04}")
    statements = (
        "INSERT INTO tasks (project, task, uri, uri_key, source, set_aside, draw) "
        "VALUES (1, :n, :uri, 'k', 's', :no, :n)",
        "INSERT INTO jobs (id, queue, kind, project, task, model_version, payload, encoder, push, state, attempts, "
        "not_before, created_at) VALUES (:n, 'batch', 'predict', 1, :n, 'v1', :payload, '', :no, 'queued', 0, 0, 0)",
        "INSERT INTO inbox (id, received_at, action, project, body) VALUES (:n, 0, 'ANNOTATION_CREATED', 1, :body)",
    )
    with engine.begin() as connection:
        for n, uri in enumerate(uris, 1):
            values = {"n": n, "uri": uri, "no": False, "payload": json.dumps({"uri": uri, "uri_key": "k"})}
            for statement in statements:
                connection.execute(text(statement), values | {"body": json.dumps(event(n, uri))})
    engine.dispose()


def test_what_earlier_releases_stored_is_moved(url: str, open_store: Callable[[], Store]) -> None:
    uris = [*[URI] * 30, ADDRESS, OTHER]
    write_as_earlier_releases_did(url, *uris)
    store = open_store()
    assert num_kept(store) == 2
    assert "QUJDQUJD" not in texts(store)
    stored = store.tasks.get(1, [*range(1, 33)])
    assert [stored[number].uri for number in range(1, 33)] == uris
    assert [job.payload["uri"] for job in store.jobs.claim("w", "batch", 99)] == uris
    entered: list[Event] = store.inbox.events()
    assert entered[30].body == event(31, ADDRESS)
    assert store.ledger.catch_up() == 32
