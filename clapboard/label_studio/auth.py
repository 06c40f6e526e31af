"""Label Studio's token on httpx requests, legacy or personal, only for the configured origin.

A legacy token is sent as it is. A personal access token is a JWT that must first be exchanged for an access token,
which is valid for five minutes.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
from collections.abc import Callable, Generator

import httpx

from clapboard.errors import LabelStudioError, LabelStudioUnreachable

ACCESS_LIFETIME_S = 300.0
_RENEW_BEFORE_END_S = 60.0

Origin = tuple[str, str, int]


class LabelStudioAuth(httpx.Auth):
    """Adds the token to requests whose scheme, host and port are those of Label Studio; no others are touched.

    For sync clients. One object may serve many threads and clients. A request raises `LabelStudioError` when
    Label Studio refuses the personal access token, and `LabelStudioUnreachable` when it can't tell for now.
    """

    def __init__(self, url: str, token: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._base = httpx.URL(url.rstrip("/"))
        self._origin = origin(self._base)
        self._token = token.strip()
        self._personal = is_personal_access_token(self._token)
        self._clock = clock
        self._lock = threading.Lock()
        self._access = ""
        self._renew_at = 0.0

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """httpx's hook: yields the request, and before it those that exchange the token."""
        if not self._token or origin(request.url) != self._origin:
            yield request
            return
        if not self._personal:
            request.headers["Authorization"] = f"Token {self._token}"
            yield request
            return
        access = self._fresh_access() or self._accept((yield self._exchange(request)))
        request.headers["Authorization"] = f"Bearer {access}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            access = self._accept((yield self._exchange(request)))
            request.headers["Authorization"] = f"Bearer {access}"
            yield request

    def _fresh_access(self) -> str:
        with self._lock:
            return self._access if self._clock() < self._renew_at else ""

    def _exchange(self, request: httpx.Request) -> httpx.Request:
        url = self._base.copy_with(path=f"{self._base.path.rstrip('/')}/api/token/refresh/")
        return httpx.Request("POST", url, json={"refresh": self._token}, extensions=request.extensions)

    def _accept(self, response: httpx.Response) -> str:
        """The access token in the exchange's response, which is kept for later requests."""
        received_at = self._clock()
        status = response.status_code
        if status == httpx.codes.TOO_MANY_REQUESTS or status >= 500:
            raise LabelStudioUnreachable(
                f"Label Studio can't exchange the personal access token right now (HTTP {status})."
            )
        try:
            response.read()
            access = response.json()["access"] if response.is_success else ""
        except (ValueError, KeyError, TypeError):
            access = ""
        if not isinstance(access, str) or not access:
            raise LabelStudioError(
                f"Label Studio at {self._base.host} doesn't accept the personal access token (HTTP {status}): it is"
                " revoked, expired or from another server; set LABEL_STUDIO_API_KEY to a new one."
            )
        with self._lock:
            self._access = access
            self._renew_at = received_at + ACCESS_LIFETIME_S - _RENEW_BEFORE_END_S
        return access


def is_personal_access_token(token: str) -> bool:
    """Whether the token is a JWT, as personal access tokens are; legacy tokens are 40 hexadecimal digits."""
    parts = token.strip().split(".")
    if len(parts) != 3:
        return False
    try:
        header = json.loads(base64.urlsafe_b64decode(parts[0] + "=" * (-len(parts[0]) % 4)))
    except (ValueError, binascii.Error):
        return False
    return isinstance(header, dict) and "alg" in header


def origin(url: httpx.URL) -> Origin:
    """Scheme, host (ASCII) and port of the URL, the scheme's default port if none is given."""
    return url.scheme, url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)
