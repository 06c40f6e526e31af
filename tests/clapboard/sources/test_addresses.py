from __future__ import annotations

import pytest

from clapboard.errors import SettingsError
from clapboard.settings.hosts import canonical_host
from clapboard.sources.addresses import AddressRule, system_addresses

STRICT = AddressRule(allow_private=False, allowed_hosts=())


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.8.8.8", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("fd00:ec2::254", "private"),
        ("fec0::1", "private"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("192.168.1.1", "private"),
        ("192.0.0.192", "reserved"),
        ("100.100.100.200", "reserved"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("240.0.0.1", "private"),
        ("255.255.255.255", "private"),
        ("168.63.129.16", "reserved"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:a9fe:a9fe", "link-local"),
        ("64:ff9b::127.0.0.1", "loopback"),
        ("64:ff9b::10.0.0.1", "private"),
        ("2002:7f00:0001::1", "loopback"),
        ("2002:a9fe:a9fe::", "link-local"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "private"),
        ("64:ff9b:1::1", "reserved"),
        ("::127.0.0.1", "reserved"),
    ],
)
def test_addresses_inside_the_network_are_refused(address: str, kind: str) -> None:
    assert (STRICT.refusal("audio.example.com", address) or "").endswith(f"{kind} address")


@pytest.mark.parametrize(
    "address",
    ["93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"],
)
def test_public_addresses_are_allowed(address: str) -> None:
    assert STRICT.refusal("audio.example.com", address) is None


def test_the_operator_can_allow_all_private_addresses() -> None:
    rule = AddressRule(allow_private=True, allowed_hosts=())
    assert rule.refusal("x.example", "127.0.0.1") is None
    assert rule.refusal("x.example", "fd00:ec2::254") is None


@pytest.mark.parametrize("entry", ["127.0.0.1", "127.0.0.0/8", "files.example", "FILES.example.", "::ffff:127.0.0.1"])
def test_an_allowed_host_address_or_network_may_be_private(entry: str) -> None:
    rule = AddressRule(allow_private=False, allowed_hosts=(entry,))
    address = "::ffff:127.0.0.1" if ":" in entry else "127.0.0.1"
    assert rule.refusal("files.example", address) is None


def test_an_allowed_host_does_not_open_others() -> None:
    rule = AddressRule(allow_private=False, allowed_hosts=("files.example", "10.0.0.0/8", "bücher.example"))
    assert rule.refusal("files.example.org", "127.0.0.1") == "a loopback address"
    assert rule.refusal("x.example", "192.168.0.1") == "a private address"
    assert rule.refusal("x.example", "::ffff:10.0.0.1") is None
    assert rule.refusal("xn--bcher-kva.example", "192.168.0.1") is None


@pytest.mark.parametrize("entry", ["http://files.example", "files.example:9000", "10.0.0.0/99", "*.example", "a b"])
def test_an_allowed_host_that_is_none_is_a_settings_error(entry: str) -> None:
    with pytest.raises(SettingsError, match="CLAPBOARD_ALLOWED_HOSTS"):
        AddressRule(allow_private=False, allowed_hosts=(entry,))


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("LocalHost.", "localhost"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("[::1]", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("a_b.example", "a_b.example"),
    ],
)
def test_each_host_has_one_canonical_spelling(spelling: str, canonical: str) -> None:
    assert canonical_host(spelling) == canonical


@pytest.mark.parametrize(
    "nonsense", ["", ".", "a..b", "%31.example", "1.2.3.4.5", "0x100000000", "a" * 300, "x/y", "-a"]
)
def test_what_is_no_host_has_no_canonical_spelling(nonsense: str) -> None:
    assert canonical_host(nonsense) is None


def test_the_system_resolves_localhost_to_loopback() -> None:
    assert set(system_addresses("localhost", 80)) <= {"127.0.0.1", "::1"}
