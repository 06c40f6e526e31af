"""Programs that tests start, and ports for them to listen on."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.waiting import wait_for

REPOSITORY = Path(__file__).parents[2]

_EXECUTABLES = {
    "redis-server": ("redis-server",),
    "postgresql": ("postgres",),
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
}


def needs_program(name: str) -> Path:
    """The path of `redis-server`, `postgresql` (its `postgres`) or `chromium`.

    Where it is missing, the test is skipped; in CI (the environment names CI), it fails instead.
    """
    folders = [None, *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)]
    for executable, folder in itertools.product(_EXECUTABLES[name], folders):
        if path := shutil.which(executable, path=folder):
            return Path(path)
    missing = f"{name} is not installed: apt-get install {name}"
    if os.environ.get("CI"):
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


def free_port() -> int:
    """A TCP port of the loopback address that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(is_ready: Callable[[], bool], server: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the server is ready; fails if it ends first."""

    def is_up() -> bool:
        assert server.poll() is None, f"{server.args!r} ended with {server.returncode}:\n{log.read_text()[-5000:]}"
        return is_ready()

    wait_for(is_up, f"{server.args!r} doesn't answer")
