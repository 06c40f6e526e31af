"""Starting and stopping Label Studio, with programs that stand in for it where it must fail."""

from __future__ import annotations

import os
import time
from pathlib import Path

import httpx
import pytest

from demo.label_studio_server import LabelStudioServer, LabelStudioServerError


def program(venv: Path, script: str) -> Path:
    """A virtual environment whose `label-studio` is that shell script."""
    path = venv / "bin" / "label-studio"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return venv


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_it_answers_inside_and_no_longer_after(label_studio: LabelStudioServer, tmp_path: Path) -> None:
    with LabelStudioServer(tmp_path) as server:
        headers = {"Authorization": f"Token {server.token}"}
        assert server.url != label_studio.url
        assert httpx.get(f"{server.url}/api/version/", headers=headers).json()["release"] == "1.23.2"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/api/version/")


def test_where_it_is_not_installed_the_command_that_installs_it_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(LabelStudioServerError, match="run `make install`"),
        LabelStudioServer(tmp_path, venv=tmp_path),
    ):
        pass


def test_one_that_ends_at_once_shows_its_log(tmp_path: Path) -> None:
    venv = program(tmp_path / "venv", "echo no such database; exit 3")
    with (
        pytest.raises(LabelStudioServerError, match=r"ended with status 3(.|\n)*no such database"),
        LabelStudioServer(tmp_path / "data", venv=venv),
    ):
        pass


def test_one_that_never_answers_is_ended_with_its_children(tmp_path: Path) -> None:
    venv = program(tmp_path / "venv", "echo $$; (trap '' TERM; sleep 60) & echo $!; wait")
    server = LabelStudioServer(tmp_path / "data", venv=venv, start_timeout_s=1.0)
    with pytest.raises(LabelStudioServerError, match="did not answer"), server:
        pass
    pids = [int(line) for line in server.log.read_text().split()]
    assert len(pids) == 2
    deadline_s = time.monotonic() + 5
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in pids)


def test_names_in_the_environment_that_label_studio_would_read_do_not_reach_it(tmp_path: Path) -> None:
    venv = program(tmp_path / "venv", "env; exit 1")
    server = LabelStudioServer(tmp_path / "data", venv=venv)
    with pytest.raises(LabelStudioServerError), server:
        pass
    names = {line.split("=")[0] for line in server.log.read_text().splitlines()}
    assert names >= {"PATH", "LABEL_STUDIO_USER_TOKEN", "SSRF_PROTECTION_ENABLED"}
    assert not names & (os.environ.keys() - {"PATH", "LANG", "TMPDIR", "HOME", "PWD", "SHLVL", "_"})
