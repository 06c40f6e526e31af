"""`clapboard compact`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from clapboard.store import Store
from clapboard.store.jobs import JobRequest, State
from clapboard.store.schema import jobs
from tests.clapboard.cli.conftest import Clapboard, lines
from tests.scale.filling import fill
from tests.support.programs import REPOSITORY
from tests.support.waiting import wait_for


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


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_after_a_kill_in_the_middle_the_counts_are_right_and_the_next_run_deletes_the_rest(
    clapboard: Clapboard, tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_url") if database == "postgresql" else f"sqlite:///{tmp_path / 'a.db'}"
    store = Store(url)
    fill(store, num_jobs=20_000, num_tasks=0)

    def num_done() -> int:
        with store.database.read() as connection:
            return connection.scalar(select(func.count()).where(jobs.c.state == "done")) or 0

    with store.database.write() as connection:
        connection.execute(update(jobs).where(jobs.c.state == "done").values(finished_at=1.7e9))
    before = num_done()
    env = {**os.environ, "CLAPBOARD_DATABASE_URL": url, "MODEL_DIR": str(tmp_path / "state")}
    process = subprocess.Popen([sys.executable, "-m", "clapboard", "compact"], cwd=REPOSITORY, env=env)
    wait_for(lambda: num_done() < before, "nothing is deleted")
    process.kill()
    assert process.wait() == -signal.SIGKILL
    left = num_done()
    assert 0 < left < before
    assert sum(num for (_, state), num in store.jobs.counts().items() if state == State.DONE) == left
    clapboard("compact", database_url=url)
    assert num_done() == 1  # the newest training of the project
    assert sum(num for (_, state), num in store.jobs.counts().items() if state == State.DONE) == 1
    store.close()
