"""How tests start `clapboard` commands: in a fork of the warm Python, or as typed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from tests.support.waiting import WAIT_S
from tests.support.warm_python import WarmProcess, warm_address

Process = subprocess.Popen[bytes] | WarmProcess

_PYTHON = (sys.executable, "-m", "clapboard")


class Command:
    """A `clapboard` command that can be started."""

    def __init__(self, arguments: Sequence[str], env: dict[str, str], folder: Path, *, as_typed: bool = False) -> None:
        """`as_typed` starts a Python for it, as people do; otherwise only an unusual environment needs one."""
        self._arguments = arguments
        self._env = env
        self._folder = folder
        self._warm = None if as_typed else warm_address(env)

    def start(self, stdin: int, stdout: int, stderr: int) -> Process:
        """The process, in a session of its own, so that a supervised worker can be found and ended with it."""
        if self._warm:
            return WarmProcess(
                self._warm, self._arguments, cwd=self._folder, env=self._env, streams=(stdin, stdout, stderr)
            )
        command = [*_PYTHON, *self._arguments]
        streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        return subprocess.Popen(command, cwd=self._folder, env=self._env, start_new_session=True, **streams)

    def start_on(self, terminal: int) -> Process:
        """The process, which that pseudo-terminal controls."""
        if self._warm:
            streams = (terminal, terminal, terminal)
            return WarmProcess(
                self._warm, self._arguments, cwd=self._folder, env=self._env, streams=streams, has_terminal=True
            )
        return start_on_terminal([*_PYTHON, *self._arguments], self._env, self._folder, terminal)

    def run(self) -> subprocess.CompletedProcess[str]:
        """The command's end, with what it wrote."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, Path(os.devnull).open("rb") as nothing:
            process = self.start(nothing.fileno(), out.fileno(), err.fileno())
            try:
                code = process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
            return subprocess.CompletedProcess(["clapboard", *self._arguments], code, _all_of(out), _all_of(err))


def start_on_terminal(command: Sequence[str], env: dict[str, str], folder: Path, terminal: int) -> Process:
    """Any program, which that pseudo-terminal controls."""
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    return subprocess.Popen(["setsid", "--ctty", "--wait", *command], cwd=folder, env=env, **streams)


def _all_of(file: IO[bytes]) -> str:
    """What a process wrote to the file, as text."""
    file.seek(0)
    return file.read().decode()
