import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.journal.rows import chunk, done, wire

from insula.engine.events import Chunk, Event, StepReset, decode_events
from insula.engine.failures import StepFailure
from insula.journal import pending as module
from insula.journal.pending import Pending


def closed(events: list[Event]) -> Pending:
    pending = Pending()
    for event in events:
        pending.add(event)
    pending.close()
    return pending


def test_neighbouring_chunks_of_one_answer_are_one_event() -> None:
    pending = closed([chunk("a"), chunk("b"), chunk("c"), done("ask"), chunk("d")])
    assert wire(pending.events) == wire([chunk("abc"), done("ask"), chunk("d")])
    assert pending.encoded() == wire(pending.events)
    assert pending.size == sum(map(len, pending.parts))


def test_chunks_of_different_answers_stay_apart() -> None:
    events = [chunk("a"), chunk("b", index=1), chunk("c", index=2), chunk("d", key="other")]
    assert wire(closed(events).events) == wire(events)


def test_a_reset_stands_between_chunks() -> None:
    events = [chunk("a"), StepReset(at=1, key="ask"), chunk("b")]
    assert wire(closed(events).events) == wire(events)


def test_what_is_not_unicode_is_refused_and_nothing_else_is_harmed() -> None:
    pending = closed([chunk("a")])
    for event in (chunk("\ud800"), done("\udc00")):
        with pytest.raises(StepFailure, match="surrogate"):
            pending.add(event)
    pending.add(chunk("b"))
    pending.close()
    assert pending.encoded() == wire([chunk("a"), chunk("b")])


def test_an_event_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVENT_MAX", 1_000)
    pending = Pending()
    with pytest.raises(StepFailure, match="limited") as caught:
        pending.add(done("a", output=b'"' + b"x" * 1_000 + b'"'))
    assert caught.value.code == "limit_output"
    assert pending.events == []


def test_merging_stops_at_the_limit_of_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVENT_MAX", 1_000)
    pending = closed([chunk("x" * 100) for _ in range(40)])
    assert 1 < len(pending.events) < 40
    assert all(len(part) <= 1_000 for part in pending.parts)
    texts = [event.text for event in pending.events if isinstance(event, Chunk)]
    assert "".join(texts) == "x" * 4_000


def test_the_last_event_can_be_withdrawn() -> None:
    pending = closed([chunk("a"), done("ask")])
    pending.withdraw_last()
    assert pending.encoded() == wire([chunk("a")])
    assert pending.size == len(pending.parts[0])


async def test_those_who_wait_hear_once() -> None:
    pending = Pending()
    loop = asyncio.get_running_loop()
    well, gone, badly = loop.create_future(), loop.create_future(), loop.create_future()
    pending.waiting += [well, gone]
    gone.cancel()
    pending.resolve()
    pending.waiting.append(badly)
    pending.resolve(LookupError())
    assert well.result() is None
    assert isinstance(badly.exception(), LookupError)


pieces = st.builds(
    chunk, st.text(max_size=5), st.sampled_from(["a", "b"]), st.sampled_from([None, 0, 1])
)
events = st.lists(pieces | st.builds(done, st.sampled_from(["a", "b"])), max_size=20)


@given(events)
def test_merging_changes_no_answer(given: list[Event]) -> None:
    """Between two other events, each answer's text is the same, and no two neighbours are alike."""

    def answers(some: list[Event]) -> list[object]:
        told: list[object] = []
        for event in some:
            name = (event.key, event.index) if isinstance(event, Chunk) else event.key
            if isinstance(event, Chunk) and told and told[-1][0] == name:
                told[-1] = (name, told[-1][1] + event.text)
            elif isinstance(event, Chunk):
                told.append((name, event.text))
            else:
                told.append((None, name))
        return told

    pending = closed(given)
    assert answers(pending.events) == answers(given)
    assert len(pending.events) == len(answers(given))
    assert wire(decode_events(pending.encoded())) == wire(pending.events)
