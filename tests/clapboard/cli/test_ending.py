"""How commands end, as typed in a shell: outputs that close, Ctrl-C, wrong usage, and what nobody foresaw."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clapboard.cli.output import printable
from tests.support.fake_label_studio import CHOICES
from tests.support.labelled_project import add_labels
from tests.support.processes import Installation
from tests.support.waiting import wait_for


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("house"), "mini") as installation:
        installation.store.catalog.put_project(7, CHOICES, "v1")
        yield installation


def shell(house: Installation, line: str) -> subprocess.CompletedProcess[str]:
    """What bash makes of a line in which CLAPBOARD stands for the command."""
    typed = line.replace("CLAPBOARD", f"{sys.executable} -m clapboard")
    return subprocess.run(
        ["bash", "-c", typed], cwd=house.folder, env=house.environment, capture_output=True, text=True, timeout=240
    )


@pytest.mark.parametrize(
    "line", ["CLAPBOARD config | true", "CLAPBOARD config --json | true", "CLAPBOARD --help | true"]
)
def test_a_reader_that_has_seen_enough_is_no_error(house: Installation, line: str) -> None:
    done = shell(house, f"{line}; echo ${{PIPESTATUS[0]}}")
    assert done.stderr == ""
    assert done.stdout in ("0\n", "1\n")  # 0 where all was written before the reader had gone


def test_outputs_that_are_closed_or_full_give_no_traceback(house: Installation) -> None:
    assert shell(house, "CLAPBOARD config >&-").stderr == ""
    assert shell(house, "CLAPBOARD jobs --state lost 2>&-").returncode == 2
    for command in ("config", "config --json", "--help"):
        done = shell(house, f"CLAPBOARD {command} > /dev/full")
        assert done.returncode == 2
        assert done.stderr == "error: Reading or writing failed: No space left on device.\n"


def test_ctrl_c_is_one_line_and_130(house: Installation) -> None:
    add_labels(house.store, 7, {"dog": 8, "rain": 8})
    waiting = house.start("train", "--project", "7", job_lease_s=60)
    wait_for(lambda: house.store.jobs.newest(project=7), "nothing was queued")
    os.kill(waiting.pid, signal.SIGINT)
    assert waiting.wait() == 130
    assert waiting.log.strip().splitlines()[-1] == "Stopped."
    assert "Traceback" not in waiting.log


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["search"], "Missing option '--project' / '-p'. `clapboard search --help` shows how."),
        (["jobs", "--limit", "many"], "Invalid value for '--limit': "),
        (["jobs", "--limits", "3"], "No such option"),
        (["job"], "No such command 'job'"),
        (["models", "shows"], "No such command 'shows'"),
    ],
)
def test_wrong_usage_is_one_sentence_in_text_and_in_json(
    house: Installation, arguments: list[str], sentence: str
) -> None:
    done = house.run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: {sentence}")
    as_json = house.run(*arguments, "--json")
    assert (as_json.returncode, as_json.stderr) == (2, "")
    assert json.loads(as_json.stdout)["error"] == "usage"
    assert json.loads(as_json.stdout)["detail"].startswith(sentence)


def test_without_a_command_there_is_help(house: Installation) -> None:
    done = house.run()
    assert done.returncode == 2
    assert "Usage: " in done.stdout + done.stderr
    assert "error:" not in done.stderr


def test_a_state_folder_that_cant_be_used_is_named(house: Installation, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = house.run("jobs", model_dir=tmp_path / "file" / "state")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: MODEL_DIR: {tmp_path}/file/state can't be written to (File exists)")
    assert done.stderr.count("\n") == 1
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "clapboard.db").write_text("this is no database, and it never was one")
    done = house.run("jobs", model_dir=tmp_path / "damaged")
    assert done.returncode == 2
    assert "can't be opened" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dotenv_that_cant_be_read_is_named_and_a_folder_of_that_name_is_none(house: Installation) -> None:
    dotenv = house.folder / ".env"
    dotenv.mkdir()
    try:
        assert house.run("config").returncode == 0
    finally:
        dotenv.rmdir()
    dotenv.write_bytes(b"caf\xe9")
    try:
        done = house.run("config")
    finally:
        dotenv.unlink()
    assert done.returncode == 2
    assert done.stderr == "error: The file .env is not UTF-8 text: save it as UTF-8.\n"
    assert done.stderr.count("\n") == 1


def test_a_user_without_a_home_is_told_what_to_set(house: Installation) -> None:
    if os.geteuid():
        pytest.skip("only root can become a user who has no home")
    without = {name: value for name, value in house.environment.items() if name not in {"HOME", "MODEL_DIR"}}
    # They may read everything, because the checkout may lie in a folder that is closed to others.
    may_read = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    done = subprocess.run(
        ["setpriv", "--reuid", "54321", "--clear-groups", *may_read, sys.executable, "-m", "clapboard", "jobs"],
        env=without,
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: Invalid setting: MODEL_DIR: names a home folder, which this user doesn't have: set it, and HOME, to "
        "folders that it may write to.\n"
    )


def test_what_is_shown_of_a_name_stays_on_its_line() -> None:
    assert printable("two\nlines\x1b[31m.wav") == "two\\nlines\\x1b[31m.wav"
    assert printable(os.fsdecode(b"caf\xe9 \xc3\xa9.wav")) == "caf� é.wav"
