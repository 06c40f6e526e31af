"""`clapboard compact`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy import update

from clapboard.store import Store
from clapboard.store.jobs import JobRequest
from clapboard.store.schema import jobs
from tests.clapboard.cli.conftest import Clapboard, lines


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_it_deletes_what_is_old_and_says_what_it_gave_back(
    clapboard: Clapboard, tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_url") if database == "postgresql" else f"sqlite:///{tmp_path / 'a.db'}"
    store = Store(url)
    payload = {"uri": "https://host.example/" + 500 * "a"}
    store.jobs.add("batch", [JobRequest("predict", 1, task, "v1", payload) for task in range(2_000)])
    with store.database.write() as connection:
        connection.execute(
            update(jobs).where(jobs.c.task > 0).values(state="done", finished_at=1.7e9, started_at=1.7e9)
        )
    said = clapboard("compact", database_url=url).output
    assert said.startswith("Deleted 1,999 jobs. The store had "), said
    (given_back,) = re.findall(r": ([\d.]+) MB were given back\.", " ".join(said.split()))
    assert float(given_back) > 0.5
    assert sum(store.jobs.counts().values()) == 1
    (again,) = lines(clapboard("compact", "--json", database_url=url))
    assert again["deleted"] == {}
    if database == "sqlite":  # PostgreSQL's map of free pages is of the table's size
        assert again["bytes_after"] <= again["bytes_before"]
    store.close()
