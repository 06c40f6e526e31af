"""Host names and addresses in their canonical spelling."""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import urlsplit

import idna

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_LEGACY_IPV4 = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}")
_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")


def canonical_host(host: str) -> str | None:
    """The host's canonical spelling: lower case, IDNA, no final dot, IP addresses in their usual notation.

    None if it can't be a host. Decimal, octal and hexadecimal IPv4 addresses (`2130706433`, `0x7f.1`) become the
    address that the resolver takes them for.
    """
    host = host.strip().strip("[]").lower()
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            return None
    host = host.removesuffix(".")
    if is_literal(host):
        return str(ipaddress.ip_address(host))
    if _LEGACY_IPV4.fullmatch(host):
        try:
            return str(ipaddress.IPv4Address(socket.inet_aton(host)))
        except OSError:
            return None
    if host.startswith("xn--"):  # httpx can't connect to a name that doesn't decode
        try:
            idna.decode(host)
        except UnicodeError:
            return None
    is_name = len(host) <= 253 and _HOST_NAME.fullmatch(host) and not host.rpartition(".")[2].isdigit()
    return host if is_name else None


def is_literal(host: str) -> bool:
    """Whether the host is an IP address without an interface (`%eth0`), rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def allowed_host(entry: str) -> IPNetwork | str:
    """The network or canonical host name of an entry of CLAPBOARD_ALLOWED_HOSTS.

    Raises `ValueError` if it is neither.
    """
    try:
        return ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        host = canonical_host(entry)
    if host is None:
        raise ValueError(
            f"«{entry}» is not a host name, address or network: write it without scheme, port and path, such as"
            " minio.internal or 10.0.0.0/8"
        )
    return host


def require_http_address(value: str, where_credentials_go: str = "") -> None:
    """Raises `ValueError`, worded as the end of a sentence, if the value is not the http(s) address of a server."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError("is not a valid address: write http://HOST:PORT") from None
    if parts.scheme not in {"http", "https"}:
        raise ValueError("must start with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError(f"contains a user name or password, which don't belong there: {where_credentials_go}")
    if parts.query or parts.fragment or "?" in value or "#" in value:
        raise ValueError("must end with the host, the port or a path, without ? or #")
    if port == 0 or "\\" in value or " " in value or canonical_host(parts.hostname or "") is None:
        raise ValueError("has no valid host and port: write http://HOST:PORT")
