from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.runs.platform import ADMIN, Platform, open_platform

from insula.adapters.models.rehearsal import RehearsalServer, Scene, rehearsal
from insula.connections.opening import Connections
from insula.web.auth import NotFound

DATABASES = ("sqlite", "postgres")
KEY = "planted-key-1"


@pytest.fixture
async def provider() -> AsyncIterator[RehearsalServer]:
    async with rehearsal() as served:
        yield served


@pytest.fixture
async def platform(tmp_path: Path, database_url: str | None) -> AsyncIterator[Platform]:
    given = {"egress_allow": "127.0.0.1", "database_url": database_url}
    async with open_platform(tmp_path, **given) as opened:
        yield opened


def own(url: str, **more: Any) -> dict[str, Any]:
    return {
        "name": "Mine",
        "type": "OPENAI_COMPATIBLE",
        "provider": "My LLM",
        "base_url": url,
        "credentials": {"api_key": KEY},
        **more,
    }


def asks(provider: str = "my-llm", name: str = "ask", **more: Any) -> dict[str, Any]:
    settings = {"provider": provider, "model": "m-1", "messages": "Hello", **more}
    return {"type": "model", "key": name, "provider": settings, "destinations": []}


async def test_a_connection_is_made_read_changed_and_removed(platform: Platform) -> None:
    acme = platform.acme
    made = await acme.ok("POST", "/connections", own("https://llm.test/v1/", settings={"team": 7}))
    assert made["id"].startswith("con_")
    assert made["provider"] == "my_llm"
    assert made["base_url"] == "https://llm.test/v1"
    assert (made["settings"], made["credentials"]) == ({"team": 7}, ["api_key"])
    path = f"/connections/{made['id']}"
    assert await acme.ok("GET", path) == made
    changed = await acme.ok("PATCH", path, {"name": "Ours", "credentials": {"api_key": KEY + "2"}})
    assert changed["name"] == "Ours"
    assert changed["base_url"] == made["base_url"]
    assert await acme.ok("GET", "/connections") == [changed]
    assert await acme.ok("DELETE", path) is None
    assert (await acme.ask("GET", path)).status_code == 404
    assert await acme.ok("GET", "/connections") == []


async def test_credentials_are_never_shown_nor_stored_in_clear(platform: Platform) -> None:
    acme = platform.acme
    answers = [
        await acme.ask("POST", "/connections", own("https://llm.test/v1")),
        await acme.ask("POST", "/connections", own("not a url")),
        await acme.ask("POST", "/connections", own("https://u:planted@llm.test/v1")),
        await acme.ask("GET", "/connections"),
    ]
    assert [answer.status_code for answer in answers] == [200, 400, 400, 200]
    assert not any("planted" in answer.text for answer in answers)
    assert b"planted" not in repr(await platform.rows("SELECT * FROM connections")).encode()


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"name": "x", "type": "OPENAI"}, "credentials.api_key"),
        (
            {"name": "x", "type": "OPENAI", "credentials": {"api_key": "short"}},
            "credentials.api_key",
        ),
        ({"name": "x", "type": "AZURE_AI", "credentials": {"api_key": KEY}}, "base_url"),
        ({"name": "x", "type": "OPENAI_COMPATIBLE", "base_url": "http://a/v1"}, "provider"),
        ({"name": "x", "type": "SLACK", "base_url": "http://a/v1"}, "base_url"),
        ({"name": "x", "type": "NONE"}, "type"),
        ({"name": "", "type": "SLACK"}, "name"),
        ({"name": "x", "type": "SLACK", "settings": {"a": "x" * 17_000}}, "settings"),
        (own("https://a.test", provider="auto"), "provider"),
    ],
)
async def test_what_cannot_work_is_refused(
    platform: Platform, body: dict[str, Any], path: str
) -> None:
    refused = await platform.acme.ask("POST", "/connections", body)
    assert refused.status_code == 400
    assert ".".join(refused.json()["errors"][0]["path"]) == path


async def test_stored_credentials_go_to_no_other_address(
    platform: Platform, provider: RehearsalServer
) -> None:
    acme = platform.acme
    made = await acme.ok("POST", "/connections", own("https://llm.test/v1"))
    path = f"/connections/{made['id']}"
    for body in ({"base_url": provider.url}, {"base_url": provider.url, "credentials": None}):
        refused = await acme.ask("PATCH", path, body)
        assert refused.status_code == 400
        (error,) = refused.json()["errors"]
        assert (error["path"], error["code"]) == (["credentials"], "missing")
    assert await acme.ok("GET", path) == made
    await acme.ok("PATCH", path, {"base_url": "https://llm.test/v1/", "name": "Same"})
    await acme.ok("PATCH", path, {"base_url": provider.url, "credentials": {"api_key": KEY}})
    await acme.ok("PATCH", path, {"base_url": "https://llm.test/v1", "credentials": {}})
    # Where nothing is stored, the address is free.
    assert (await acme.ok("PATCH", path, {"base_url": provider.url}))["base_url"] == provider.url
    # A known address is one too, and so is the way back to it.
    body = {"name": "x", "type": "OPENAI", "credentials": {"api_key": KEY}}
    known = await acme.ok("POST", "/connections", body)
    to_known = {"base_url": known["base_url"]}
    path = f"/connections/{known['id']}"
    assert (await acme.ask("PATCH", path, {"base_url": provider.url})).status_code == 400
    await acme.ok("PATCH", path, to_known)
    away = {"base_url": provider.url, "credentials": {"api_key": KEY}}
    await acme.ok("PATCH", path, away)
    for back in (to_known, {"base_url": None}):
        assert (await acme.ask("PATCH", path, back)).status_code == 400
    assert provider.heads == []


async def test_what_is_anothers_does_not_exist(platform: Platform) -> None:
    made = await platform.acme.ok("POST", "/connections", own("https://llm.test/v1"))
    path = f"/connections/{made['id']}"
    for method, rest, body in (
        ("GET", "", None),
        ("PATCH", "", {"name": "x"}),
        ("DELETE", "", None),
        ("POST", "/test", None),
    ):
        assert (await platform.globex.ask(method, path + rest, body)).status_code == 404
    assert await platform.globex.ok("GET", "/connections") == []


async def test_an_app_has_so_many_connections_and_they_go_with_it(platform: Platform) -> None:
    acme = platform.acme
    for number in range(200):
        await acme.ok("POST", "/connections", {"name": f"{number}", "type": "SLACK"})
    body = {"name": "more", "type": "SLACK"}
    assert (await acme.ask("POST", "/connections", body)).status_code == 409
    answer = await acme.ask("GET", "/connections?take=50&page=2")
    assert [one["name"] for one in answer.json()][:2] == ["149", "148"]
    following = answer.headers["pagination-next"]
    third = await acme.ok("GET", f"/connections?take=50&next={following}")
    assert third[0]["name"] == "99"
    headers = {"authorization": f"Bearer {ADMIN}"}
    assert (await acme.client.delete(f"/apps/{acme.id}", headers=headers)).status_code == 200
    assert await platform.rows("SELECT * FROM connections") == []


async def test_a_model_step_uses_a_connection_by_its_providers_name(
    platform: Platform, provider: RehearsalServer
) -> None:
    acme = platform.acme
    made = await acme.ok("POST", "/connections", own(provider.url))
    provider.scenes = [Scene(pieces=("The key is ", KEY[:5], KEY[5:], "!"))]
    run = await acme.run(await acme.make(asks()))
    assert run["result"] == {
        "provider": "my_llm",
        "model": "m-1",
        "message": "The key is •••!",
        "connection_id": made["id"],
        "connection_type": "OPENAI_COMPATIBLE",
    }
    assert f"authorization: bearer {KEY}" in provider.heads[0].lower()


async def test_it_is_used_by_its_id_and_by_auto(
    platform: Platform, provider: RehearsalServer
) -> None:
    acme = platform.acme
    await acme.ok("POST", "/connections", own(provider.url, provider="other"))
    second = await acme.ok("POST", "/connections", own(provider.url))
    by_id = asks("whatever", connection_id="{{variables.CONNECTION}}")
    await acme.ok("POST", "/variables", {"key": "CONNECTION", "value": second["id"]})
    run = await acme.run(await acme.make(by_id))
    assert run["result"]["connection_id"] == second["id"]
    run = await acme.run(await acme.make(asks("auto")))
    assert run["result"]["provider"] == "other"
    headers = {"authorization": f"Bearer {ADMIN}"}
    settings = {"settings": {"model_default": "my-llm/m-2"}}
    changed = await acme.client.patch(f"/apps/{acme.id}", json=settings, headers=headers)
    assert changed.status_code == 200
    await acme.ok("PATCH", f"/connections/{second['id']}", {"name": "changed"})
    run = await acme.run(await acme.make(asks("auto")))
    assert (run["result"]["provider"], run["result"]["model"]) == ("my_llm", "m-2")


async def test_a_connection_that_is_not_there_fails_the_step(platform: Platform) -> None:
    for step in (asks(connection_id="con_1"), asks("my-llm")):
        run = await platform.acme.run(await platform.acme.make(step))
        assert run["status"] == "FAILED"
    other = await platform.acme.ok("POST", "/connections", {"name": "x", "type": "SLACK"})
    run = await platform.acme.run(await platform.acme.make(asks(connection_id=other["id"])))
    assert "no connection" in run["error"]


async def test_callers_use_the_owners_connection_and_do_not_see_it(
    platform: Platform, provider: RehearsalServer
) -> None:
    made = await platform.acme.ok("POST", "/connections", own(provider.url))
    await platform.globex.ok(
        "POST", "/connections", own("http://127.0.0.1:1/v1", credentials={"api_key": "x" * 8})
    )
    workflow_id = await platform.acme.publish(asks())
    run = await platform.globex.discover(workflow_id)
    assert run["status"] == "COMPLETED"
    assert made["id"] not in str(run)
    assert "connection" not in str(run["result"])
    assert KEY in provider.heads[0]


async def test_callers_are_not_told_how_the_owners_connection_failed(
    platform: Platform, provider: RehearsalServer
) -> None:
    acme = platform.acme
    made = await acme.ok("POST", "/connections", own(provider.url))
    workflow_id = await acme.publish(asks())
    provider.scenes = [Scene(status=401, error={"error": {"message": "Wrong key sk-ab...wxyz."}})]
    refused = await platform.globex.discover(workflow_id)
    away = "http://127.0.0.1:1/v1"
    await acme.ok(
        "PATCH", f"/connections/{made['id']}", {"base_url": away, "credentials": {"api_key": KEY}}
    )
    unreachable = await platform.globex.discover(workflow_id)
    for run in (refused, unreachable):
        assert (run["status"], "its app is told why" in run["error"]) == ("FAILED", True)
        assert not any(word in str(run) for word in ("wxyz", "127.0.0.1", provider.url))
    # Its owner is.
    assert "127.0.0.1" in (await acme.run(workflow_id))["error"]


async def test_a_refusal_that_repeats_the_key_is_masked(
    platform: Platform, provider: RehearsalServer
) -> None:
    acme = platform.acme
    await acme.ok("POST", "/connections", own(provider.url))
    provider.scenes = [Scene(status=401, error={"error": {"message": f"Wrong key {KEY}."}})]
    run = await acme.run(await acme.make(asks()))
    assert run["error"] == "my_llm answered 401: Wrong key •••."


async def test_an_address_inside_is_refused(tmp_path: Path, provider: RehearsalServer) -> None:
    async with open_platform(tmp_path) as platform:
        acme = platform.acme
        made = await acme.ok("POST", "/connections", own(provider.url))
        run = await acme.run(await acme.make(asks()))
        assert run["status"] == "FAILED"
        assert "INSULA_EGRESS_ALLOW" in run["error"]
        tested = await acme.ok("POST", f"/connections/{made['id']}/test")
        assert not tested["ok"]
    assert provider.bodies == []


async def test_testing_says_what_came_of_it(platform: Platform, provider: RehearsalServer) -> None:
    acme = platform.acme
    made = await acme.ok("POST", "/connections", own(provider.url))
    path = f"/connections/{made['id']}/test"
    provider.scenes = [
        Scene(),
        Scene(status=401, error={"error": KEY}),
        Scene(status=500, error={}),
    ]
    told = [await acme.ok("POST", path) for _ in range(3)]
    assert [(one["ok"], one["status"]) for one in told] == [(True, 200), (False, 401), (False, 500)]
    assert "refuses the key" in told[1]["message"]
    assert provider.heads[0].startswith("GET /v1/models ")
    other = await acme.ok("POST", "/connections", {"name": "x", "type": "SLACK"})
    told_other = await acme.ok("POST", f"/connections/{other['id']}/test")
    assert not told_other["ok"]


async def test_rotating_seals_connections_anew(
    platform: Platform, provider: RehearsalServer
) -> None:
    acme = platform.acme
    made = await acme.ok("POST", "/connections", own(provider.url))
    before = await platform.rows("SELECT sealed, key_id FROM connections")
    headers = {"authorization": f"Bearer {ADMIN}"}
    done = (await acme.client.post("/secrets/rotate", headers=headers)).json()
    assert done["rotated"] == 1
    after = await platform.rows("SELECT sealed, key_id FROM connections")
    assert before[0].key_id != after[0].key_id == done["key_id"]
    assert (await acme.ok("POST", f"/connections/{made['id']}/test"))["ok"]


async def test_credentials_are_opened_for_their_app_alone(platform: Platform) -> None:
    made = await platform.acme.ok("POST", "/connections", own("https://llm.test/v1"))
    from_variables = platform.services.equip.args[1]  # type: ignore[attr-defined]  # a partial
    assert isinstance(from_variables, Connections)
    opened = await from_variables.open(platform.acme.id, made["id"])
    assert opened.credentials == {"api_key": KEY}
    assert KEY not in repr(opened)
    with pytest.raises(NotFound):
        await from_variables.open(platform.globex.id, made["id"])
