"""Records and the rules that they stand on: changed at the same moment, or gone from a database."""

import asyncio
from typing import Any

import pytest
from tests.runs.platform import Platform

from insula.collections import records

from .stage import collection, rested, rule, verdicts

GIVEN = {"rules": {"a": {"text": "x"}}}


@pytest.fixture
async def stage(platform: Platform) -> tuple[str, str]:
    """A collection's path, and that of a record that stands on its rule."""
    path = await collection(platform.acme, await rule(platform.acme, "a"))
    made = await platform.acme.ok("POST", f"{path}/records", GIVEN)
    return path, f"{path}/records/{made['id']}"


async def lose(platform: Platform, path: str) -> None:
    """Let every record of a collection stand on rules that are not there."""
    await platform.acme.ok("PATCH", f"{path}/config", {"rules": [await rule(platform.acme, "b")]})
    await platform.change("UPDATE records SET config_id = 'conf_lost'")


async def test_rules_changed_beside_their_update_are_told(
    platform: Platform, stage: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    acme, (path, record) = platform.acme, stage
    changes = [{"rules": [await rule(acme, key)]} for key in ("b", "c")]
    await acme.ok("PATCH", f"{path}/config", changes[0])
    taken_in = records.taken_in

    async def overtaken(*given: Any, **named: Any) -> Any:
        await acme.ok("PATCH", f"{path}/config", changes[1])
        return await taken_in(*given, **named)

    monkeypatch.setattr(records, "taken_in", overtaken)
    answer = await acme.ask("POST", f"{record}/update-rules")
    assert (answer.status_code, answer.headers["retry-after"]) == (409, "1")
    monkeypatch.undo()
    assert verdicts(await acme.ok("GET", record)) == {"a": "DRAFT"}
    assert verdicts(await acme.ok("POST", f"{record}/update-rules")) == {"c": "DRAFT"}


async def test_many_updates_beside_changes_leave_every_record_its_rules(
    platform: Platform, stage: tuple[str, str]
) -> None:
    acme, (path, record) = platform.acme, stage
    change = {"rules": [await rule(acme, "a"), await rule(acme, "b")]}
    for _ in range(5):
        asked = [("PATCH", f"{path}/config", change), ("POST", f"{record}/update-rules", None)] * 2
        answers = await asyncio.gather(*[acme.ask(*each) for each in asked])
        assert {answer.status_code for answer in answers} <= {200, 409}
        (shown,) = await acme.ok("GET", f"{path}/records")
        assert shown["config"]["rules"]


async def test_a_record_whose_rules_are_gone_is_read_and_healed(
    platform: Platform, stage: tuple[str, str]
) -> None:
    acme, (path, record) = platform.acme, stage
    await lose(platform, path)
    for where in (record, f"{path}/records"):
        shown = await acme.ok("GET", where)
        shown = shown[0] if isinstance(shown, list) else shown
        assert (shown["config"]["id"], shown["config"]["rules"]) == ("conf_lost", [])
        assert (shown["collection_name"], verdicts(shown)) == ("Loans", {"a": "DRAFT"})
    (error,) = (await acme.ok("GET", f"{record}/status"))["errors"]
    assert (error["key"], "update-rules" in error["message"]) == ("a", True)
    assert (await acme.ask("GET", f"{record}/download")).status_code == 200
    for body in ({"run": "all"}, GIVEN):
        answer = await acme.ask("PATCH", record, body)
        assert (answer.status_code, "update-rules" in answer.json()["message"]) == (409, True)
    await acme.ok("PATCH", record, {"name": "Case"})
    healed = await acme.ok("POST", f"{record}/update-rules")
    assert (healed["name"], verdicts(healed)) == ("Case", {"b": "DRAFT"})
    await acme.ok("PATCH", record, {"rules": {"b": {"text": "x"}}, "run": "all"})
    assert verdicts(await rested(acme, record)) == {"b": "PASSED"}


async def test_what_stays_keeps_its_input_where_its_rule_is_gone(
    platform: Platform, stage: tuple[str, str]
) -> None:
    acme, (_, record) = platform.acme, stage
    await platform.change("UPDATE records SET config_id = 'conf_lost'")
    healed = await acme.ok("POST", f"{record}/update-rules")
    assert healed["rules"]["a"]["input"] == {"text": "x"}
    assert (await acme.ok("POST", f"{record}/reset"))["status"] == "DRAFT"


async def test_an_analysis_whose_rules_are_gone_ends(
    platform: Platform, stage: tuple[str, str]
) -> None:
    acme, (path, record) = platform.acme, stage
    await lose(platform, path)
    await platform.change("UPDATE record_rules SET due = true")
    await platform.change("UPDATE records SET status = 'QUEUED'")
    found = await rested(acme, record, seconds=30)  # the sweep comes to it
    assert (found["status"], verdicts(found)) == ("FAILED", {"a": "FAILED"})
    assert "update-rules" in found["rules"]["a"]["error"]
    assert (await acme.ask("DELETE", record)).status_code == 200
