"""What must be true of a stream by itself, as one client has heard it through its connections."""

from collections.abc import Iterator
from typing import Any

from tests.chaos.history import Heard, Listening


def broken(stream: Listening) -> Iterator[str]:
    """Say what is wrong: numbers from 1 on without a gap, each step begun before it speaks and
    silent after its end, what it said whole, the end as it is read."""
    events = stream.events
    numbers = [event.number for event in events]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"the numbers are {numbers}"
    if not stream.ended:
        yield "it never came to its end"
        return
    names = [event.name for event in events]
    if names[0] != "run" or names[-1] != "run" or names.count("run") != 2:
        yield f"the events are {names}"
    if events[0].data.get("status") != "RUNNING":
        yield f"it began with {events[0].data}"
    if stream.read is not None and events[-1].data != stream.read:
        yield "the final event is not the run as it is read"
    yield from _steps(events)


def _steps(events: list[Heard]) -> Iterator[str]:
    told: dict[str, Any] = {}
    said: dict[str, str] = {}
    for event in events:
        if event.name == "chunk":
            key = event.data["key"]
            if told.get(key, {}).get("status") != "RUNNING":
                yield f"{key} speaks before it has begun, or after its end"
            if "output" in event.data:  # else it tells of calls
                said[key] = said.get(key, "") + event.data["output"]["message"]
        elif event.name == "step":
            key = event.data["key"]
            yield from _unlike(event.data, said.pop(key, None))
            told[key] = event.data
    if events[-1].name == "run" and told != events[-1].data.get("output"):
        yield "the last events of the steps are not its output"


def _unlike(step: dict[str, Any], said: str | None) -> Iterator[str]:
    """Compare a step's end with what it said since it began, for the last time, to speak."""
    if step["status"] == "COMPLETED" and said is not None and step["output"]["message"] != said:
        yield f"{step['key']} said {said!r}, and ended with {step['output']['message']!r}"
