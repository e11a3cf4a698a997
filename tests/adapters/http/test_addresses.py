"""Which addresses count as public, in every disguise."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insula.adapters.http.addresses import is_public, parse_address


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.8",
        "192.0.0.9",
        "192.0.0.170",
        "192.0.0.192",
        "192.168.1.1",
        "192.88.99.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:192.0.0.192",
        "64:ff9b::127.0.0.1",
        "64:ff9b::c000:c0",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a00:1::",
        "2002:c000:c0::",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_what_is_not_public(text: str) -> None:
    address = parse_address(text)
    assert address is not None
    assert not is_public(address)


@pytest.mark.parametrize(
    "text", ["1.1.1.1", "8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2606:4700::1111"]
)
def test_what_is_public(text: str) -> None:
    assert is_public(ip_address(text))


# https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry, what
# is not globally reachable; multicast has registries of its own. To the right what borders on it.
SPECIAL = {
    "0.0.0.0/8": ("1.0.0.0",),
    "10.0.0.0/8": ("9.255.255.255", "11.0.0.0"),
    "100.64.0.0/10": ("100.63.255.255", "100.128.0.0"),
    "127.0.0.0/8": ("126.255.255.255", "128.0.0.0"),
    "169.254.0.0/16": ("169.253.255.255", "169.255.0.0"),
    "172.16.0.0/12": ("172.15.255.255", "172.32.0.0"),
    "192.0.0.0/24": ("191.255.255.255", "192.0.1.0"),
    "192.0.2.0/24": ("192.0.1.255", "192.0.3.0"),
    "192.88.99.0/24": ("192.88.98.255", "192.88.100.0"),
    "192.168.0.0/16": ("192.167.255.255", "192.169.0.0"),
    "198.18.0.0/15": ("198.17.255.255", "198.20.0.0"),
    "198.51.100.0/24": ("198.51.99.255", "198.51.101.0"),
    "203.0.113.0/24": ("203.0.112.255", "203.0.114.0"),
    "224.0.0.0/4": ("223.255.255.255",),
    "240.0.0.0/4": (),
    "::/3": ("2000::",),
    "2001::/23": ("2000:ffff::", "2001:200::"),
    "2001:db8::/32": ("2001:db7:ffff::", "2001:db9::"),
    "3fff::/20": ("3ffe:ffff::", "3fff:1000::"),
    "4000::/2": (),
    "8000::/1": (),
}


@pytest.mark.parametrize("text", SPECIAL)
def test_the_registries_of_special_addresses(text: str) -> None:
    network = ip_network(text)
    assert not is_public(network[0])
    assert not is_public(network[-1])
    for neighbour in SPECIAL[text]:
        assert is_public(ip_address(neighbour)), neighbour


@settings(max_examples=200)
@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_wrapping_an_address_never_makes_it_public(inner: IPv4Address) -> None:
    mapped = IPv6Address((0xFFFF << 32) | int(inner))
    translated = IPv6Address((0x64FF9B << 96) | int(inner))
    tunnelled = IPv6Address((0x2002 << 112) | (int(inner) << 80))
    assert is_public(mapped) == is_public(inner)
    assert is_public(translated) == is_public(inner)
    assert is_public(inner) or not is_public(tunnelled)


@pytest.mark.parametrize("text", ["localhost", "127.1", "0x7f.0.0.1", "", "1.2.3.4.5"])
def test_names_are_no_addresses(text: str) -> None:
    assert parse_address(text) is None
