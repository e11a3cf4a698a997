"""Frames as payloads of NOTIFY, which are text of less than 8,000 bytes: split, and joined again.

The parts of a frame are sent in one transaction, so they arrive one after another.
"""

import base64
import binascii
import re
from dataclasses import dataclass, field

PIECE = 7_900
"""Characters of a part, besides its head of 32 at most."""
PARTS_MAX = 64
_HEAD = re.compile(r"(\d{1,19})\.(\d{1,3})\.(\d{1,3})([tb]):")


def split(number: int, frame: bytes) -> list[str]:
    """Return the payloads of a frame; the number makes them differ from all others of a session:
    of equal ones in a transaction the server passes on one."""
    if frame.isascii() and b"\0" not in frame:
        kind, text = "t", frame.decode("ascii")
    else:
        kind, text = "b", base64.b64encode(frame).decode("ascii")
    pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)] or [""]
    return [f"{number}.{place}.{len(pieces)}{kind}:{piece}" for place, piece in enumerate(pieces)]


@dataclass(slots=True)
class Joiner:
    """Puts the parts together that one connection hears; anyone may have sent them."""

    unreadable: int = 0
    _of: tuple[object, ...] = ()
    _pieces: list[str] = field(default_factory=list)

    def join(self, channel: str, sender: int, payload: str) -> bytes | None:
        """Take a payload in; return the frame that it completes, if it does."""
        head = _HEAD.match(payload)
        if head is None:
            self.unreadable += 1
            return None
        place, count = int(head[2]), int(head[3])
        one = (channel, sender, head[1], count, head[4])
        if place == 0:
            self._of, self._pieces = one, []
        if one != self._of or place != len(self._pieces) or count > PARTS_MAX:
            self.unreadable += 1
            self._of, self._pieces = (), []
            return None
        self._pieces.append(payload[head.end() :])
        if len(self._pieces) < count:
            return None
        text, self._of, self._pieces = "".join(self._pieces), (), []
        return self._frame(head[4], text)

    def _frame(self, kind: str, text: str) -> bytes | None:
        try:
            data = text.encode("ascii")
            return data if kind == "t" else base64.b64decode(data, validate=True)
        except (UnicodeEncodeError, binascii.Error):
            self.unreadable += 1
            return None
