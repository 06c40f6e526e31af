"""`GET /ledger`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import event

from backend.ledger import ledger_router
from clapboard.store import Store
from tests.support.annotation_events import PROJECT, annotation, clip, said, suggestion


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'clapboard.db'}")
    yield store
    store.close()


@pytest.fixture
def client(store: Store) -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(ledger_router(store))
    with TestClient(app) as client:
        yield client


def test_the_ledger_includes_the_last_event(store: Store, client: TestClient) -> None:
    assert client.get("/ledger", params={"project": PROJECT}).json()["num_annotations"] == 0
    for number, label in enumerate(("dog", "rain"), start=1):
        action, body = said(annotation(number, clip(label), task=number, by=7))
        store.inbox.append(action, PROJECT, body, {str(number): suggestion(clip("dog"))})
        answer = client.get("/ledger", params={"project": PROJECT})
        assert answer.status_code == 200
        assert answer.json()["overall"]["acceptance"] == 1 / number
    found = answer.json()
    assert found["by_version"]["v1"]["relabelled"] == found["by_annotator"]["7"]["relabelled"] == 1
    assert found["by_class"][0] == {
        "control": "clip",
        "label": "dog",
        "suggested": 2,
        "accepted": 1,
        "added": 0,
        "acceptance": 0.5,
    }
    assert found["corrected_lead_time"] == {"num_annotations": 1, "median_s": 3.5}


def test_annotations_are_not_read_again_while_nothing_is_said(store: Store, client: TestClient) -> None:
    action, body = said(annotation(1, clip("dog"), task=1, by=7))
    store.inbox.append(action, PROJECT, body)
    first = client.get("/ledger", params={"project": PROJECT}).json()
    statements: list[str] = []

    @event.listens_for(store.database.engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_others: Any) -> None:
        statements.append(statement)

    assert client.get("/ledger", params={"project": PROJECT}).json() == first
    assert not any("FROM annotation_states" in statement for statement in statements)
    store.inbox.append("PROJECT_UPDATED", PROJECT, {})
    assert client.get("/ledger", params={"project": PROJECT}).json() == first
    assert any("FROM annotation_states" in statement for statement in statements)


@pytest.mark.parametrize("project", ["", "0", "-1", "six", str(2**63)])
def test_an_impossible_project_is_refused(client: TestClient, project: str) -> None:
    assert client.get("/ledger", params={"project": project}).status_code == 422


def test_a_project_must_be_named(client: TestClient) -> None:
    assert client.get("/ledger").status_code == 422
