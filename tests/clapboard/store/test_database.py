from __future__ import annotations

import gc
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select
from sqlalchemy.pool import QueuePool

from clapboard.errors import SettingsError, StoreError
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.embeddings import Recording
from clapboard.store.jobs import JobRequest, State
from clapboard.store.predictions import Delivery, StoredPrediction
from clapboard.store.schema import jobs, metadata, predictions
from tests.support.programs import free_port
from tests.support.together import together
from tests.support.waiting import WAIT_S

REPOSITORY = Path(__file__).parents[3]
PASSWORD = "swordfish"

OPENING = """
import sys
from clapboard.store import Store, database
store = Store(sys.argv[1])
store.inbox.append("ANNOTATION_CREATED", 1, {})
store.close()
"""

ANSWERING = """
import sys, time
from clapboard.store import Store, database
store = Store(sys.argv[1])
print(len(store.predictions.take_for_answer(1, {1: "uri"}, "v1", since=0.0)), flush=True)
time.sleep(60)
"""

WORKING = """
import itertools, sys
from clapboard.store import Store, database
from clapboard.store.jobs import JobRequest
from clapboard.store.predictions import Delivery, StoredPrediction
store = Store(sys.argv[1])
for number in itertools.count():
    store.inbox.append("ANNOTATION_CREATED", 1, {"number": number})
    store.jobs.add("batch", [JobRequest("predict", 1, number * 4 + offset, "v1", push=True) for offset in range(4)])
    for job in store.jobs.claim("w", "batch", 3):
        store.finish_with_prediction(job, StoredPrediction(1, job.task, "v1", "uri", 0.5, [{"task": job.task}]))
    print(number, flush=True)
"""


def python(script: str, *arguments: str) -> subprocess.Popen[str]:
    """A Python process of its own, as a worker or a backend would be."""
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def sqlite_url(file: Path) -> str:
    return f"sqlite:///{file}"


# Opening


def test_everything_is_there_after_the_store_was_opened_again(open_store: Callable[[], Store]) -> None:
    first = open_store()
    (job_id,) = first.jobs.add("batch", [JobRequest("predict", 1, 1, "v1")])
    (job,) = first.jobs.claim("w", "batch", 1)
    first.finish_with_prediction(job, StoredPrediction(1, 1, "v1", "uri", 0.5, []))
    first.embeddings.put("aa", "e1", "float32", 0, np.ones((1, 4), np.float32))
    first.inbox.append("ANNOTATION_CREATED", 1, {"a": 1})
    first.catalog.put_project(1, "<View/>", "v1")
    first.close()
    again = open_store()
    assert again.jobs.get(job_id).state == State.DONE
    assert again.predictions.cached(1, {1: "uri"}, "v1") == {1}
    assert len(again.embeddings.get([Recording("aa", 1, 1.0)], "e1", "float32")) == 1
    assert [event.body for event in again.inbox.events()] == [{"a": 1}]
    assert again.catalog.project(1).model_version == "v1"


def test_what_a_transaction_wrote_before_an_exception_is_taken_back(store: Store) -> None:
    def write_and_stumble() -> None:
        with store.database.write() as connection:
            store.predictions.put(connection, [StoredPrediction(1, 1, "v1", "uri", 0.5, [])], push=False)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_stumble()
    assert store.predictions.cached(1, {1: "uri"}, "v1") == set()


def test_a_transaction_that_doesnt_wait_for_the_disk_outlives_its_process(
    url: str, open_store: Callable[[], Store]
) -> None:
    store = open_store()
    store.predictions.put_all([StoredPrediction(1, 1, "v1", "uri", 0.5, [])], push=False)
    process = python(ANSWERING, url)
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert store.predictions.counts(1, "v1") == {Delivery.ANSWERED: 1}


def test_only_what_says_so_doesnt_wait_for_the_disk(store: Store) -> None:
    postgres = store.database.engine.dialect.name == "postgresql"
    question = "SHOW synchronous_commit" if postgres else "PRAGMA synchronous"
    found = []
    for durable in (True, False, True):
        with store.database.write(durable=durable) as connection:
            found.append(connection.exec_driver_sql(question).scalar())
    assert found == (["on", "off", "on"] if postgres else [2, 1, 2])


def test_readers_dont_wait_for_a_writer_and_see_whole_transactions_only(open_store: Callable[[], Store]) -> None:
    writer, reader = open_store(), open_store()
    with writer.database.write() as connection:
        writer.predictions.put(connection, [StoredPrediction(1, 1, "v1", "uri", 0.5, [])], push=False)
        assert reader.predictions.cached(1, {1: "uri"}, "v1") == set()
    assert reader.predictions.cached(1, {1: "uri"}, "v1") == {1}


def test_a_store_shared_by_many_threads_serves_them_all(store: Store) -> None:
    together([lambda i=i: [store.inbox.append("A", i, {}) for _ in range(3)] for i in range(20)])
    assert store.inbox.counts() == {"A": 60}


def test_processes_may_open_a_new_database_at_once(url: str, open_store: Callable[[], Store]) -> None:
    processes = [python(OPENING, url) for _ in range(3)]
    stderr = [process.communicate(timeout=WAIT_S)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], stderr
    assert open_store().inbox.counts() == {"ANNOTATION_CREATED": 3}


def test_threads_may_open_a_new_database_at_once(open_store: Callable[[], Store]) -> None:
    stores = together([open_store] * 8)
    stores[0].inbox.append("A", 1, {})
    assert [store.inbox.counts() for store in stores] == [{"A": 1}] * 8


def test_opening_makes_the_folder_of_an_sqlite_file(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "clapboard.db"
    Store(sqlite_url(file)).close()
    assert file.is_file()


def test_settings_open_sqlite_in_the_model_dir_unless_they_name_a_database(tmp_path: Path) -> None:
    settings = Settings().with_overrides(model_dir=tmp_path / "state", job_attempts=1, database_url="")
    store = Store.open(settings)
    store.jobs.add("batch", [JobRequest("predict", 1, 1, "v1")])
    store.jobs.claim("w", "batch", 1)
    assert store.jobs.requeue_lost(-1.0) == set()
    assert store.jobs.newest()[0].state == State.FAILED
    store.close()
    assert (tmp_path / "state" / "clapboard.db").is_file()
    Store.open(settings.with_overrides(database_url=sqlite_url(tmp_path / "other.db"))).close()
    assert (tmp_path / "other.db").is_file()


# Refusals


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://clapboard:{PASSWORD}@localhost/clapboard",
        f"postgresql+nosuchdriver://clapboard:{PASSWORD}@localhost/clapboard",
        f"postgresql+asyncpg://clapboard:{PASSWORD}@localhost/clapboard",
        f"postgresql://clapboard:{PASSWORD}@localhost:port/clapboard",
        f"postgresql://clapboard:5432/{PASSWORD}@localhost/clapboard",
        f"postgresql://clapboard:{PASSWORD}@127.0.0.1:NOBODY/clapboard",
        f"postgresql://127.0.0.1:NOBODY/clapboard?user=clapboard&password={PASSWORD}",
        f"postgresql://clapboard:{PASSWORD}@127.0.0.1:NOBODY/clapboard?nosuchoption={PASSWORD}",
        f"postgresql://clapboard:{PASSWORD}@127.0.0.1:NOBODY/clapboard?connect_timeout={PASSWORD}",
        f"clapboard.db {PASSWORD}",
        "sqlite:////dev/null/clapboard.db",
        "sqlite:////proc/clapboard.db",
        "sqlite+aiosqlite:///clapboard.db",
        "",
    ],
)
def test_an_unusable_address_is_one_sentence_without_the_password(url: str) -> None:
    with pytest.raises((SettingsError, StoreError)) as caught:
        Store(url.replace("NOBODY", str(free_port())))  # a port where nobody listens
    assert "CLAPBOARD_DATABASE_URL" in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_a_password_that_the_server_refuses_is_not_repeated(postgres_url: str) -> None:
    wrong = postgres_url.replace("postgres@", f"nobody:{PASSWORD}@")
    with pytest.raises(SettingsError) as caught:
        Store(wrong)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("content", [b"This is no database, but a letter to a friend.\n" * 50, os.urandom(8192)])
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "letter.db"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"letter\.db"):
        Store(sqlite_url(file))
    assert file.read_bytes() == content


def test_a_database_that_holds_other_tables_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE jobs (name TEXT)")
    connection.close()
    with pytest.raises(SettingsError, match="holds a table `jobs` of another program"):
        Store(sqlite_url(file))


# Kill


@pytest.mark.parametrize("rounds", [3, 17])
def test_a_killed_process_leaves_whole_transactions_and_all_that_it_confirmed(
    url: str, open_store: Callable[[], Store], rounds: int
) -> None:
    process = python(WORKING, url)
    assert process.stdout is not None
    for _ in range(rounds):
        confirmed = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.communicate()
    store = open_store()
    assert confirmed == rounds - 1
    numbers = [event.body["number"] for event in store.inbox.events()]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= rounds
    with store.database.read() as connection:
        for table in metadata.sorted_tables:
            connection.execute(select(func.count()).select_from(table)).one()
        done = set(connection.scalars(select(jobs.c.task).where(jobs.c.state == State.DONE)))
        predicted = set(connection.scalars(select(predictions.c.task)))
        num_jobs = connection.scalar(select(func.count()).select_from(jobs))
    assert done == predicted
    assert len(done) >= rounds * 3
    assert num_jobs in {len(numbers) * 4, len(numbers) * 4 - 4}
    store.jobs.requeue_lost(-1e9)  # the killed process went by another clock
    assert not any(state == State.RUNNING for _, state in store.jobs.counts())


def test_an_sqlite_file_is_sound_after_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "clapboard.db"
    process = python(WORKING, sqlite_url(file))
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    connection.close()


def test_the_address_is_shown_without_its_password_and_query(tmp_path: Path) -> None:
    store = Store(f"{sqlite_url(tmp_path / 'a.db')}?timeout=3")
    assert str(store.database) == sqlite_url(tmp_path / "a.db")
    store.close()


def test_a_store_that_is_dropped_gives_its_connections_back(url: str) -> None:
    dropped = Store(url)
    dropped.catalog.connected_projects()
    pool = dropped.database.engine.pool
    assert isinstance(pool, QueuePool)
    assert pool.checkedin() == 1
    del dropped
    gc.collect()
    assert pool.checkedin() == 0
