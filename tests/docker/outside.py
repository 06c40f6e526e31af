"""Runs the commands of images and services outside of containers."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading


def assert_clapboard_knows(words: list[str]) -> None:
    """Assert that the subcommand exists and has every option among the words."""
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", "clapboard", words[0], "--help"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    for option in (word for word in words if word.startswith("--")):
        assert option in run.stdout.split(), f"{words[0]} has no {option}"


def assert_tells_up_from_down(code: str, port: str) -> None:
    """Assert that a health check passes a server that answers, and fails one that answers 503 or is gone."""

    class Health(http.server.BaseHTTPRequestHandler):
        status = 200

        def do_GET(self) -> None:
            self.send_response(self.status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        check = [sys.executable, "-c", code.replace(f":{port}/", f":{server.server_port}/")]
        assert subprocess.run(check, capture_output=True, check=False).returncode == 0
        Health.status = 503
        assert subprocess.run(check, capture_output=True, check=False).returncode == 1
        server.shutdown()
    assert subprocess.run(check, capture_output=True, check=False).returncode == 1
