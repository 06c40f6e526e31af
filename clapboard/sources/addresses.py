"""Which network addresses task audio may be fetched from.

A task's URL is written by whoever can create tasks, and is fetched from inside the operator's network: only
addresses of the public Internet are open to it, unless the operator allows more.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from clapboard.errors import SettingsError
from clapboard.settings.hosts import IPNetwork, allowed_host, canonical_host

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# The translators' well-known prefix (RFC 6052): the last 32 bits are the IPv4 address that is really reached.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Special networks that `ipaddress` takes for public ones, depending on Python's patch level.
_MORE_RESERVED = (
    ipaddress.ip_network("168.63.129.16/32"),  # each Azure machine's own metadata and key service
    ipaddress.ip_network("192.0.0.0/24"),  # IETF assignments; Oracle's metadata service
    ipaddress.ip_network("192.88.99.0/24"),  # the former 6to4 relays
    ipaddress.ip_network("64:ff9b:1::/48"),  # an operator's own IPv4 translation
)


class AddressRule:
    """Says of an address whether it may be connected to."""

    def __init__(self, *, allow_private: bool, allowed_hosts: Sequence[str]) -> None:
        """`allowed_hosts` are host names, addresses or networks. Raises `SettingsError` for what is none of these."""
        self._allow_private = allow_private
        try:
            allowed = [allowed_host(entry) for entry in allowed_hosts]
        except ValueError as error:
            raise SettingsError(f"CLAPBOARD_ALLOWED_HOSTS: {error}.") from None
        self._networks: list[IPNetwork] = [entry for entry in allowed if not isinstance(entry, str)]
        self._hosts = {entry for entry in allowed if isinstance(entry, str)}

    def refusal(self, host: str, address: str) -> str | None:
        """What forbids connecting to `address`, which `host` resolved to, such as «a loopback address».

        None where nothing does. Raises `ValueError` where the resolver gave what is no address.
        """
        reached = reached_address(ipaddress.ip_address(address))
        if self._allow_private or canonical_host(host) in self._hosts:
            return None
        if any(candidate in network for candidate in (reached, _unscoped(address)) for network in self._networks):
            return None
        return _forbidden_kind(reached)


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
