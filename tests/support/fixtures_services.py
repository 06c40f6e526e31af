"""The real things that tests run against: PostgreSQL, Redis, ESC-10, and CLAP checkpoints with random weights."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import psycopg
import pytest
import redis

REPOSITORY = Path(__file__).parents[2]
START_S = 30.0

_PROGRAMS = {
    "redis-server": ("redis-server",),
    "postgresql": ("postgres",),
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
}


def needs_program(name: str) -> Path:
    """The path of `redis-server`, `postgresql` (its `postgres`) or `chromium`.

    Where it is missing, the test is skipped; in CI (the environment names CI), it fails instead.
    """
    folders = [None, *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)]
    for program, folder in itertools.product(_PROGRAMS[name], folders):
        if found := shutil.which(program, path=folder):
            return Path(found)
    missing = f"{name} is not installed: apt-get install {name}"
    if os.environ.get("CI"):
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


def free_port() -> int:
    """A TCP port of the loopback address that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_redis(program: Path | str, folder: Path) -> Iterator[str]:
    """The URL of a Redis that runs as long as the context does and keeps nothing but its log in the folder."""
    port = free_port()
    command = [str(program), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        _wait_until(lambda: _redis_answers(port), server)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def new_postgres_url() -> Iterator[Callable[[], str]]:
    """A function that returns the SQLAlchemy URL of a new, empty schema on a private PostgreSQL server."""
    program = needs_program("postgresql")
    user = "postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="clapboard-postgres-"))
    if user:
        shutil.chown(folder, user)
    try:
        data = folder / "data"
        initdb = [program.with_name("initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        subprocess.run([*initdb, "--locale=C", "--no-sync"], user=user, cwd=folder, check=True, capture_output=True)
        options = {"listen_addresses": "", "unix_socket_directories": folder, "fsync": "off", "max_connections": 200}
        command = [program, "-D", data, *(f"--{name}={value}" for name, value in options.items())]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(command, user=user, cwd=folder, stdout=log, stderr=log)
        try:
            _wait_until(lambda: _postgres_answers(folder), server)
            numbers = itertools.count(1)
            yield lambda: _create_schema(folder, f"test_{next(numbers)}")
        finally:
            server.send_signal(signal.SIGQUIT)
            server.wait()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def postgres_url(new_postgres_url: Callable[[], str]) -> str:
    """The URL of an empty PostgreSQL schema of the test's own."""
    return new_postgres_url()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a private Redis that keeps nothing on disk; shared by the session's tests."""
    with running_redis(needs_program("redis-server"), tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def esc10() -> Path:
    """The folder of ESC-10's clips, which lies beside the repository on some machines."""
    folder = REPOSITORY.parent / "shared" / "esc10"
    if not (folder / "esc10.csv").is_file():
        pytest.skip("../shared/esc10 is not there: real recordings are not tested")
    return folder


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """Torch computes in one thread: on busy cores its threads wait for each other longer than small models take."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a very small CLAP with random weights, unfused."""
    return _checkpoints().save_tiny(tmp_path_factory.mktemp("tiny_clap"), fused=False)


@pytest.fixture(scope="session")
def tiny_fused_clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a very small CLAP with random weights, fused."""
    return _checkpoints().save_tiny(tmp_path_factory.mktemp("tiny_fused_clap"), fused=True)


@pytest.fixture(scope="session")
def real_size_clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a CLAP of `laion/clap-htsat-unfused`'s size with random weights (0.6 GB, seconds to make)."""
    return _checkpoints().save_real_size(tmp_path_factory.mktemp("real_size_clap"), fused=False)


@pytest.fixture(scope="session")
def real_size_fused_clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a CLAP of `laion/clap-htsat-fused`'s size with random weights (0.6 GB, seconds to make)."""
    return _checkpoints().save_real_size(tmp_path_factory.mktemp("real_size_fused_clap"), fused=True)


def _checkpoints() -> ModuleType:
    from tests.support import clap_checkpoints  # imports torch, seconds that tests without a model shouldn't wait

    return clap_checkpoints


def _create_schema(folder: Path, name: str) -> str:
    with psycopg.connect(host=str(folder), user="postgres") as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"postgresql://postgres@/postgres?host={folder}&options=-csearch_path={name}"


def _postgres_answers(folder: Path) -> bool:
    try:
        psycopg.connect(host=str(folder), user="postgres").close()
    except psycopg.OperationalError:
        return False
    return True


def _redis_answers(port: int) -> bool:
    try:
        with redis.Redis(port=port) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


def _wait_until(ready: Callable[[], bool], server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while not ready():
        assert server.poll() is None, f"{server.args[0]} ended with {server.returncode}"
        assert time.monotonic() < deadline, f"{server.args[0]} doesn't answer after {START_S} s"
        time.sleep(0.02)
