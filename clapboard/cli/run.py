"""`up`, `serve`, `worker`: the processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Annotated, Self

import typer

from clapboard.cli.output import AsJson, Model, settings_with, write_json
from clapboard.errors import NoWorkerError, SettingsError
from clapboard.jobs import QUEUES
from clapboard.logs import set_up_logging
from clapboard.settings import Settings, env_name

_RESTART_S = 1.0
_STOP_S = 20.0
_HOPELESS = (2, 3)  # exit codes for wrong settings, and for a model that can't be had

Host = Annotated[str | None, typer.Option("--host", help="Address to listen on.")]
Port = Annotated[int | None, typer.Option("--port", help="Port to listen on.", min=1, max=65535)]


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command()(up)
    app.command()(serve)
    app.command()(worker)


def up(model: Model = None, host: Host = None, port: Port = None) -> None:
    """Run backend and worker together, with no other server: the embedded way."""
    settings = settings_with(model=model, host=host, port=port)
    overrides = {env_name("model"): settings.model, env_name("port"): str(settings.port)}
    command = [sys.executable, "-m", "clapboard", "worker", "--follow", str(os.getpid())]
    supervised = _Supervised(command, overrides)
    try:
        with supervised:
            _serve(settings)
    finally:
        if supervised.gave_up_with:
            raise typer.Exit(supervised.gave_up_with)


def serve(model: Model = None, host: Host = None, port: Port = None) -> None:
    """Run the HTTP backend alone. It needs no torch; a worker must share its store and broker."""
    _serve(settings_with(model=model, host=host, port=port))


def worker(
    queues: Annotated[str, typer.Option(help="Comma-separated queues to serve.")] = ",".join(QUEUES),
    model: Model = None,
    ping: Annotated[
        bool, typer.Option("--ping", help="Only say whether a worker of this machine is alive; exit code 3 if not.")
    ] = False,
    follow: Annotated[int, typer.Option(hidden=True, help="Stop when this parent process is gone.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Run a worker: one process per GPU, the model loaded once."""
    settings = settings_with(model=model)
    names = [name.strip() for name in queues.split(",")]
    if unknown := [name for name in names if name not in QUEUES]:
        raise SettingsError(f"Queue {unknown[0]} doesn't exist: choose from {', '.join(QUEUES)}.")
    if ping:
        _ping(settings, as_json)
        return
    set_up_logging(settings.log_level, settings.secrets)
    if follow:
        threading.Thread(target=_stop_with_parent, args=[follow], daemon=True).start()
    from workers.process import run_worker

    run_worker(settings, names)


def _serve(settings: Settings) -> None:
    import uvicorn

    from backend.app import create_app

    set_up_logging(settings.log_level, settings.secrets)
    # uvicorn raises the signal that stopped it once more: it then unwinds what called us, instead of killing it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
    )


def _ping(settings: Settings, as_json: bool) -> None:
    from clapboard.store import Store

    alive = Store.open(settings).catalog.workers(settings.job_lease_s)
    here = [one.name for one in alive if one.name.endswith(f"@{socket.gethostname()}")]
    if as_json:
        write_json({"workers": here})
    if not here:
        raise NoWorkerError("No worker of this machine is alive: start one with `clapboard worker`.")


def _stop_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


class _Supervised:
    """A child process that is started again when it dies, until the context ends.

    One that ends by itself because of its settings or its model would only do so again: then this process stops too.
    """

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.gave_up_with = 0
        self._command = command
        self._environment = os.environ | environment
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._process is not None:
            self._process.terminate()
        self._thread.join(_STOP_S)
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            self._process = subprocess.Popen(self._command, env=self._environment)
            if self._stopping.is_set():
                self._process.terminate()
            code = self._process.wait()
            if code in _HOPELESS and not self._stopping.is_set():
                self.gave_up_with = code
                os.kill(os.getpid(), signal.SIGTERM)
                return
            self._stopping.wait(_RESTART_S)
