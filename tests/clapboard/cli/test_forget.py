"""`clapboard forget` as typed: no row of any table is left, nothing else goes, and nothing comes back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from backend.app import create_app
from clapboard.project.display import unserved
from clapboard.project.forgetting import forget
from clapboard.queue.names import BATCH
from clapboard.settings import Settings
from clapboard.sources import AudioSources
from clapboard.store import Store, forgetting, schema
from clapboard.store.database import Database
from clapboard.store.inbox import Event
from clapboard.store.jobs import JobRequest
from clapboard.store.predictions import StoredPrediction
from clapboard.store.tasks import KnownTask
from tests.backend.conftest import ENCODER
from tests.clapboard.cli.conftest import Main
from tests.support.fake_label_studio import CHOICES
from tests.support.processes import Installation
from tests.support.waiting import wait_for

GONE, STAYS = 7, 8
SHARED = "sound of both"
COUNTED_BY_TRIGGERS = (schema.job_tallies, schema.prediction_tallies)


@dataclass(frozen=True)
class Desk:
    """A store, and `clapboard forget` on it."""

    store: Store
    settings: Settings
    run: Callable[..., tuple[int, str]]


@pytest.fixture(params=["sqlite", "postgresql"])
def desk(request: pytest.FixtureRequest, tmp_path: Path, typed: Main) -> Iterator[Desk]:
    settings = Settings(MODEL_DIR=tmp_path / "state", CLAPBOARD_MODEL="mini", CLAPBOARD_PREDICT_WAIT_S=0)
    chosen = {} if request.param == "sqlite" else {"database_url": request.getfixturevalue("new_postgres_url")()}
    settings = settings.with_overrides(**chosen)
    store = Store.open(settings)
    yield Desk(store, settings, partial(typed, "forget", **chosen))
    store.close()


def row(table: sa.Table, project: int) -> dict[str, Any]:
    """A row about the project, whose every text names it."""
    known: dict[str, dict[str, Any]] = {
        "projects": {"id": project, "connected": False},
        "jobs": {"id": project, "state": "done", "payload": {"uri_key": f"uri_key of {project}"}},
        "inbox": {"id": project, "body": {"task": {"id": project}, "of": f"of {project}"}},
        "ledger": {"inbox_id": project, "annotator": project, "outcome": "added"},
        "ledger_events": {"inbox_id": project},
        "trials": {"id": project},
        "trial_answers": {"trial": project},
        "annotators": {"id": project},
        "embeddings": {"id": project},
        "versions": {"encoder": f"models/{project}/tuned", "head": f"name of {project}"},
        "encoders": {"model": f"models/{project}/tuned", "version": f"encoder_version of {project}"},
        "audio_failures": {"subject": f"uri_key of {project}"},
        "tasks": {"uri": f"data-sha256:key of {project}"},
        "searches": {"request": json.dumps({"project": project})},
    }
    values: dict[str, Any] = {}
    for column in table.columns:
        match column.type:
            case sa.JSON():
                values[column.key] = {"of": f"of {project}"}
            case sa.LargeBinary():
                values[column.key] = b"of %d" % project
            case sa.String():
                values[column.key] = f"{column.key} of {project}"
            case sa.Boolean():
                values[column.key] = True
            case _:
                values[column.key] = 1
    values |= {name: project for name in ("project", "task", "annotation") if name in table.columns}
    return values | known.get(table.name, {})


def fill(database: Database, project: int) -> None:
    """Every table that isn't kept gets a row about the project."""
    with database.write() as connection:
        for table in schema.metadata.sorted_tables:
            if table not in (*forgetting.KEPT, *COUNTED_BY_TRIGGERS):
                connection.execute(table.insert(), row(table, project))


def contents(database: Database, table: sa.Table) -> list[str]:
    with database.read() as connection:
        return sorted(repr(tuple(found)) for found in connection.execute(sa.select(table)))


def test_every_table_is_classified() -> None:
    lists = [*forgetting.OF_PROJECT, *forgetting.OF_EVENTS, *forgetting.OF_SOUNDS, *forgetting.OF_VERSIONS]
    classified = [table.name for table in (*lists, *forgetting.OTHERWISE, *forgetting.KEPT)]
    assert sorted(classified) == sorted(schema.metadata.tables), "say in clapboard/store/forgetting.py what goes"
    subjects = {"project", "task", "uri_key", "sha256", "annotation", "annotator"}
    about_subjects = [table.name for table in forgetting.KEPT if subjects & {*table.columns.keys()}]
    assert sorted(about_subjects) == ["departures", "project_locks"]


def test_no_row_about_the_project_is_left_and_no_other_goes(desk: Desk) -> None:
    for project in (GONE, STAYS):
        fill(desk.store.database, project)
    checkpoint = desk.settings.model_dir / f"models/{GONE}/tuned"
    checkpoint.mkdir(parents=True)
    (desk.settings.model_dir / "training" / f"{GONE}-1").mkdir(parents=True)
    filled = [table for table in schema.metadata.sorted_tables if table not in forgetting.KEPT]
    before = {table.name: contents(desk.store.database, table) for table in filled}
    code, written = desk.run("--project", str(GONE), "--yes", "--json")
    assert code == 0, written
    for table in filled:
        assert len(before[table.name]) == 2, table.name
        (left,) = contents(desk.store.database, table)
        assert left in before[table.name], table.name
        assert f"of {GONE}" not in left, table.name
    told = json.loads(written)
    assert set(told["rows"]) == {table.name for table in filled}
    assert (told["num_folders"], checkpoint.exists()) == (2, False)
    code, written = desk.run("--project", str(GONE), "--yes")
    assert code == 0
    assert "nothing left to delete" in written


def test_a_sound_that_another_project_has_stays(desk: Desk) -> None:
    store = desk.store
    for project, keys in {GONE: ("alone", SHARED), STAYS: (SHARED,)}.items():
        known = [KnownTask(n, f"https://host.example/{key}", key, "s", False) for n, key in enumerate(keys, 1)]
        store.catalog.put_project(project, CHOICES, "v1")
        store.tasks.put(project, known)
    with store.database.write() as connection:
        for key in ("alone", SHARED):
            recording = row(schema.recordings, 0) | {"uri_key": key, "sha256": key}
            connection.execute(schema.recordings.insert(), recording)
            embedding = row(schema.embeddings, 0) | {"id": len(key), "sha256": key}
            connection.execute(schema.embeddings.insert(), embedding)
            connection.execute(schema.frames.insert(), row(schema.frames, 0) | {"sha256": key})
    sources = AudioSources(desk.settings)
    for key in ("alone", SHARED):
        cache_key = sources.key(f"https://host.example/{key}")
        folder = desk.settings.audio_cache_dir / cache_key[:2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{cache_key}.abc").write_bytes(b"RIFF")
    code, written = desk.run("--project", str(GONE), "--yes", "--json")
    assert (code, json.loads(written)["num_files"]) == (0, 1)
    for table in (schema.recordings, schema.embeddings, schema.frames):
        assert [SHARED in found for found in contents(store.database, table)] == [True]
    assert len(list(desk.settings.audio_cache_dir.glob("[0-9a-f][0-9a-f]/*"))) == 1


def test_the_audio_of_data_uris_goes_with_its_last_task_even_after_a_kill(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = desk.store
    alone, shared = (f"data:audio/wav;base64,{letters * 2_000}" for letters in ("QUJD", "QUJE"))
    for project, uris in {GONE: (alone, shared), STAYS: (shared,)}.items():
        store.catalog.put_project(project, CHOICES, "v1")
        store.tasks.put(project, [KnownTask(n, uri, f"k{uri[-4:]}", "s", False) for n, uri in enumerate(uris, 1)])
        store.jobs.add(BATCH, [JobRequest("predict", project, 1, "v1", {"uri": uris[0]})])

    def killed(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(forgetting.Forgetting, "inline_audio", killed)
        with pytest.raises(KeyboardInterrupt):
            forget(store, desk.settings, GONE)
    code, written = desk.run("--project", str(GONE), "--yes", "--json")
    assert (code, json.loads(written)["rows"]["inline_audio"]) == (0, 1)
    assert [shared in kept for kept in contents(store.database, schema.inline_audio)] == [True]
    assert store.tasks.get(STAYS, [1])[1].uri == shared


def bulk_event(*tasks: int) -> dict[str, Any]:
    choice = {"from_name": "clip", "to_name": "audio", "type": "choices", "id": "r", "value": {"choices": ["dog"]}}
    said = {"result": [choice], "completed_by": 1, "updated_at": "2026-01-01T00:00:00Z"}
    return {
        "action": "ANNOTATIONS_CREATED",
        "project": {"id": GONE, "label_config": CHOICES},
        "annotation": [{"id": 100 + task, "task": task} | said for task in tasks],
        "task": [{"id": task, "data": {"audio": f"https://host.example/{task}.wav"}} for task in tasks],
    }


def test_a_single_task_goes_out_of_events_that_others_are_in_too(desk: Desk) -> None:
    store = desk.store
    store.catalog.put_project(GONE, CHOICES, "v1")
    for tasks in ((71, 72), (71,)):
        store.append_event("ANNOTATIONS_CREATED", GONE, bulk_event(*tasks))
    store.ledger.catch_up()
    for task in (71, 72):
        store.tasks.put(GONE, [KnownTask(task, f"https://host.example/{task}", f"k{task}", "s", False)])
        store.predictions.put_all([StoredPrediction(GONE, task, "v1", f"k{task}", 0.5, [])], push=False)
    store.jobs.add(BATCH, [JobRequest("predict", GONE, 71, "v1")])
    snapshot = desk.settings.model_dir / f"models/{GONE}/mini-tuned-1/snapshot.json"
    snapshot.parent.mkdir(parents=True)
    snapshot.write_text(json.dumps({"clips": [{"task": 71}, {"task": 72}]}), "utf-8")
    code, written = desk.run("--project", str(GONE), "--task", "71", "--yes")
    assert code == 0, written
    assert f"task 71 of project {GONE}" in written
    (event,) = store.inbox.events(project=GONE)
    assert ("71" in json.dumps(event.body), "72" in json.dumps(event.body)) == (False, True)
    assert {entry.task for entry in store.ledger.standing(GONE)} == {72}
    assert store.ledger.replay(store.inbox).agrees
    assert {task.task for page in store.tasks.of_project(GONE) for task in page} == {72}
    assert store.predictions.cached(GONE, {71: "k71", 72: "k72"}, "v1") == {72}
    assert store.jobs.newest(project=GONE) == []
    assert unserved(store, GONE, "v1", num_tasks=2) == 0  # Label Studio has it, and waits for nothing
    assert json.loads(snapshot.read_text("utf-8")) == {"clips": [{"task": 72}], "num_forgotten": 1}


@pytest.mark.parametrize("task", [None, 71])
def test_nothing_that_arrives_late_brings_it_back(desk: Desk, task: int | None) -> None:
    store = desk.store
    store.catalog.announce_encoder(ENCODER)
    store.catalog.put_project(GONE, CHOICES, "v1")
    late = Event(99, 1.0, "ANNOTATIONS_CREATED", GONE, bulk_event(71), {})
    of_task = () if task is None else ("--task", str(task))
    code, written = desk.run("--project", str(GONE), *of_task, "--yes")
    assert code == 0, written
    with TestClient(create_app(desk.settings), base_url="http://localhost") as backend:
        assert backend.post("/webhook", json=bulk_event(71)).json()["event"] == 0
        asked_task = {"id": 71, "data": {"audio": "https://host.example/71"}}
        asked = {"project": f"{GONE}.1", "label_config": CHOICES, "tasks": [asked_task]}
        assert backend.post("/predict", json=asked).json()["results"] == [[]]
        assert backend.post("/setup", json={"project": f"{GONE}.1", "schema": CHOICES}).status_code == 200
    prediction = StoredPrediction(GONE, 71, "v1", "k71", 0.5, [])
    store.predictions.put_all([prediction], push=True)
    assert store.predictions.put_for_push([prediction]) == []
    store.tasks.put(GONE, [KnownTask(71, "https://host.example/71", "k71", "s", False)])
    store.ledger.append(late, [])
    tables = [schema.jobs, schema.predictions, schema.tasks, schema.inbox, schema.ledger, schema.ledger_events]
    assert [table.name for table in tables if contents(store.database, table)] == []
    if task is None:
        assert contents(store.database, schema.projects) == []


def test_it_says_which_job_goes_on_running(desk: Desk) -> None:
    desk.store.catalog.put_project(GONE, CHOICES, "v1")
    desk.store.jobs.add(BATCH, [JobRequest("train", GONE), JobRequest("learn", GONE)])
    (running, *_) = desk.store.jobs.claim("a worker", BATCH, 1)
    code, written = desk.run("--project", str(GONE), "--yes", "--wait", "0")
    assert code == 3
    assert f"Job {running.id} ({running.kind}) of project {GONE} goes on running" in " ".join(written.split())
    desk.store.jobs.done(running)
    assert desk.run("--project", str(GONE), "--yes")[0] == 0
    assert contents(desk.store.database, schema.jobs) == []


def test_consent_is_needed_and_a_connected_project_is_refused(typed: Main, tmp_path: Path) -> None:
    store = Store.open(Settings(MODEL_DIR=tmp_path / "state"))
    store.catalog.put_project(GONE, CHOICES, "v1")
    code, written = typed("forget", "--project", str(GONE))
    assert (code, "add --yes" in written) == (2, True)
    assert store.catalog.project(GONE).id == GONE
    code, written = typed("forget", "--project", "99", "--yes")
    assert (code, "project 99" in written) == (2, True)
    store.catalog.set_connected(GONE)
    code, written = typed("forget", "--project", str(GONE), "--yes")
    assert (code, f"clapboard disconnect --project {GONE}" in " ".join(written.split())) == (2, True)
    assert typed("forget", "--project", str(GONE), "--yes", "--label-studio-gone")[0] == 0
    store.close()


def test_a_terminal_is_asked_and_a_killed_run_is_finished_by_the_next(tmp_path: Path) -> None:
    with Installation(tmp_path, "mini", job_lease_s=1) as installation:
        store = installation.store
        fill(store.database, GONE)
        events = [{"received_at": 1.0, "action": "TASKS_CREATED", "project": GONE, "body": {}}] * 6_000
        with store.database.write() as connection:
            connection.execute(schema.inbox.insert(), events)
        refused = installation.on_a_terminal("forget", "--project", str(GONE))
        refused.wait_for("It can't be brought back. [y/N]")
        refused.type("n")
        assert refused.wait() == 130
        assert store.catalog.project(GONE).id == GONE
        terminal = installation.on_a_terminal("forget", "--project", str(GONE))
        terminal.wait_for("[y/N]")
        terminal.type("y")
        wait_for(lambda: store.inbox.counts(GONE)["TASKS_CREATED"] < len(events), "nothing goes")
        terminal.end()
        assert store.inbox.counts(GONE)
        done = installation.run("forget", "--project", str(GONE), "--yes")
        assert done.returncode == 0, done.stderr
        for table in schema.metadata.sorted_tables:
            assert table in forgetting.KEPT or contents(store.database, table) == [], table.name
