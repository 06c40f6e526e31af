"""Installing, with a Python and a uv that write down what they are asked for."""

from __future__ import annotations

import fcntl
import io
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.install import REPOSITORY, Installation
from scripts.steps import Steps

PYTHON = """#!/bin/sh
echo "python $*" >> {log}
case "$*" in
  "-m venv "*) mkdir -p "$3/bin"; ln -s {python} "$3/bin/python";;
  *"pip install"*) ln -sf {uv} "$(dirname "$0")/uv";;
  *"pip config"*) echo "global.index-url='https://index/simple'";;
esac
[ ! -e {fails}/python ] || ! grep -q -F -f {fails}/python <<END
$*
END
"""
UV = """#!/bin/sh
echo "uv $* (from $UV_DEFAULT_INDEX)" >> {log}
case "$1" in
  venv) for folder; do :; done; mkdir -p "$folder/bin"; ln -s {python} "$folder/bin/python";;
esac
[ ! -e {fails}/uv ] || ! grep -q -F -f {fails}/uv <<END
$*
END
"""


class Checkout:
    """A checkout without anything installed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        for name in ("pyproject.toml", "constraints.txt", "demo/constraints-label-studio.txt", "scripts/install.py"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("1")
        self._tools = folder / "tools"
        self._tools.mkdir()
        names = {name: self._tools / name for name in ("log", "python", "uv", "fails")}
        for name, script in (("python", PYTHON), ("uv", UV)):
            names[name].write_text(script.format(**names))
            names[name].chmod(0o755)
        names["fails"].mkdir()
        monkeypatch.setattr(sys, "executable", str(names["python"]))

    def install(self, level: str) -> tuple[list[str], list[str]]:
        """Install the level: the commands that were run, and the messages of what failed."""
        log = self._tools / "log"
        log.write_text("")
        failures = Installation(self.folder, level, Steps(io.StringIO())).run()
        return log.read_text().splitlines(), failures

    def let_fail(self, program: str, words: str) -> None:
        """Let the program fail where its arguments contain those words."""
        (self._tools / "fails" / program).write_text(words)

    def mend(self) -> None:
        """Let every program succeed."""
        for path in (self._tools / "fails").iterdir():
            path.unlink()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    return Checkout(tmp_path, monkeypatch)


def uv_installs(commands: list[str]) -> list[str]:
    """What uv was asked to install, each with the index it was given."""
    return sorted(command.partition("constraint ")[2] for command in commands if command.startswith("uv pip install"))


def test_both_environments_are_installed_with_the_pins_and_pip_s_index(checkout: Checkout) -> None:
    commands, failures = checkout.install("dev")
    assert failures == []
    assert commands[0] == f"python -m venv {checkout.folder}/.venv"
    assert commands[1] == "python -m pip install --quiet --constraint constraints.txt uv"
    assert uv_installs(commands) == [
        "constraints.txt --editable .[dev] (from https://index/simple)",
        "demo/constraints-label-studio.txt label-studio (from https://index/simple)",
    ]
    assert "python -m demo.label_studio_server" in commands


def test_what_is_installed_is_left_alone_until_what_defines_it_changes(checkout: Checkout) -> None:
    checkout.install("dev")
    assert checkout.install("dev") == ([], [])
    assert checkout.install("demo") == ([], [])  # which dev holds
    (checkout.folder / "constraints.txt").write_text("2")
    commands, _ = checkout.install("demo")
    assert [command for command in uv_installs(commands) if "editable" in command] == [
        "constraints.txt --editable .[dev] (from https://index/simple)"
    ]
    assert not any("label-studio " in command for command in uv_installs(commands))
    assert not any("venv" in command for command in commands if command.startswith("python -m venv"))


def test_a_higher_level_adds_to_a_lower_one(checkout: Checkout) -> None:
    checkout.install("demo")
    commands, _ = checkout.install("dev")
    assert "constraints.txt --editable .[dev] (from https://index/simple)" in uv_installs(commands)
    assert not any("constraints-label-studio" in command for command in commands)


def test_what_failed_is_told_in_a_sentence_and_the_rest_is_not_done_again(checkout: Checkout) -> None:
    checkout.let_fail("uv", "editable")
    _, failures = checkout.install("dev")
    assert len(failures) == 1
    assert failures[0].splitlines()[-1] == f"uv can't install Clapboard's packages in {checkout.folder}/.venv."
    checkout.mend()
    commands, failures = checkout.install("dev")
    assert failures == []
    assert not any("constraints-label-studio" in command for command in commands)
    assert checkout.install("dev") == ([], [])


def test_without_a_network_the_sentence_names_pip_and_nothing_else_is_tried(checkout: Checkout) -> None:
    checkout.let_fail("python", "pip install")
    commands, failures = checkout.install("demo")
    assert failures[0].endswith("pip can't install uv: look at the network and at `pip config list`.")
    assert not any(command.startswith("uv") for command in commands)


def test_an_environment_that_was_left_unfinished_is_made_anew(checkout: Checkout) -> None:
    checkout.let_fail("uv", "editable")
    checkout.install("demo")
    torn = checkout.folder / ".venv" / "lib" / "torn"
    torn.mkdir(parents=True)
    checkout.mend()
    commands, _ = checkout.install("demo")
    assert not torn.exists()
    assert commands[0] == f"python -m venv {checkout.folder}/.venv"
    assert checkout.install("demo") == ([], [])


def test_an_environment_whose_python_is_gone_is_made_anew(checkout: Checkout) -> None:
    checkout.install("demo")
    python = checkout.folder / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to(checkout.folder / "gone")
    (checkout.folder / "pyproject.toml").write_text("2")
    commands, failures = checkout.install("demo")
    assert failures == []
    assert commands[0] == f"python -m venv {checkout.folder}/.venv"


def test_an_unknown_level_is_refused() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "scripts.install", "all"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (1, "usage: python3 -m scripts.install demo|dev|bench\n")


def test_a_second_installation_waits_for_the_first(tmp_path: Path) -> None:
    for name in ("__init__", "install", "environment", "pip_settings", "steps"):
        text = (REPOSITORY / "scripts" / f"{name}.py").read_text() if name != "__init__" else ""
        (tmp_path / "scripts").mkdir(exist_ok=True)
        (tmp_path / "scripts" / f"{name}.py").write_text(text)
    with (tmp_path / "scripts" / "install.py").open() as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        command = [sys.executable, "-u", "-m", "scripts.install", "demo"]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as second:
            assert second.stdout is not None
            assert b"Another installation is under way here: waiting for it" in second.stdout.readline()
            second.kill()
