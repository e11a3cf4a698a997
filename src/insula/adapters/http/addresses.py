"""Which addresses are public: global unicast, through every form that wraps an IPv4 address."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")

# What IANA's registries of special-purpose addresses say is not globally reachable, and multicast
# (https://www.iana.org/assignments/iana-ipv4-special-registry, .../iana-ipv6-special-registry).
# Not asked of ``ipaddress``, whose idea of it differs from one Python to the next. The few anycast
# addresses inside the blocks for protocols serve no HTTP: the blocks stand whole.
_SPECIAL_IPV4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_SPECIAL_IPV6 = tuple(IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "3fff::/20"))
"""Inside global unicast; Teredo is of the first."""


def parse_address(text: str) -> Address | None:
    """Read an IP literal, with or without a zone; ``None`` for a name."""
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None


def unwrapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv4-mapped IPv6 address stands for, else the address."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_public(address: Address) -> bool:
    """Say whether an address is global unicast, and so is every IPv4 address inside it."""
    address = unwrapped(address)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_IPV4)
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    if address not in _GLOBAL_UNICAST or any(address in network for network in _SPECIAL_IPV6):
        return False
    return address.sixtofour is None or is_public(address.sixtofour)
