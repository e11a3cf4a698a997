"""What was handed over and not yet sent: bounded in number and bytes."""

from collections import deque

from insula.jobs.wire import Packet

UNSENT_MAX = 10_000
UNSENT_BYTES_MAX = 8 * 1024 * 1024
TURN = 500
TURN_BYTES = 1024 * 1024
"""What is sent at once: so many packets, or so many bytes and the packet that exceeds them."""


class Unsent:
    """Packets in order. One like the last that was queued for its channel is not queued again."""

    def __init__(self) -> None:
        self._packets: deque[Packet] = deque()
        self._last: dict[str, bytes] = {}
        self._size = 0

    def __len__(self) -> int:
        return len(self._packets)

    def put(self, packet: Packet) -> bool:
        """Take a packet; ``False`` where there is no room for it."""
        if packet.question is None and self._last.get(packet.channel) == packet.frame:
            return True
        size = self._size + len(packet.frame)
        if len(self._packets) >= UNSENT_MAX or size > UNSENT_BYTES_MAX:
            return False
        self._packets.append(packet)
        self._last[packet.channel] = packet.frame
        self._size = size
        return True

    def take(self) -> list[Packet]:
        """Take out what is to be sent at once."""
        taken: list[Packet] = []
        size = 0
        while self._packets and len(taken) < TURN and size < TURN_BYTES:
            packet = self._packets.popleft()
            self._last.pop(packet.channel, None)
            size += len(packet.frame)
            taken.append(packet)
        self._size -= size
        return taken
