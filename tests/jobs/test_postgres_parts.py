"""Frames as payloads of NOTIFY: whole again after being split, and nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insula.jobs import postgres_parts
from insula.jobs.postgres_parts import PARTS_MAX, Joiner, split
from insula.jobs.signals import MESSAGE_MAX

PAYLOAD_LIMIT = 8_000


@settings(max_examples=60)
@given(
    st.lists(st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode)), max_size=8)
)
def test_frames_are_whole_again(frames: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(postgres_parts, "PIECE", 7)
        joiner = Joiner()
        heard = [
            joiner.join("c", 1, payload)
            for number, frame in enumerate(frames)
            for payload in split(number, frame)
        ]
    assert [frame for frame in heard if frame is not None] == frames
    assert joiner.unreadable == 0


@pytest.mark.parametrize("frame", [b"y" * (MESSAGE_MAX + 70), b"\xff\0" * (MESSAGE_MAX // 2 + 35)])
def test_the_longest_message_fits(frame: bytes) -> None:
    payloads = split(10**19 - 1, frame)
    assert all(payload.isascii() and len(payload) < PAYLOAD_LIMIT for payload in payloads)
    assert len(payloads) <= PARTS_MAX
    joiner = Joiner()
    heard = [joiner.join("c", 1, payload) for payload in payloads]
    assert heard[-1] == frame
    assert set(heard[:-1]) == {None}


def test_equal_frames_have_different_payloads() -> None:
    assert split(1, b"same") != split(2, b"same")


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "look",
        "1.0.1x:a",
        "1.1.2t:a",
        "1.0.1b:a",
        "1.0.999t:a",
        "1.0.1b:é",
        "9" * 30 + ".0.1t:a",
    ],
)
def test_what_anyone_may_have_told_is_counted_and_dropped(payload: str) -> None:
    joiner = Joiner()
    assert joiner.join("c", 1, payload) is None
    assert joiner.unreadable == 1
    assert joiner.join("c", 1, split(1, b"next")[0]) == b"next"


def test_parts_of_different_frames_are_not_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_parts, "PIECE", 4)
    first, second = split(1, b"one-two"), split(2, b"eins-zwei")
    joiner = Joiner()
    assert joiner.join("c", 1, first[0]) is None
    assert joiner.join("c", 2, first[1]) is None  # another session's
    assert joiner.join("c", 1, first[1]) is None
    assert joiner.join("c", 1, first[0]) is None
    assert [joiner.join("c", 1, payload) for payload in second][-1] == b"eins-zwei"
