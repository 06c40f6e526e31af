"""Commands in forks of the warm Python are the commands as typed, and end with the run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import Installation
from tests.support.programs import free_port
from tests.support.waiting import wait_for
from tests.support.warm_python import WarmProcess


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Installation]:
    with Installation(tmp_path / "house", "mini") as installation:
        yield installation


@pytest.fixture
def typed(tmp_path: Path) -> Iterator[Installation]:
    with Installation(tmp_path / "typed", "mini", as_typed=True) as installation:
        yield installation


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["jobs", "--json"], 0), (["jobs", "--nonsense"], 2), (["worker", "--ping"], 3), (["config", "--json"], 0)],
)
def test_a_fork_writes_and_returns_what_the_command_as_typed_does(
    house: Installation, typed: Installation, arguments: list[str], code: int
) -> None:
    warm, cold = house.run(*arguments), typed.run(*arguments)
    assert (warm.returncode, cold.returncode) == (code, code)
    assert warm.stdout.replace(str(house.folder), "") == cold.stdout.replace(str(typed.folder), "")
    assert warm.stderr == cold.stderr


def test_commands_are_forks_unless_their_environment_could_change_an_import(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(house.start("jobs")._process, WarmProcess)
    assert isinstance(house.start("jobs", log_level="DEBUG")._process, WarmProcess)
    monkeypatch.setenv("KMP_INIT_AT_FORK", "FALSE")  # as importing torch does
    with Installation(house.folder, "mini") as elsewhere:
        assert isinstance(elsewhere.start("jobs")._process, WarmProcess)
    monkeypatch.setenv("LC_ALL", "C")
    with Installation(house.folder, "mini") as elsewhere:
        assert isinstance(elsewhere.start("jobs")._process, subprocess.Popen)


def test_a_worker_is_told_to_stop_and_killed_as_any_process(house: Installation) -> None:
    worker = house.worker()
    assert os.getpgid(worker.pid) == os.getsid(worker.pid) == worker.pid
    assert Path(f"/proc/{worker.pid}/cwd").readlink() == house.folder
    assert worker.stop() == 0
    worker = house.worker()
    worker.kill()
    assert not worker.is_alive
    assert worker.wait() == -signal.SIGKILL


def test_a_terminal_is_its_own(house: Installation) -> None:
    terminal = house.on_a_terminal("serve", port=free_port())
    terminal.wait_for("Clapboard is at ")
    terminal.press_ctrl_c()
    assert terminal.wait() == 130


def test_a_fork_is_killed_when_the_process_that_asked_for_it_ends(house: Installation) -> None:
    serve = house.serve().process
    assert isinstance(serve._process, WarmProcess)
    serve._process._connection.shutdown(socket.SHUT_WR)  # the kernel closes it when a process is killed
    wait_for(lambda: not Path(f"/proc/{serve.pid}").exists(), "the backend goes on")
