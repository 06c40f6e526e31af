"""Refuses requests under foreign host names, from web pages of other origins, without JSON or without the password.

A labeller's browser can reach this backend, and so can any web page that it shows. A page may send a form or a
`text/plain` POST to any host without asking; and if its own name server changes to our address (DNS rebinding), it may
read our answers too. So a request must use a host name of ours and must not come from a page of another origin, and its
body must have a type that pages can't send without the host's consent.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.access import OPEN_PATHS, Access
from backend.problems import problem
from clapboard.errors import ForeignCaller, NotJson, RequestError, Unauthorized
from clapboard.settings.hosts import canonical_host

_SIGN_IN = {"WWW-Authenticate": 'Basic realm="clapboard", charset="UTF-8"'}


class Admission:
    """ASGI middleware. It answers what it refuses with one sentence; `/health` is open to all."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if refusal := await self._refusal(scope["method"], headers):
            await problem(refusal)(scope, receive, send)
        elif not await self._access.admits(headers.get("authorization", "")):
            await problem(Unauthorized(_PASSWORD_NEEDED), _SIGN_IN)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _refusal(self, method: str, headers: Headers) -> RequestError | None:
        host = headers.get("host", "")
        if host and not await self._access.is_own_name(host):  # HTTP/1.0 has no Host; no browser uses it
            name = canonical_host(host.rpartition(":")[0] or host) or "of the request"
            return ForeignCaller(
                f"The host name {name} isn't the backend's: call it at CLAPBOARD_URL, or add the name to "
                "CLAPBOARD_HOST_NAMES."
            )
        if self._is_from_another_page(method, headers, host):
            return ForeignCaller("Web pages of other origins may not call the backend.")
        if method == "POST" and not _is_json(headers):
            return NotJson("The body isn't marked as JSON: send it with Content-Type: application/json.")
        return None

    def _is_from_another_page(self, method: str, headers: Headers, host: str) -> bool:
        origin = headers.get("origin")
        if origin is not None:
            return not self._access.is_own_page(origin, host)
        # Any page may link here.
        is_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        return headers.get("sec-fetch-site") in {"cross-site", "same-site"} and not is_link


_PASSWORD_NEEDED = (
    "Send the backend's user and password as basic auth: BASIC_AUTH_USER and BASIC_AUTH_PASS, or if they aren't set, "
    "those that `clapboard config --password` shows."
)


def _is_json(headers: Headers) -> bool:
    """Whether the body is declared as JSON. Without a Content-Type there must be no body."""
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not content_type:
        return headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
    kind, _, subtype = content_type.partition("/")
    return kind == "application" and (subtype == "json" or subtype.endswith("+json"))
