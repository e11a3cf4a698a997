"""What runs see of variables, on the whole product with a fake sandbox and fake HTTP."""

from pathlib import Path
from typing import Any

import pytest
from tests.runs.platform import Platform, code, model, open_platform

from insula.adapters.guarded import GuardedHttp
from insula.adapters.keyring import FILE
from insula.engine.failures import StepFailure
from insula.engine.ports import HttpRequest
from insula.engine.secrets import HANDLE
from insula.settings import SettingsError

DATABASES = ("sqlite", "postgres")
SECRET = "planted-value"


def http(key: str, url: str, *to: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "http_request",
        "key": key,
        "method": "POST",
        "url": url,
        "destinations": list(to),
        **more,
    }


async def planted(platform: Platform) -> None:
    body = [
        {"key": "PLAIN", "value": "eu"},
        {"key": "TOKEN", "value": SECRET, "secret": True},
    ]
    await platform.acme.ok("PATCH", "/variables", body)


def sent(platform: Platform, place: int = -1) -> HttpRequest:
    """A request as it would have left."""
    request = platform.http.requests[place]
    assert request.secrets is not None
    return request.secrets.reveal(request).request


@pytest.mark.parametrize("name", ["variables", "env", "secrets"])
async def test_code_sees_values_and_handles(platform: Platform, name: str) -> None:
    await planted(platform)
    workflow_id = await platform.acme.make(
        code("plain", f"{name}.PLAIN", "secret"), code("secret", f"{name}.TOKEN")
    )
    run = await platform.acme.run(workflow_id)
    assert run["output"]["plain"]["output"] == "eu"
    assert HANDLE.fullmatch(run["result"])
    again = await platform.acme.run(workflow_id)
    assert again["result"] != run["result"]


async def test_templates_carry_a_secret_to_where_it_leaves(platform: Platform) -> None:
    await planted(platform)
    workflow_id = await platform.acme.make(
        http(
            "send",
            "https://a.test/{{env.PLAIN}}/{{secrets.TOKEN}}",
            headers={"Authorization": "Bearer {{variables.TOKEN}}"},
            body='{"token":"{{variables.TOKEN}}"}',
        )
    )
    run = await platform.acme.run(workflow_id)
    assert run["status"] == "COMPLETED"
    assert SECRET not in repr(platform.http.requests)
    request = sent(platform)
    assert request.url == f"https://a.test/eu/{SECRET}"
    assert ("Authorization", f"Bearer {SECRET}") in request.headers
    assert request.body == b'{"token":"%s"}' % SECRET.encode()


async def test_a_handle_of_one_run_is_a_text_in_another(platform: Platform) -> None:
    await planted(platform)
    tells = await platform.acme.publish(code("tell", "variables.TOKEN"))
    sends = await platform.acme.publish(
        {
            "type": "input",
            "key": "start",
            "input": {"h": {"type": "string"}},
            "destinations": ["go"],
        },
        http("go", "https://a.test/{{input.h}}"),
    )
    handle = (await platform.globex.discover(tells))["result"]
    assert HANDLE.fullmatch(handle)
    for run in (platform.globex.discover, platform.acme.run):
        await run(sends, input={"h": handle})
        assert sent(platform).url == f"https://a.test/{handle}"


async def test_a_child_knows_its_parents_handles(platform: Platform) -> None:
    await planted(platform)
    child = await platform.acme.make(
        {
            "type": "input",
            "key": "start",
            "input": {"h": {"type": "string"}},
            "destinations": ["go"],
        },
        http("go", "https://a.test/{{input.h}}"),
    )
    parent = await platform.acme.make(
        {
            "type": "workflow",
            "key": "down",
            "workflow_id": child,
            "input": {"h": "{{variables.TOKEN}}"},
            "destinations": [],
        }
    )
    await platform.acme.run(parent)
    assert sent(platform).url == f"https://a.test/{SECRET}"


async def test_a_replay_knows_the_handles_that_it_keeps_and_the_values_of_today(
    platform: Platform,
) -> None:
    await planted(platform)
    acme = platform.acme
    workflow_id = await acme.make(
        code("tell", "variables.TOKEN", "place"),
        code("place", "variables.PLAIN", "go"),
        http("go", "https://a.test/{{tell.output}}"),
    )
    run = await acme.run(workflow_id)
    await acme.ok("PATCH", "/variables/TOKEN", {"value": "changed-value"})
    await acme.ok("PATCH", "/variables/PLAIN", {"value": "us"})
    for _ in range(2):  # a replay of a replay, too
        path = f"/workflows/{workflow_id}/runs/{run['id']}/replay"
        run = await acme.ok("POST", path, {"stepKey": "place"})
        assert sent(platform).url == "https://a.test/changed-value"
        assert run["output"]["place"]["output"] == "us"


async def test_a_run_that_goes_on_has_what_it_began_with(tmp_path: Path) -> None:
    async with open_platform(tmp_path) as platform:
        await planted(platform)
        acme = platform.acme
        workflow_id = await acme.make(
            code("tell", "variables.TOKEN", "hold"),
            code("hold", "wait(DOOR)", "place"),
            code("place", "variables.PLAIN"),
        )
        run = await acme.run(workflow_id, background=True)
        await platform.reached("DOOR")
        await acme.ok("PATCH", "/variables/TOKEN", {"value": "changed-value"})
        await acme.ok("DELETE", "/variables/PLAIN")
        callers = (platform.acme, platform.globex)
    async with open_platform(tmp_path, callers) as platform:
        await platform.reached("DOOR")
        live = platform.services.live.get(run["id"])
        assert live is not None
        guarded = live.ports.http
        assert isinstance(guarded, GuardedHttp)
        platform.gate("DOOR").opened.set()
        await platform.idle()
        path = f"/workflows/{workflow_id}/runs/{run['id']}"
        ended = await platform.acme.ok("GET", path)
        assert ended["output"]["place"]["output"] == "eu"
        handle = ended["output"]["tell"]["output"]
        assert guarded.secrets.reveal(HttpRequest("GET", handle)).request.url == SECRET


async def test_the_owners_variables_are_used_and_the_callers_are_not(platform: Platform) -> None:
    await planted(platform)
    await platform.globex.ok("POST", "/variables", {"key": "PLAIN", "value": "globex"})
    workflow_id = await platform.acme.publish(code("tell", "variables.PLAIN"))
    assert (await platform.globex.discover(workflow_id))["result"] == "eu"


async def test_what_a_model_says_is_masked_in_streams_too(platform: Platform) -> None:
    await planted(platform)
    reply = {"text": f"It is {SECRET}, I say {SECRET}!", "tokens": 40}
    workflow_id = await platform.acme.make(model("say", [reply]))
    told = await platform.acme.stream(f"/workflows/{workflow_id}/runs", {"stream": True})
    said = "".join(one.data["output"]["message"] for one in told if one.event == "chunk")
    assert said == "It is •••, I say •••!"
    assert told[-1].data["result"]["message"] == said


async def test_a_single_step_sees_them(platform: Platform) -> None:
    await planted(platform)
    step = await platform.acme.ok(
        "POST", "/runs/step", {"step": {"type": "code", "key": "a", "code": "variables.PLAIN"}}
    )
    assert step["output"] == "eu"


async def test_changes_hold_for_the_next_run(platform: Platform) -> None:
    acme = platform.acme
    workflow_id = await acme.make(code("tell", "variables.PLAIN"))
    for value in ("one", "two"):
        await acme.ok("PATCH", "/variables", [{"key": "PLAIN", "value": value}])
        assert (await acme.run(workflow_id))["result"] == value
    await acme.ok("DELETE", "/variables/PLAIN")
    assert "planted" not in str(await acme.run(workflow_id))


async def test_without_its_key_nothing_starts_and_the_way_out_is_told(tmp_path: Path) -> None:
    async with open_platform(tmp_path) as platform:
        await planted(platform)
        callers = (platform.acme, platform.globex)
    (tmp_path / FILE).unlink()
    with pytest.raises(SettingsError, match="INSULA_SECRET_KEYS") as refused:
        async with open_platform(tmp_path, callers):
            pass
    assert FILE in str(refused.value)
    async with open_platform(tmp_path, callers, secret_keys_lost=True) as platform:
        listed = await platform.acme.ok("GET", "/variables")
        assert [one["key"] for one in listed] == ["PLAIN"]


async def test_a_secret_that_was_copied_to_another_app_does_not_open(platform: Platform) -> None:
    await planted(platform)
    await platform.change(
        "INSERT INTO variables (app_id, key, since, sealed, key_id, created_at)"
        " SELECT :app, key, since, sealed, key_id, created_at FROM variables"
        " WHERE sealed IS NOT NULL",
        app=platform.globex.id,
    )
    workflow_id = await platform.globex.make(code("tell", "variables.TOKEN"))
    run = await platform.globex.run(workflow_id)
    assert run["status"] == "FAILED"
    assert "TOKEN" in run["error"]
    assert "altered, or copied" in run["error"]


async def test_a_run_of_another_app_is_not_told_which_secret_it_is(platform: Platform) -> None:
    await planted(platform)
    hosts = {"key": "BOUND", "value": SECRET, "secret": True, "hosts": ["inner.corp.test"]}
    await platform.acme.ok("POST", "/variables", hosts)
    flow = await platform.acme.publish(http("send", "https://a.test/{{secrets.BOUND}}"))
    for run, told in ((platform.globex.discover, False), (platform.acme.run, True)):
        await run(flow)
        request = platform.http.requests[-1]
        assert request.secrets is not None
        with pytest.raises(StepFailure) as failed:
            request.secrets.reveal(request).check("a.test", 443)
        assert ("BOUND" in failed.value.message) is told
        assert ("inner.corp.test" in failed.value.message) is told


@pytest.mark.parametrize("is_open", [True, False])
async def test_nor_which_one_cannot_be_read(platform: Platform, is_open: bool) -> None:
    await planted(platform)
    flow = await platform.acme.publish(code("tell", "variables.TOKEN"), open=is_open)
    await platform.change("UPDATE variables SET sealed = :bad WHERE key = 'TOKEN'", bad=b"no")
    run = await platform.globex.discover(flow)
    assert (run["status"], run["error_code"]) == ("FAILED", "not_available")
    assert "TOKEN" not in str(run["error"])
    assert "secret" in run["error"]
    assert "TOKEN" in (await platform.acme.run(flow))["error"]
