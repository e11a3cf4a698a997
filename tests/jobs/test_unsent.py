"""What waits to be sent: in order, bounded, and nothing said twice that need not be."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insula.jobs import unsent
from insula.jobs.unsent import Unsent
from insula.jobs.wire import Packet


def drained(waiting: Unsent) -> list[Packet]:
    taken: list[Packet] = []
    while len(waiting):
        taken += waiting.take()
    return taken


def test_the_same_said_again_is_sent_once_unless_something_else_came_between() -> None:
    waiting = Unsent()
    said = [Packet("a", b"1"), Packet("b", b"1"), Packet("a", b"1"), Packet("a", b"2")]
    for packet in (*said, Packet("a", b"1")):
        assert waiting.put(packet)
    assert drained(waiting) == [said[0], said[1], said[3], Packet("a", b"1")]
    assert waiting.put(said[0])
    assert drained(waiting) == [said[0]]


def test_every_question_is_sent() -> None:
    waiting = Unsent()
    questions = [Packet("a", b"same", number) for number in range(3)]
    assert all(waiting.put(question) for question in questions)
    assert drained(waiting) == questions


def test_it_is_bounded_in_number_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsent, "UNSENT_MAX", 3)
    monkeypatch.setattr(unsent, "UNSENT_BYTES_MAX", 10)
    waiting = Unsent()
    assert [waiting.put(Packet("a", bytes([n]))) for n in range(4)] == [True, True, True, False]
    drained(waiting)
    assert [waiting.put(Packet("a", size * b"x")) for size in (6, 5, 4)] == [True, False, True]
    drained(waiting)
    assert waiting.put(Packet("a", 10 * b"x"))


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([b"", b"1", b"2"])), max_size=30))
def test_what_is_heard_last_of_a_channel_was_said_last(said: list[tuple[str, bytes]]) -> None:
    waiting = Unsent()
    for channel, frame in said:
        assert waiting.put(Packet(channel, frame))
    heard = drained(waiting)
    for channel in "abc":
        own = [frame for where, frame in said if where == channel]
        folded = [f for n, f in enumerate(own) if n == 0 or f != own[n - 1]]
        assert [p.frame for p in heard if p.channel == channel] == folded
