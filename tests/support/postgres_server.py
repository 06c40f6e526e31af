"""A real PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.support.programs import needs_program, wait_until_ready
from tests.support.run_servers import RunServers


@contextmanager
def running_postgres(folder: Path) -> Iterator[str]:
    """The folder of the socket of a PostgreSQL that runs as long as the context does, with all that it has inside."""
    program = needs_program("postgresql")
    user = "postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    if user:
        shutil.chown(folder, user)
    data = folder / "data"
    initdb = [program.with_name("initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8"]
    subprocess.run([*initdb, "--locale=C", "--no-sync"], user=user, cwd=folder, check=True, capture_output=True)
    options = {
        "listen_addresses": "",
        "unix_socket_directories": folder,
        "max_connections": 200,
        "max_locks_per_transaction": 256,  # a new schema is one transaction, and tests make several at once
        "fsync": "off",
        "autovacuum": "off",
    }
    command = [program, "-D", data, *(f"--{name}={value}" for name, value in options.items())]
    with (folder / "postgres.log").open("wb") as log:
        server = subprocess.Popen(command, user=user, cwd=folder, stdout=log, stderr=log)
    try:
        wait_until_ready(lambda: _answers(folder), server, folder / "postgres.log")
        yield str(folder)
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait()


@pytest.fixture(scope="session")
def new_postgres_url(run_servers: RunServers) -> Callable[[], str]:
    """A function that returns the SQLAlchemy URL of a new, empty schema."""
    needs_program("postgresql")

    def create() -> str:
        server = run_servers.ask("postgresql")
        folder, schema = server["address"], f"test_{server['number']}"
        with psycopg.connect(host=folder, user="postgres") as connection:
            connection.execute(f"CREATE SCHEMA {schema}")
        return f"postgresql://postgres@/postgres?host={folder}&options=-csearch_path={schema}"

    return create


@pytest.fixture
def postgres_url(new_postgres_url: Callable[[], str]) -> str:
    """The URL of an empty PostgreSQL schema of the test's own."""
    return new_postgres_url()


def _answers(folder: Path) -> bool:
    try:
        psycopg.connect(host=str(folder), user="postgres").close()
    except psycopg.OperationalError:
        return False
    return True
