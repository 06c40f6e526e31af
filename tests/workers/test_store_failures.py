"""A store that fails while a worker and a backend use it: one sentence, and the exit code that says why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fixtures_label_studio import CHOICES
from tests.support.processes import Installation
from tests.support.waiting import wait_for


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Installation]:
    with Installation(tmp_path / "house", "mini") as installation:
        yield installation


def test_a_store_that_is_damaged_while_it_is_used_ends_the_worker_and_is_told_by_the_backend(
    house: Installation,
) -> None:
    worker = house.worker()
    backend = house.serve()
    assert backend.setup(CHOICES).status_code == 200
    database = house.folder / "state" / "clapboard.db"
    for suffix in ("", "-wal"):
        file = database.with_name(f"{database.name}{suffix}")
        with file.open("r+b") as pages:
            size = file.stat().st_size
            pages.seek(4096 if not suffix else 0)
            pages.write(b"\xa5" * (size - pages.tell()))
    assert worker.wait() == 3
    assert worker.log.count("is damaged: stop Clapboard and restore a back-up") >= 1
    assert "Traceback" not in worker.log
    assert "SELECT" not in worker.log
    answer = wait_for(
        lambda: (
            (said := backend.client.post("/webhook", json={"action": "START_TRAINING"})).status_code != 201 and said
        ),
        "the backend notices",
    )
    assert answer.status_code == 503
    assert answer.json() == {
        "error": "store",
        "detail": "The store can't be reached at the moment: try again, and look at the backend's log.",
    }
    assert "is damaged" in backend.process.log
    assert str(database) not in json.dumps(answer.json())
