"""The demo's `clapboard up`, started as typed, beside which single commands are forks of the warm Python."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import demo.clapboard_up
from tests.support.commands import Command
from tests.support.warm_python import SETTINGS, command_environment


class ClapboardUp(demo.clapboard_up.ClapboardUp):
    """Context manager: backend and worker run inside it, the model loaded."""

    def run(self, *arguments: str, check: bool = True, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a `clapboard` command with the same settings, except those given, and capture its output."""
        chosen = {name: value for name, value in (self.environment | settings).items() if name in SETTINGS}
        done = Command(arguments, command_environment(os.environ) | chosen, Path.cwd()).run()
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done
