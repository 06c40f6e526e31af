"""Who may call this backend: under which host names, and with which password."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import re
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool

from clapboard.errors import SettingsError
from clapboard.settings import Settings
from clapboard.settings.hosts import canonical_host, is_literal
from clapboard.store import Store

OPEN_PATHS = frozenset({"/health"})
"""Label Studio and load balancers ask these without a password, and under any host name."""

# No public name server has names in these domains, so a web page's own host name can't be one of them.
_PRIVATE_DOMAINS = (".localhost", ".internal")
_HOST = re.compile(r"[^/@?#\\\s]+")
_PORTS = {"http": 80, "https": 443}

Authority = tuple[str, int]
"""Host name in its canonical spelling, and port."""


class Access:
    """The rules, from memory. They are read from the store by `refresh`, and again before a caller is refused."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._store = store
        self._any_name = "*" in settings.host_names
        self._names = {_host_name(name) for name in settings.host_names if name != "*"}
        self._own_url = settings.backend_url
        self._set_password = (settings.basic_auth_user, settings.basic_auth_pass.get_secret_value())
        self.refresh()

    def refresh(self) -> None:
        """Read the password and the addresses that `clapboard connect` has given to Label Studio."""
        generated = None if self._set_password[0] else self._store.access.credentials()
        in_force = generated and generated.enforced
        password = (generated.user, generated.password) if generated and in_force else self._set_password
        self._passwords = _encoded(*password)
        authorities = (authority_of(url) for url in (self._own_url, *self._store.access.urls()))
        self._authorities = {authority for authority in authorities if authority is not None}

    @property
    def asks_for_password(self) -> bool:
        """Whether callers need a password."""
        return bool(self._passwords)

    async def admits(self, authorization: str) -> bool:
        """Whether the Authorization header holds the user and password. Always true if no password is needed."""
        credentials = _credentials(authorization)
        if not self._is_password(credentials):
            await run_in_threadpool(self.refresh)  # the password may be new
        return self._is_password(credentials)

    async def is_own_name(self, host: str) -> bool:
        """Whether the name in a Host header is one of the backend's. The port doesn't matter.

        IP addresses and names that only this network knows are admitted too: no web page can have one as its own.
        """
        authority = authority_of(f"http://{host}") if _HOST.fullmatch(host) else None
        if authority is None:
            return self._any_name
        name = authority[0]
        if self._any_name or is_literal(name) or "." not in name or name.endswith(_PRIVATE_DOMAINS):
            return True
        if not self._is_known(name):
            await run_in_threadpool(self.refresh)
        return self._is_known(name)

    def is_own_page(self, origin: str, host: str) -> bool:
        """Whether pages of this Origin are the backend's own: it served them under this Host or a connected address."""
        page = authority_of(origin)
        return page is not None and (
            page == authority_of(f"{urlsplit(origin).scheme}://{host}") or page in self._authorities
        )

    def _is_known(self, name: str) -> bool:
        return name in self._names or any(name == host for host, _ in self._authorities)

    def _is_password(self, credentials: bytes | None) -> bool:
        if not self._passwords:
            return True
        if credentials is None:
            return False
        return True in [hmac.compare_digest(credentials, password) for password in self._passwords]


def authority_of(url: str) -> Authority | None:
    """Host and port of an http(s) URL; None if it lacks one of them."""
    try:
        parts = urlsplit(url)
        name = canonical_host(parts.hostname or "")
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (name, port) if name and port else None


def _host_name(name: str) -> str:
    host = canonical_host(name)
    if host is None:
        raise SettingsError(
            f"CLAPBOARD_HOST_NAMES: «{name}» isn't a host name. Give names without scheme, port or path, such as "
            "clapboard.example.org."
        )
    return host


def _encoded(user: str, password: str) -> set[bytes]:
    """The credentials in UTF-8, and in Latin-1, which Label Studio uses; empty without a user."""
    if not user:
        return set()
    encoded = {f"{user}:{password}".encode()}
    with contextlib.suppress(UnicodeEncodeError):
        encoded.add(f"{user}:{password}".encode("latin-1"))
    return encoded


def _credentials(authorization: str) -> bytes | None:
    """«user:password» of a basic Authorization header."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        credentials = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    return credentials if scheme.lower() == "basic" else None
