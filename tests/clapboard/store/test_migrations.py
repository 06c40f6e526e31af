"""Stores of every earlier schema, see `stores/schema-N.*.sql`, and what becomes of them when they are opened."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Column, Engine, MetaData, String, create_engine, inspect, text

from clapboard.errors import SettingsError, StoreError
from clapboard.feedback.entries import entries
from clapboard.queue.celery_app import PredictPayload
from clapboard.store import Store
from clapboard.store.embeddings import Recording
from clapboard.store.inbox import Event
from clapboard.store.migrations import HEAD, VERSIONS
from clapboard.store.migrations import upgrade as upgrading
from clapboard.store.predictions import StoredPrediction
from clapboard.store.schema import metadata
from scripts import new_revision
from tests.support.annotation_events import PROJECT, annotation, clip, region, said
from tests.support.waiting import WAIT_S

REPOSITORY = Path(__file__).parents[3]
STORES = Path(__file__).with_name("stores")
ENCODER = "mini-01234567"

OPENING = """
import logging, os, signal, sys
from clapboard.store import Store

class Killer(logging.Handler):
    def emit(self, record):
        print(record.getMessage(), flush=True)
        if "kill" in sys.argv and "5,000 of" in record.getMessage():
            os.kill(os.getpid(), signal.SIGKILL)

logging.basicConfig(level="INFO", handlers=[Killer()])
Store(sys.argv[1]).close()
if "again" in sys.argv:
    sys.modules.pop("alembic", None)
    Store(sys.argv[1]).close()
    print("alembic" in sys.modules)
"""


@pytest.fixture(params=[1, 2, 3, 4])
def schema(request: pytest.FixtureRequest) -> int:
    """An earlier schema."""
    return int(request.param)


# The same as a new store


def test_an_earlier_store_becomes_like_a_new_one_and_keeps_its_rows(url: str, other_url: str, schema: int) -> None:
    fill(url, schema)
    before = rows(url)
    for _ in range(2):  # the second time there is nothing to change
        Store(url).close()
        after = rows(url)
        for table, old_rows in before.items():
            assert as_they_were(old_rows, after[table]) == Counter(map(str, old_rows)), table
    Store(other_url).close()
    assert shape(url) == shape(other_url)


def test_the_revisions_lead_to_the_tables_of_a_new_store(url: str, other_url: str) -> None:
    with engine_of(url) as engine:
        upgrading.upgrade(engine)
    Store(other_url).close()
    assert shape(url) == shape(other_url), "clapboard/store/schema.py and the revisions differ, see CONTRIBUTING.md"


def test_revisions_are_numbered_without_gaps() -> None:
    numbers = sorted(int(file.name[:4]) for file in VERSIONS.glob("[0-9]*.py"))
    assert numbers == list(range(1, len(numbers) + 1)), "rename a revision's file so that it has the next number"


def test_a_new_revision_is_written_from_the_changed_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = MetaData()
    for table in metadata.sorted_tables:
        table.to_metadata(changed)
    changed.tables["tabs"].append_column(Column("hint", String, nullable=False, server_default=""))
    monkeypatch.setattr(new_revision, "metadata", changed)
    monkeypatch.setattr(new_revision, "VERSIONS", tmp_path)
    written = new_revision.new_revision("hint_at_tabs")
    assert written.name == f"{int(HEAD) + 1:04}_hint_at_tabs.py"
    operations = written.read_text().split('it does."""\n')[1].split("\n")
    assert "".join(map(str.strip, operations)).replace(",)", ")") == (
        'op.add_column("tabs", sa.Column("hint", sa.String(), server_default="", nullable=False))'
    )


def test_a_store_of_the_first_release_works(url: str) -> None:
    fill(url, 1)
    store = Store(url)
    project = store.catalog.project(7)
    assert (project.connected, project.test_share, store.versions.promoted(7)) == (True, 0.0, None)
    aa = store.embeddings.get([Recording("aa", 2, 12.5)], ENCODER, "float32")["aa"]
    assert aa.tolist() == np.array([[0.6, 0.8], [1.0, 0.0]], np.float32).tolist()
    store.embeddings.put("aa", ENCODER, "float32", 2, np.full((1, 2), 9, np.float32))
    extent = store.embeddings.extent(ENCODER, "float32")
    assert extent is not None
    assert extent.first_id < extent.last_id
    assert store.ledger.catch_up() == 1
    assert store.ledger.standing(7)[0].annotation == 3
    (job,) = store.jobs.claim("w", "batch", 5)
    assert PredictPayload.model_validate(job.payload).space_id == "ffff0000"
    assert store.finish_with_prediction(job, StoredPrediction(7, 12, "v1", "b", 0.5, []))
    store.catalog.put_class_weights("e2", "ffff0000", np.ones((1, 2), np.float32))
    store.inbox.append("ANNOTATION_CREATED", 7, {}, {"11": {}})
    assert [event.suggestions for event in store.inbox.events()] == [{}, {"11": {}}]
    store.close()


def test_the_ledgers_regions_get_the_extents_that_their_events_have(url: str) -> None:
    (file,) = VERSIONS.glob("*_note_extents.py")
    action, body = said(annotation(1, region("a", 1.0, 2.5, "bark"), clip("dog")))
    columns = "inbox_id, position, project, task, annotation, revision, annotator, outcome, control, region, labels, "
    columns += "suggested, model_version, ground_truth"
    with engine_of(url) as engine:
        upgrading.upgrade(engine, to=f"{int(file.name[:4]) - 1:04}")
        with engine.begin() as connection:
            connection.execute(
                text("INSERT INTO inbox (received_at, action, project, body) VALUES (0, :action, :project, :body)"),
                {"action": action, "project": PROJECT, "body": json.dumps(body)},
            )
            connection.execute(text("INSERT INTO ledger_events (inbox_id, reconciled) VALUES (1, false)"))
            for position, entry in enumerate(entries(Event(1, 0.0, action, PROJECT, body, {}))):
                row = f"1, {position}, {PROJECT}, {entry.task}, 1, {entry.revision}, 1, 'added', '{entry.control}', "
                row += f"'{entry.region}', '{json.dumps(entry.labels)}', '[]', '', false"
                connection.execute(text(f"INSERT INTO ledger ({columns}) VALUES ({row.replace(':', chr(92) + ':')})"))
    store = Store(url)
    store.annotations.rebuild(PROJECT)
    extents = {
        entry.region: (entry.span_s, entry.recording_s, entry.channel) for entry in store.ledger.standing(PROJECT)
    }
    assert extents == {"a": ((1.0, 2.5), 10.0, 0), "": (None, None, None)}
    store.close()


# Interrupted, at once, beside readers


def test_an_upgrade_that_was_killed_is_finished_by_one_of_the_next(url: str, tmp_path: Path) -> None:
    fill(url, 2)
    with engine_of(url) as engine, engine.begin() as connection:
        names = "sha256, encoder_version, dtype, window_index, vector"
        copies = [(f"c{number:05}",) for number in range(7_000)]
        connection.exec_driver_sql(
            f"INSERT INTO embeddings ({names}) SELECT {'?' if url.startswith('sqlite') else '%s'}, encoder_version, "
            "dtype, 0, vector FROM embeddings WHERE sha256 = 'bb'",
            copies,
        )
    killed = opening(url, "kill")
    assert killed.communicate(timeout=WAIT_S)[0].endswith("embeddings: 5,000 of 7,003 rows\n")
    assert killed.returncode == -9
    resumed = [opening(url, "again") for _ in range(2)]
    outputs = [process.communicate(timeout=WAIT_S)[0] for process in resumed]
    assert [process.returncode for process in resumed] == [0, 0], outputs
    assert sum("embeddings: 2,003 of 2,003 rows\n" in output for output in outputs) == 1  # one waits for the other
    assert all(output.endswith("False\n") for output in outputs)  # without Alembic, because it is up to date
    assert not list(tmp_path.glob("*-upgrade"))
    store = Store(url)
    assert store.embeddings.count() == 7_003
    aa = store.embeddings.get([Recording("aa", 2, 12.5)], ENCODER, "float32")["aa"]
    assert aa.tolist() == np.array([[0.6, 0.8], [1.0, 0.0]], np.float32).tolist()
    store.close()


def test_a_reader_keeps_its_view_during_an_upgrade(url: str) -> None:
    fill(url, 3)
    upgrade = threading.Thread(target=lambda: Store(url).close())
    with engine_of(url) as engine, engine.connect() as reader:
        reader.exec_driver_sql("BEGIN") if url.startswith("sqlite") else None
        assert reader.scalar(text("SELECT count(*) FROM projects")) == 2
        upgrade.start()
        upgrade.join(None if url.startswith("sqlite") else 0.3)  # PostgreSQL's table waits for the reader
        assert reader.scalar(text("SELECT count(*) FROM projects")) == 2
    upgrade.join()
    assert revision(url) == HEAD


def test_an_upgrade_doesnt_wait_for_ever_for_a_reader(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrading, "_LOCK_WAIT_S", 0.1)
    fill(postgres_url, 3)
    with engine_of(postgres_url) as engine, engine.connect() as reader:
        reader.scalar(text("SELECT count(*) FROM projects"))
        with pytest.raises(StoreError, match=r"locked by another transaction .*: try again"):
            Store(postgres_url)
    Store(postgres_url).close()


# Other releases


def test_a_newer_store_is_refused(url: str) -> None:
    Store(url).close()
    execute(url, "UPDATE clapboard_revision SET version_num = '9001'")
    with pytest.raises(SettingsError, match=rf"another release of Clapboard \(schema 9001, this one has {HEAD}\)"):
        Store(url)


def test_a_schema_that_nobody_knows_is_refused(url: str) -> None:
    fill(url, 1)
    execute(url, "UPDATE schema_versions SET version = 77")
    with pytest.raises(SettingsError, match=r"another release of Clapboard \(schema 77,"):
        Store(url)


@pytest.mark.parametrize("schema", [0, 4])
def test_a_release_before_alembic_refuses_the_store(url: str, schema: int) -> None:
    if schema:
        fill(url, schema)
    Store(url).close()
    assert [row["version"] for row in rows(url)["schema_versions"]] == [5]  # such a release knows up to 4


@pytest.fixture
def other_url(request: pytest.FixtureRequest, url: str, tmp_path: Path) -> str:
    """A second empty database of the same kind."""
    if url.startswith("sqlite"):
        return f"sqlite:///{tmp_path / 'new.db'}"
    new_postgres_url: Callable[[], str] = request.getfixturevalue("new_postgres_url")
    return new_postgres_url()


@contextmanager
def engine_of(url: str) -> Iterator[Engine]:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    yield engine
    engine.dispose()


def execute(url: str, statements: str) -> None:
    with engine_of(url) as engine, engine.begin() as connection:
        for statement in statements.split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement.replace("%", "%%"))


def fill(url: str, schema: int) -> None:
    """Write the store of this schema."""
    kind = "sqlite" if url.startswith("sqlite") else "postgresql"
    if kind == "sqlite":
        with engine_of(url) as engine, engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    execute(url, (STORES / f"schema-{schema}.{kind}.sql").read_text(encoding="utf-8"))


def rows(url: str) -> dict[str, list[dict[str, Any]]]:
    """By table, all rows, as drivers give them."""
    with engine_of(url) as engine, engine.connect() as connection:
        return {
            table: [dict(row._mapping) for row in connection.execute(text(f"SELECT * FROM {table}"))]
            for table in inspect(connection).get_table_names()
        }


def as_they_were(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Counter[str]:
    """The new rows with the columns of the old ones, under their names."""
    if not old or set(old[0]) in ({"version"}, {"name", "model", "device", "queues", "started_at", "heartbeat_at"}):
        return Counter(map(str, old))  # how schemas were counted, and workers, who announce themselves anew
    renamed = {"head_id": "space_id"}
    return Counter(str({name: row[name if name in row else renamed[name]] for name in old[0]}) for row in new)


def shape(url: str) -> dict[str, Any]:
    """Tables with their columns, keys and indexes. What a column has as default is Clapboard's affair."""
    with engine_of(url) as engine, engine.connect() as connection:
        catalog = inspect(connection)
        tables = {
            table: {
                "columns": {
                    column["name"]: (str(column["type"]), column["nullable"]) for column in catalog.get_columns(table)
                },
                "key": catalog.get_pk_constraint(table)["constrained_columns"],
                "foreign": [
                    (key["constrained_columns"], key["referred_table"], key["referred_columns"])
                    for key in catalog.get_foreign_keys(table)
                ],
            }
            for table in catalog.get_table_names()
        }
        listed = {
            "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
            "postgresql": "SELECT indexname, replace(indexdef, schemaname || '.', '') FROM pg_indexes "
            "WHERE schemaname = current_schema() AND indexname NOT LIKE '%%_pk%%'",
        }[connection.dialect.name]
        indexes = {name: " ".join(sql.split()) for name, sql in connection.exec_driver_sql(listed)}
        if connection.dialect.name == "sqlite":
            has_sequence = "SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'"
            listed = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
            tables["autoincrement"] = {"columns": set(connection.exec_driver_sql(has_sequence).scalars())}
        else:
            listed = (
                "SELECT tgname, prosrc FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid JOIN pg_proc ON "
                "pg_proc.oid = tgfoid WHERE relnamespace = current_schema()::regnamespace AND NOT tgisinternal"
            )
        triggers = dict(map(tuple, connection.exec_driver_sql(listed)))
    return {"tables": tables, "indexes": indexes, "triggers": triggers}


def revision(url: str) -> str:
    (row,) = rows(url)["clapboard_revision"]
    return str(row["version_num"])


def opening(url: str, *how: str) -> subprocess.Popen[str]:
    """A process that opens the store and prints what it logs."""
    command = [sys.executable, "-c", OPENING, url, *how]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
