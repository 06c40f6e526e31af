"""A real Label Studio on loopback, for the demo and the end-to-end tests.

Label Studio's own dependencies clash with ours, so it lives in a virtual environment of its own, which
`make install` makes from `constraints-label-studio.txt`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Self

import httpx

VENV = Path(__file__).parent.parent / ".venv-label-studio"
DATABASE = "label_studio.sqlite3"


class LabelStudioServerError(RuntimeError):
    """Label Studio could not be started; the message ends with the tail of its log."""


class LabelStudioServer:
    """Context manager: Label Studio runs inside it, answers at `url` and accepts `token`.

    `start` and `wait_until_ready` do the same in two parts, for those who have something else to start meanwhile.
    Raises `LabelStudioServerError` if it is not installed or does not answer within `start_timeout_s`.
    """

    email = "demo@clapboard.example"
    password = "clapboard-demo"
    token = "c1a9b0a2dc1a9b0a2dc1a9b0a2dc1a9b0a2dc1a9"

    def __init__(
        self,
        data_dir: Path,
        *,
        venv: Path = VENV,
        port: int = 0,
        start_timeout_s: float = 240.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`data_dir` keeps projects and uploads; `port` 0 takes a free one; `environment` adds to the defaults."""
        self.data_dir = data_dir.absolute()
        self.port = port or free_port()
        self.log = self.data_dir / "label-studio.log"
        self._venv = venv.absolute()
        self._start_timeout_s = start_timeout_s
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._is_new = False

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://localhost:{self.port}"

    def start(self) -> None:
        """Start the server, without waiting for it. Raises `LabelStudioServerError` where it is not installed."""
        if not is_installed(self._venv):
            raise LabelStudioServerError(f"Label Studio is not installed in {self._venv}: run `make install`.")
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._is_new = not (self.data_dir / DATABASE).exists()
        if self._is_new and self._template.exists():
            shutil.copyfile(self._template, self.data_dir / DATABASE)
        command = [self._venv / "bin" / "label-studio", "start", "--no-browser", "--internal-host", "127.0.0.1"]
        with self.log.open("ab") as log:
            self._process = _spawn([*map(str, command), "--port", str(self.port)], self._full_environment(), log)

    def wait_until_ready(self) -> None:
        """Wait until the server answers. Raises `LabelStudioServerError` if it doesn't."""
        deadline_s = time.monotonic() + self._start_timeout_s
        while not self._answers():
            assert self._process is not None
            status = self._process.poll()
            if status is not None:
                raise LabelStudioServerError(f"Label Studio ended with status {status}.\n{self._log_tail()}")
            if time.monotonic() > deadline_s:
                raise LabelStudioServerError(
                    f"Label Studio did not answer at {self.url} in {self._start_timeout_s:g} s.\n{self._log_tail()}"
                )
            time.sleep(0.2)
        if self._is_new and not self._template.exists():
            self._save_template()

    def stop(self) -> None:
        """End the server and all its children; nothing happens where none runs."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

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

    @property
    def _template(self) -> Path:
        """The database of an empty server. Copying it saves Label Studio's migrations, which take long."""
        return self._venv / f"empty-{self.token[:8]}.sqlite3"

    def _full_environment(self) -> dict[str, str]:
        # Nothing else is inherited: Label Studio reads bare names such as HOST, PORT, USERNAME and DEBUG.
        inherited = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        return {
            **inherited,
            "HOME": str(self.data_dir),
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.data_dir),
            "LABEL_STUDIO_USERNAME": self.email,
            "LABEL_STUDIO_PASSWORD": self.password,
            "LABEL_STUDIO_USER_TOKEN": self.token,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "ML_BLOCK_LOCAL_IP": "false",
            "SSRF_PROTECTION_ENABLED": "false",
            "COLLECT_ANALYTICS": "false",
            "SENTRY_DSN": "",
            "LATEST_VERSION_CHECK": "false",
            **self._environment,
        }

    def _answers(self) -> bool:
        # A request with the token: `/health` would also be answered by another server that holds the port.
        headers = {"Authorization": f"Token {self.token}"}
        try:
            response = httpx.get(f"{self.url}/api/current-user/whoami", headers=headers, timeout=10, trust_env=False)
        except httpx.HTTPError:
            return False
        return response.status_code == 200

    def _save_template(self) -> None:
        unfinished = self._template.with_suffix(f".{os.getpid()}")
        with (
            contextlib.closing(sqlite3.connect(self.data_dir / DATABASE)) as source,
            contextlib.closing(sqlite3.connect(unfinished)) as copy,
        ):
            source.backup(copy)
        unfinished.replace(self._template)

    def _log_tail(self, num_lines: int = 30) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(["Its log ends with:", *lines[-num_lines:]])


def is_installed(venv: Path = VENV) -> bool:
    """Whether the virtual environment of Label Studio is complete."""
    return (venv / "bin" / "label-studio").exists()


def free_port() -> int:
    """A TCP port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _spawn(command: list[str], environment: dict[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a process group of its own, which `stop` ends as a whole
    )


if __name__ == "__main__":  # as `make install` does, with Label Studio's Python: the first start saves the template
    with tempfile.TemporaryDirectory() as folder, LabelStudioServer(Path(folder)):
        pass
