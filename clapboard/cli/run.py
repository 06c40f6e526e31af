"""`up`, `serve` and `worker`: the commands that run until they are stopped."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from clapboard.cli.fast_imports import fast_imports
from clapboard.cli.output import Model, errors_console, settings_with, write_json
from clapboard.cli.supervised import Supervised
from clapboard.errors import NoWorkerError, SettingsError
from clapboard.queue.names import QUEUES

if TYPE_CHECKING:
    from clapboard.settings import Settings
    from clapboard.store import Store

_PING_S = 0.3

Host = Annotated[str | None, typer.Option("--host", help="Address to listen on.")]
LogAsJson = Annotated[bool, typer.Option("--json", help="Log JSON even on a terminal.")]
Port = Annotated[int | None, typer.Option("--port", help="Port to listen on.", min=1, max=65535)]


def add_commands(app: typer.Typer) -> None:
    """Register this module's commands."""
    app.command()(up)
    app.command()(serve)
    app.command()(worker)


def up(model: Model = None, host: Host = None, port: Port = None, as_json: LogAsJson = False) -> None:
    """Run the backend and a worker together, with no other server."""
    from clapboard.settings import env_name

    settings = settings_with(model=model, host=host, port=port)
    listener = _listen(settings)
    overrides = {"model": settings.model, "host": settings.host, "port": str(settings.port)}
    command = [sys.executable, "-m", "clapboard", "worker", "--follow", str(os.getpid())]
    supervised = Supervised(
        [*command, "--json"] if as_json else command, {env_name(field): value for field, value in overrides.items()}
    )
    try:
        with listener, supervised:
            _serve(settings, listener, as_json, lambda: supervised.pid)
    finally:
        if supervised.gave_up_with:
            raise typer.Exit(supervised.gave_up_with)


def serve(model: Model = None, host: Host = None, port: Port = None, as_json: LogAsJson = False) -> None:
    """Run the HTTP backend only. It needs no torch, but a worker on the same store and broker."""
    settings = settings_with(model=model, host=host, port=port)
    with _listen(settings) as listener:
        _serve(settings, listener, as_json)


def worker(
    queues: Annotated[str, typer.Option(help="Queues to serve, comma-separated.")] = ",".join(QUEUES),
    model: Model = None,
    ping: Annotated[
        bool, typer.Option("--ping", help="Only check whether a worker of this machine is alive; exit code 3 if not.")
    ] = False,
    wait: Annotated[float, typer.Option(help="With --ping: seconds to wait for one.", min=0, show_default=False)] = 0.0,
    follow: Annotated[int, typer.Option(hidden=True, help="Stop when this parent process is gone.")] = 0,
    as_json: LogAsJson = False,
) -> None:
    """Run a worker, which computes embeddings and predictions. Start one per GPU."""
    from clapboard.logs import set_up_logging

    settings = settings_with(model=model)
    names = [name.strip() for name in queues.split(",")]
    if unknown := [name for name in names if name not in QUEUES]:
        raise SettingsError(f"Queue {unknown[0]} doesn't exist: choose from {', '.join(QUEUES)}.")
    if ping:
        _ping(settings, wait, as_json)
        return
    if wait:
        raise SettingsError(
            "--wait only goes with --ping, which checks whether a worker is alive: add it, or leave both out."
        )
    set_up_logging(settings.log_level, settings.secrets, as_json=as_json)
    sys.__stdout__ = None  # type: ignore[misc]  # Celery writes there when it stops, bypassing logging
    if follow:
        threading.Thread(target=_stop_with_parent, args=[follow], daemon=True).start()
    with fast_imports():
        from workers.process import run_worker

    run_worker(settings, names)


def _listen(settings: Settings) -> socket.socket:
    """The backend's socket, opened before anything else is started. Raises `SettingsError` if that fails."""
    try:
        family, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        unresolved = isinstance(error, socket.gaierror)
        reason = "no such host" if unresolved else os.strerror(error.errno or 0).lower()
        raise SettingsError(
            f"Port {settings.port} of {settings.host} can't be listened on ({reason}): choose another with --port or "
            "--host."
        ) from None


def _serve(
    settings: Settings, listener: socket.socket, as_json: bool, worker_pid: Callable[[], int | None] | None = None
) -> None:
    with fast_imports():
        import uvicorn

        from backend.app import create_app
        from backend.connections import ACCEPTED_AT_ONCE, BoundedConnection, ConnectionBounds, shutdown_s
        from clapboard.cli.welcome import Welcome
        from clapboard.logs import set_up_logging

    is_json = set_up_logging(settings.log_level, settings.secrets, as_json=as_json)
    # uvicorn raises the signal that stopped it again: exit in order then, instead of being killed.
    signal.signal(signal.SIGTERM, _exit)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        http=partial(BoundedConnection, bounds=ConnectionBounds.of(settings)),  # type: ignore[arg-type]
        backlog=ACCEPTED_AT_ONCE,
        timeout_graceful_shutdown=round(shutdown_s(settings)),
        log_config=None,
        access_log=False,
        server_header=False,
    )

    is_stopped = threading.Event()

    class Server(uvicorn.Server):
        async def serve(self, sockets: list[socket.socket] | None = None) -> None:
            signal.signal(signal.SIGTERM, _exit)
            if is_stopped.is_set():
                sys.exit(0)
            await super().serve(sockets)

    with Welcome(settings, as_json=is_json, worker_pid=worker_pid):
        # Who stops it as soon as the address is told waits for asyncio's loop, which can't end in order half made.
        signal.signal(signal.SIGTERM, lambda *_: is_stopped.set())
        Server(config).run(sockets=[listener])


def _exit(*_: object) -> None:
    sys.exit(0)


def _ping(settings: Settings, wait_s: float, as_json: bool) -> None:
    from clapboard.store import Store

    store = Store.open(settings)
    gives_up_at = time.monotonic() + wait_s
    with errors_console().status("waiting for a worker"):
        while not (here := _workers_here(store, settings.job_lease_s)) and time.monotonic() < gives_up_at:
            time.sleep(_PING_S)
    store.close()
    if as_json:
        write_json({"workers": here})
        raise typer.Exit(0 if here else NoWorkerError.exit_code)
    if not here:
        raise NoWorkerError("No worker of this machine is alive: start one with `clapboard worker`.")


def _workers_here(store: Store, lease_s: float) -> list[str]:
    """The names of this machine's live workers."""
    return [
        worker.name for worker in store.catalog.workers(lease_s) if worker.name.endswith(f"@{socket.gethostname()}")
    ]


def _stop_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
