"""Task audio over HTTP on loopback, fast or held back, good or bad."""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import numpy as np
import soundfile

HOLD_S = 60.0


def wav(seed: int, duration_s: float = 0.5, sample_rate: int = 16_000) -> bytes:
    """A wav file of noise, another for each seed."""
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, int(duration_s * sample_rate)).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, noise, sample_rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


class AudioServer:
    """Context manager: serves `/SEED/NAME` as a wav of that seed, `/corrupt/NAME` as text, and no other path.

    With `?s=SECONDS` the wav is that long. Paths in `away` answer 500, as Label Studio does for a deleted upload.
    """

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.waiting: Counter[str] = Counter()
        self.away: set[str] = set()
        self._gates: dict[str, threading.Event] = {}

    def __enter__(self) -> Self:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(), bind_and_activate=False)
        server.daemon_threads = True
        server.request_queue_size = 128
        server.server_bind()
        server.server_activate()
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for gate in self._gates.values():
            gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def url(self, path: str) -> str:
        """The address of a path, such as `7/a.wav`."""
        return f"http://127.0.0.1:{self._server.server_port}/{path}"

    def task(self, number: int, path: str | None = None, **others: Any) -> dict[str, Any]:
        """A task as Label Studio sends it, by default with a clip of its own."""
        return {"id": number, "data": {"audio": self.url(path or f"{number}/clip.wav")}} | others

    @contextmanager
    def holding(self, *paths: str) -> Iterator[None]:
        """Requests for these paths are answered only after the block."""
        gates = {f"/{path}": threading.Event() for path in paths}
        self._gates |= gates
        try:
            yield
        finally:
            for path, gate in gates.items():
                self._gates.pop(path, None)
                gate.set()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        audio = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path, _, query = self.path.partition("?s=")
                audio.requests[path.removeprefix("/")] += 1
                if gate := audio._gates.get(path):
                    audio.waiting[path.removeprefix("/")] += 1
                    gate.wait(HOLD_S)
                kind = path.split("/")[1]
                status = 200 if kind.isdigit() or kind == "corrupt" else 404
                status = 500 if path.removeprefix("/") in audio.away else status
                body = wav(int(kind), float(query or 0.5)) if kind.isdigit() else b"this is no audio at all"
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "audio/wav")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:  # whoever asked was killed meanwhile
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Nothing: the requests are counted."""

        return Handler
