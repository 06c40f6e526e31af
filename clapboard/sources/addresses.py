"""Which network addresses task audio may be fetched from.

A task's URL is written by whoever can create tasks, and is fetched from inside the operator's network: only
addresses of the public Internet are open to it, unless the operator allows more.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence

from clapboard.errors import SettingsError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# The translators' well-known prefix (RFC 6052): the last 32 bits are the IPv4 address that is really reached.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Special networks that `ipaddress` takes for public ones, depending on Python's patch level.
_MORE_RESERVED = (
    ipaddress.ip_network("168.63.129.16/32"),  # each Azure machine's own metadata and key service
    ipaddress.ip_network("192.0.0.0/24"),  # IETF assignments; Oracle's metadata service
    ipaddress.ip_network("192.88.99.0/24"),  # the former 6to4 relays
    ipaddress.ip_network("64:ff9b:1::/48"),  # an operator's own IPv4 translation
)
_LEGACY_IPV4 = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}")
_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")


class AddressRule:
    """Says of an address whether it may be connected to."""

    def __init__(self, *, allow_private: bool, allowed_hosts: Sequence[str]) -> None:
        """`allowed_hosts` are host names, addresses or networks.

        Raises `SettingsError` for an entry that is none of these.
        """
        self._allow_private = allow_private
        self._networks: list[IPNetwork] = []
        self._hosts: set[str] = set()
        for entry in allowed_hosts:
            self._allow(entry)

    def _allow(self, entry: str) -> None:
        try:
            self._networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
        except ValueError:
            host = canonical_host(entry)
            if host is None:
                raise SettingsError(
                    f"CLAPBOARD_ALLOWED_HOSTS: «{entry}» is no host name, address or network; give each without"
                    " scheme, port or path, such as minio.internal or 10.0.0.0/8."
                ) from None
            self._hosts.add(host)

    def refusal(self, host: str, address: str) -> str | None:
        """What forbids connecting to `address`, which `host` resolved to, such as «a loopback address».

        None where nothing does.
        """
        reached = reached_address(ipaddress.ip_address(address))
        if self._allow_private or canonical_host(host) in self._hosts:
            return None
        if any(candidate in network for candidate in (reached, _unscoped(address)) for network in self._networks):
            return None
        return _forbidden_kind(reached)


def canonical_host(host: str) -> str | None:
    """The host in one spelling: lower case, IDNA, no final dot, IP addresses in their usual notation.

    None for what can be no host. Decimal, octal and hexadecimal IPv4 spellings (`2130706433`, `0x7f.1`) become
    the address that the resolver would read in them.
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
    is_name = len(host) <= 253 and _HOST_NAME.fullmatch(host) and not host.rpartition(".")[2].isdigit()
    return host if is_name else None


def is_literal(host: str) -> bool:
    """Whether the host is an IP address, without a zone of this machine (`%eth0`), rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def reached_address(address: IPAddress) -> IPAddress:
    """The address that a packet ends up at: the IPv4 address inside a mapped, 6to4 or NAT64 one, else itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    embedded = address.ipv4_mapped or address.sixtofour
    if embedded is None and address in _NAT64:
        embedded = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return embedded or address


def system_addresses(host: str, port: int) -> list[str]:
    """The addresses that the system's resolver gives for the host. Raises `OSError` where it gives none."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def _unscoped(address: str) -> IPAddress:
    return ipaddress.ip_address(address.partition("%")[0])


def _forbidden_kind(address: IPAddress) -> str | None:
    """What the address is, for a sentence, where it isn't one of the public Internet."""
    kinds = (
        (any(address in network for network in _MORE_RESERVED), "a reserved address"),
        (address.is_unspecified, "an unspecified address"),
        (address.is_loopback, "a loopback address"),
        (address.is_link_local, "a link-local address"),
        (address.is_multicast, "a multicast address"),
        (address.is_private, "a private address"),
        (isinstance(address, ipaddress.IPv6Address) and address.is_site_local, "a private address"),
        (address.is_reserved or not address.is_global, "a reserved address"),
    )
    return next((kind for applies, kind in kinds if applies), None)
