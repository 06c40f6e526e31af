"""Basic auth for every path but `/health`, which Label Studio asks with or without credentials."""

from __future__ import annotations

import base64
import binascii
import hmac

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

OPEN_PATHS = frozenset({"/health"})


class BasicAuth:
    """ASGI middleware that asks for one user and password; without a user it lets everybody in."""

    def __init__(self, app: ASGIApp, user: str, password: str) -> None:
        self._app = app
        self._expected = f"{user}:{password}".encode() if user else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._admits(scope):
            await self._app(scope, receive, send)
            return
        refusal = JSONResponse(
            {"error": "unauthorized", "detail": "Give BASIC_AUTH_USER and BASIC_AUTH_PASS as basic auth."},
            401,
            {"WWW-Authenticate": 'Basic realm="clapboard"'},
        )
        await refusal(scope, receive, send)

    def _admits(self, scope: Scope) -> bool:
        if self._expected is None:
            return True
        header = dict(scope["headers"]).get(b"authorization", b"")
        kind, _, credentials = header.partition(b" ")
        try:
            given = base64.b64decode(credentials, validate=True)
        except binascii.Error:
            return False
        return kind.lower() == b"basic" and hmac.compare_digest(given, self._expected)
