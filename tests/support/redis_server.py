"""A real Redis."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.support.programs import free_port, needs_program, wait_until_ready
from tests.support.run_servers import RunServers

_NUM_DATABASES = 1000


@contextmanager
def running_redis(folder: Path, program: Path | str = "") -> Iterator[str]:
    """The URL, without a database, of a Redis that runs as long as the context does and keeps its log in the folder."""
    port = free_port()
    command = [str(program or needs_program("redis-server")), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += ["--appendonly", "no", "--databases", str(_NUM_DATABASES)]
    with (folder / "redis.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        wait_until_ready(lambda: redis_answers(port), server, folder / "redis.log")
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def redis_answers(port: int) -> bool:
    """Whether a Redis listens on the port of this machine."""
    try:
        with redis.Redis(port=port) as client:
            return bool(client.ping())
    except redis.AuthenticationError:
        return True
    except redis.RedisError:  # also while it is still loading
        return False


@pytest.fixture(scope="module")
def redis_url(run_servers: RunServers) -> str:
    """The URL of a Redis database of the module's own, on a server that keeps nothing on disk."""
    needs_program("redis-server")
    server = run_servers.ask("redis")
    return f"{server['address']}/{server['number'] % _NUM_DATABASES}"
