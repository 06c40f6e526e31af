"""A folder as Celery's broker, for one machine without any other server.

kombu's own filesystem transport lets a worker read a message that is still being written, and so isn't valid JSON yet
(3 of 7,139 with kombu 5.7). Here a message appears whole, and belongs to the worker that removes its file.
"""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import virtual

_LONGEST_DRAIN_S = 0.2


class Channel(virtual.Channel):  # type: ignore[misc]  # kombu has no types
    """Messages as files `<queue>/<time>-<random>.json`, oldest first."""

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        folder = self._folder(queue)
        name = f"{time.time_ns():020}-{uuid.uuid4().hex}"
        part = folder / f"{name}.part"
        try:
            part.write_text(json.dumps(message), "utf-8")
            part.rename(folder / f"{name}.json")
        except OSError:  # the disk is full: remove the incomplete file
            part.unlink(missing_ok=True)
            raise

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        for file in sorted(self._folder(queue).glob("*.json")):
            try:
                content = file.read_bytes()
                file.unlink()
                message = json.loads(content)
            except (FileNotFoundError, ValueError):  # taken by another worker, or not a message
                continue
            if isinstance(message, dict):
                return message
        raise Empty

    def _size(self, queue: str) -> int:
        return sum(1 for _ in self._folder(queue).glob("*.json"))

    def _purge(self, queue: str) -> int:
        files = list(self._folder(queue).glob("*.json"))
        for file in files:
            file.unlink(missing_ok=True)
        return len(files)

    def _folder(self, queue: str) -> Path:
        folder = Path(self.connection.client.transport_options["folder"]) / queue
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class Transport(virtual.Transport):  # type: ignore[misc]
    """The transport, as kombu loads it."""

    Channel = Channel
    global_state = virtual.BrokerState()
    implements = virtual.Transport.implements.extend(asynchronous=False, exchange_type=frozenset({"direct"}))
    default_port = 0
    driver_type = "folder"
    driver_name = "folder"

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        self.state = self.global_state

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:
        """Wait for messages, but briefly: Celery asks for 2 s, and twice more while it stops."""
        super().drain_events(connection, timeout=min(timeout or _LONGEST_DRAIN_S, _LONGEST_DRAIN_S))

    def driver_version(self) -> str:
        """The version of the «driver», which kombu asks for."""
        return "1"
