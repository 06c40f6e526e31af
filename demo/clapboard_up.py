"""`clapboard up` beside a Label Studio, for the demo and the end-to-end tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from clapboard.settings import Settings, env_name
from demo.label_studio_server import LabelStudioServer, free_port

_UP_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 30.0


class ClapboardUp:
    """Context manager: backend and worker run inside it, the model loaded. The user's own settings don't get in."""

    def __init__(
        self, server: LabelStudioServer, state: Path, *, model: str = "mini", settings: Mapping[str, str] | None = None
    ) -> None:
        """`state` becomes MODEL_DIR; `settings` adds to the defaults, by the names of the environment."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("CLAPBOARD_", "LABEL_STUDIO_"))
        }
        self.environment = kept | {
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

    def __enter__(self) -> Self:
        self._process = subprocess.Popen([*_CLAPBOARD, "up"], env=self.environment)
        ends_at = time.monotonic() + _UP_TIMEOUT_S
        while self.run("worker", "--ping", check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > ends_at:
                self.__exit__(None, None, None)
                raise RuntimeError("`clapboard up` did not start: its messages stand above.")
            time.sleep(0.5)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def run(self, *arguments: str, check: bool = True, **settings: str) -> subprocess.CompletedProcess[str]:
        """A `clapboard` command under the same settings but for those given, its output kept.

        Raises `CalledProcessError`, after showing the output, where `check` is true and the command failed.
        """
        done = subprocess.run(
            [*_CLAPBOARD, *arguments], env=self.environment | settings, capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            sys.stderr.write(done.stdout + done.stderr)
            done.check_returncode()
        return done


_CLAPBOARD = [sys.executable, "-m", "clapboard"]
