"""Which addresses are public: global unicast, through every form that wraps an IPv4 address."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_RELAY_ANYCAST = ip_network("192.88.99.0/24")


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
        special = address.is_multicast or address.is_reserved or address in _RELAY_ANYCAST
        return address.is_global and not special
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    if address not in _GLOBAL_UNICAST or not address.is_global:
        return False
    inner = [address.sixtofour] if address.sixtofour is not None else []
    return all(is_public(each) for each in (*inner, *(address.teredo or ())))
