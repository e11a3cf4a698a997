"""Where a request comes from; forwarded headers count only from trusted proxies."""

from collections.abc import Sequence
from ipaddress import ip_address

from starlette.types import Scope

from insula.settings import Network


def client_address(scope: Scope, trusted: Sequence[Network]) -> str:
    """Return the address of the client: of the connection, or what trusted proxies say it is.

    ``X-Forwarded-For`` is read from its end, as far as the addresses are trusted proxies.
    """
    client = scope.get("client")
    address = str(client[0]) if client and client[0] else "local"  # no address: a socket file
    if not trusted or not _trusted(address, trusted):
        return address
    forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
    for piece in reversed(forwarded.decode("latin-1").split(",")[-20:]):
        hop = piece.strip()
        if not _is_address(hop):
            break
        address = hop
        if not _trusted(hop, trusted):
            break
    return address


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _trusted(address: str, trusted: Sequence[Network]) -> bool:
    return _is_address(address) and any(ip_address(address) in network for network in trusted)
