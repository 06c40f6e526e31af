"""A store that is damaged, locked, full or away: one sentence and its exit code from every command that needs it."""

from __future__ import annotations

import json
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.jobs import JobRequest
from tests.clapboard.cli.conftest import Main
from tests.support.programs import REPOSITORY, free_port

SECRET = "what-somebody-said"
COMMANDS = [
    ["jobs"],
    ["ledger", "--project", "1"],
    ["models", "list", "--project", "1"],
    ["models", "rollback", "--project", "1"],
    ["train", "--project", "1"],
    ["sync", "--project", "1"],
    ["connect", "--project", "1"],
    ["doctor"],
    ["prelabel", "--project", "1"],
    ["search", "--project", "1", "rain"],
    ["worker", "--ping"],
    ["serve"],
]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A store's file with something in it."""
    store = Store.open(Settings(MODEL_DIR=tmp_path / "state"))
    store.jobs.add("batch", [JobRequest("predict", 1, task, "v1", payload={"uri": SECRET}) for task in range(300)])
    store.inbox.append("ANNOTATION_CREATED", 1, {"said": SECRET})
    with store.database.write() as connection:
        connection.exec_driver_sql("UPDATE jobs SET state = 'done'")
    store.close()
    return tmp_path / "state" / "clapboard.db"


@pytest.fixture
def run(typed: Main) -> Main:
    """`clapboard …` with a token."""
    return partial(typed, label_studio_api_key="c0ffee")


def damage(database: Path, *, table: str = "") -> None:
    """Overwrite the table's pages, or all pages but the first, which says that it is a database."""
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        (count,) = connection.execute("PRAGMA page_count").fetchone()
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", [table]).fetchone() or [None]
    connection.close()
    with database.open("r+b") as file:
        for page in [root] if root else range(2, count + 1):
            file.seek((page - 1) * size)
            file.write(b"\xa5" * size)


def is_one_sentence(text: str) -> bool:
    lines = [line for line in text.splitlines() if line.strip()]
    return (
        len(lines) == 1 and lines[0].startswith("error: The store ") and lines[0].endswith(".") and SECRET not in text
    )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "-".join(command[:2]))
def test_a_damaged_store_is_one_sentence_for_every_command(run: Main, database: Path, command: list[str]) -> None:
    damage(database)
    code, said = run(*command)
    assert is_one_sentence(said), said
    assert "is damaged: stop Clapboard and restore a back-up" in said
    assert code == 3


@pytest.mark.parametrize("command", [["jobs"], ["prelabel", "--project", "1"]], ids=["jobs", "prelabel"])
def test_damage_in_one_table_is_found_where_it_is_read(run: Main, database: Path, command: list[str]) -> None:
    for table in ("jobs", "projects", "encoders", "versions"):
        damage(database, table=table)
    code, said = run(*command)
    if command == ["jobs"]:  # the other one doesn't get that far: nobody answers at LABEL_STUDIO_URL
        assert is_one_sentence(said), said
    assert code == 3
    assert "Traceback" not in said
    assert "SELECT" not in said


def test_programs_are_told_the_same_as_json(run: Main, database: Path) -> None:
    damage(database)
    code, said = run("jobs", "--json")
    assert code == 3
    assert json.loads(said)["error"] == "store_damaged"


def test_a_store_that_somebody_locks_is_said_so(run: Main, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAPBOARD_DATABASE_URL", f"sqlite:///{database}?timeout=0.1")
    locker = sqlite3.connect(database, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    assert run("jobs")[0] == 0  # it only reads
    code, said = run("ledger", "--project", "1")
    locker.close()
    assert is_one_sentence(said), said
    assert "is locked by another program" in said
    assert code == 3


def test_a_full_disk_is_said_so(database: Path) -> None:
    with clapboard_with_small_files(database, "jobs") as done:
        assert is_one_sentence(done.stdout + done.stderr), done.stderr
        assert "its disk is full or failing" in done.stderr
        assert done.returncode == 3


@contextmanager
def clapboard_with_small_files(database: Path, *arguments: str) -> Iterator[subprocess.CompletedProcess[str]]:
    """`clapboard …` that can write no more than a few bytes to any file, as on a disk that is full."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    yield subprocess.run(
        [sys.executable, "-B", "-m", "clapboard", *arguments],
        cwd=database.parent,
        env={"PATH": "", "PYTHONPATH": str(REPOSITORY), "MODEL_DIR": str(database.parent)},
        capture_output=True,
        text=True,
        preexec_fn=limit,
        timeout=240,
    )


def test_a_server_that_isn_t_there_is_3_and_an_address_that_is_none_is_2(
    run: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAPBOARD_DATABASE_URL", f"postgresql://ann:{SECRET}@127.0.0.1:{free_port()}/clapboard")
    code, said = run("jobs")
    assert is_one_sentence(said), said
    assert "can't be reached: check that it runs, and CLAPBOARD_DATABASE_URL" in said
    assert code == 3
    monkeypatch.setenv("CLAPBOARD_DATABASE_URL", "sqlite:////proc/clapboard.db")
    code, said = run("jobs")
    assert "CLAPBOARD_DATABASE_URL" in said
    assert "Traceback" not in said
    assert code == 2


def test_a_model_dir_that_can_t_be_written_to_is_2(run: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    for place in (tmp_path / "file", tmp_path / "file" / "state", Path("/proc/clapboard"), Path("/sys/kernel")):
        monkeypatch.setenv("MODEL_DIR", str(place))
        code, said = run("jobs")
        assert code == 2, said
        assert said.startswith(f"error: MODEL_DIR: {place} can't be written to ("), said
        assert said.count("\n") == 1
