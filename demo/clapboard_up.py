"""`clapboard up` beside a Label Studio, for the demo and the end-to-end tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from clapboard.settings import Settings, env_name
from demo.label_studio_server import LabelStudioServer, free_port

_UP_TIMEOUT_S = 240.0
_STOP_TIMEOUT_S = 30.0


class ClapboardUp:
    """Context manager: backend and worker run inside it, the model loaded, untouched by the user's own settings."""

    def __init__(
        self, server: LabelStudioServer, state: Path, *, model: str = "mini", settings: Mapping[str, str] | None = None
    ) -> None:
        """`state` becomes MODEL_DIR; `settings` adds to the defaults, by the names of the environment."""
        ours = ("CLAPBOARD_", "LABEL_STUDIO_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.environment = inherited | {
            "CLAPBOARD_MODEL": model,
            "LABEL_STUDIO_URL": server.url,
            "LABEL_STUDIO_API_KEY": server.token,
            "LOG_LEVEL": "WARNING",
            "MODEL_DIR": str(state),
            "PORT": str(free_port()),
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address of the backend."""
        return f"http://localhost:{self.environment['PORT']}"

    @property
    def settings(self) -> Settings:
        """What backend and worker run with."""
        names = {env_name(field) for field in Settings.model_fields}
        return Settings(**{name: value for name, value in self.environment.items() if name in names})

    def start(self) -> None:
        """Start both, without waiting for them. Label Studio need not answer yet."""
        self._process = subprocess.Popen([*_CLAPBOARD, "up"], env=self.environment)

    def wait_until_ready(self) -> None:
        """Wait until the worker has loaded its model. Raises `RuntimeError` if it doesn't."""
        assert self._process is not None
        ping = [*_CLAPBOARD, "worker", "--ping", "--wait", f"{_UP_TIMEOUT_S:g}"]
        with subprocess.Popen(ping, env=self.environment) as waiting:
            while waiting.poll() is None and self._process.poll() is None:
                time.sleep(0.1)
            waiting.terminate()
        if waiting.returncode != 0:
            raise RuntimeError("`clapboard up` did not start: its messages stand above.")

    def stop(self) -> None:
        """End both; nothing happens where none runs."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, *arguments: str, check: bool = True, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a `clapboard` command with the same settings, except those given, and capture its output.

        Raises `CalledProcessError`, after showing the output, if the command fails and `check` is true.
        """
        process = subprocess.run(
            [*_CLAPBOARD, *arguments], env=self.environment | settings, capture_output=True, text=True, check=False
        )
        if check and process.returncode:
            sys.stderr.write(process.stdout + process.stderr)
            process.check_returncode()
        return process


_CLAPBOARD = [sys.executable, "-m", "clapboard"]
