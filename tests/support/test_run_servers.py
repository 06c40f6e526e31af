"""Servers that a run's processes share end with the last of them, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import REPOSITORY, needs_program
from tests.support.redis_server import redis_answers
from tests.support.run_servers import RunServers
from tests.support.waiting import wait_for

WAITING = """
import signal, sys
from pathlib import Path
from tests.support.run_servers import RunServers
servers = RunServers(Path(sys.argv[1]))
print(servers.ask("redis")["address"], flush=True)
signal.pause()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    needs_program("redis-server")
    return tmp_path


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def test_processes_of_a_run_share_a_server_that_stops_after_the_last(folder: Path) -> None:
    first, second = RunServers(folder), RunServers(folder)
    answers = [servers.ask("redis") for servers in (first, second)]
    assert len({answer["address"] for answer in answers}) == 1
    assert len({answer["number"] for answer in answers}) == 2
    port = _port(answers[0]["address"])
    first.close()
    assert redis_answers(port)
    second.close()
    assert not redis_answers(port)

    later = RunServers(folder)  # as when pytest's processes don't overlap
    assert redis_answers(_port(later.ask("redis")["address"]))
    later.close()


def test_a_run_that_is_killed_leaves_no_server(folder: Path) -> None:
    command = [sys.executable, "-c", WAITING, str(folder)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        port = _port(run.stdout.readline().strip())
        assert redis_answers(port)
        run.send_signal(signal.SIGKILL)
    wait_for(lambda: not redis_answers(port), "the server goes on")
