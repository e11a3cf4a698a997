"""Byte for byte what clients get of apps, keys, variables, connections, tags, schedules and
retention."""

from typing import Any

from tests.compat.golden import compare
from tests.runs.platform import ADMIN, Platform, code


async def keep(platform: Platform, name: str, method: str, path: str, body: object = None) -> Any:
    """Ask, compare the answer with the file of this name, and return it."""
    answer = await platform.acme.ask(method, path, body)
    assert answer.status_code == 200, answer.text
    compare(f"{name}.json", answer.content)
    return answer.json()


async def test_apps_and_keys(platform: Platform) -> None:
    headers = {"authorization": f"Bearer {ADMIN}"}
    settings = {"name": "Initech", "settings": {"model_default": "mock/m"}}
    made = await platform.client.post("/apps", json=settings, headers=headers)
    compare("app_created.json", made.content)
    asked = {"headers": {"authorization": f"Bearer {made.json()['key']}"}}
    compare("app.json", (await platform.client.get("/apps/c", **asked)).content)
    body = {"name": "reads", "read_only": True, "expires_at": "2126-01-31T12:00:00Z"}
    key = await platform.client.post("/apps/c/keys", json=body, **asked)
    compare("key_created.json", key.content)
    await platform.client.delete(f"/apps/c/keys/{key.json()['id']}", **asked)
    listed = (await platform.client.get("/apps/c/keys", **asked)).json()
    assert {one["name"] for one in listed} == {"first key", "reads"}


async def test_variables(platform: Platform) -> None:
    await keep(platform, "variable", "POST", "/variables", {"key": "PLAIN", "value": "ü\n"})
    secret = {"key": "HIDDEN", "value": "long enough", "secret": True, "hosts": ["*.example.com"]}
    await keep(platform, "variable_secret", "POST", "/variables", secret)
    changes = [{"key": "PLAIN", "value": "2"}, {"key": "MORE", "value": ""}]
    await keep(platform, "variable_list", "PATCH", "/variables", changes)


async def test_connections(platform: Platform) -> None:
    body = {
        "name": "Mine",
        "type": "OPENAI_COMPATIBLE",
        "provider": "My LLM",
        "base_url": "https://models.example.com/v1",
        "credentials": {"api_key": "a key of mine"},
        "settings": {"region": "eu"},
    }
    made = await keep(platform, "connection", "POST", "/connections", body)
    await platform.acme.ok("POST", "/connections", {"name": "Chat", "type": "SLACK"})
    await keep(platform, "connection_list", "GET", "/connections")
    compare(
        "connection_test.json",
        (await platform.acme.ask("POST", f"/connections/{made['id']}/test")).content,
    )


async def test_tags(platform: Platform) -> None:
    tag = await keep(platform, "tag", "POST", "/tags", {"name": "urgent", "color": "#f00"})
    body = {"name": "Tagged", "steps": [], "tags_ids": [tag["id"]]}
    await keep(platform, "workflow_tagged", "POST", "/workflows", body)


async def test_schedules(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    cron = {"workflow_id": flow, "cron": "0 7 * * 1-5", "timezone": "Europe/Berlin"}
    made = await keep(platform, "schedule", "POST", "/schedules", cron)
    await platform.acme.ok("PATCH", f"/schedules/{made['id']}", {"enabled": False})
    await keep(platform, "schedule_list", "GET", "/schedules")


async def test_retention(platform: Platform) -> None:
    body = {"max_age_in_seconds": 60, "preserve_on_failure": True}
    flow = await platform.acme.make(code("a", "return 1"), retention=body)
    await keep(platform, "run_with_retention", "POST", f"/workflows/{flow}/runs", {"retention": 9})
    found = await platform.acme.ok("GET", "/retention")
    days = found.pop("days")
    assert (len(days), days[0].keys()) == (30, {"count", "capped", "date"})
    assert found == {
        "default_seconds": 2_592_000,
        "due": {"count": 0, "capped": False},
        "oldest_due_at": None,
        "erased_per_second": 0.0,
    }


async def test_callers(platform: Platform) -> None:
    flow = await platform.acme.publish(code("a", "return 1"))
    await platform.globex.discover(flow)
    path = f"/workflows/{flow}/callers"
    await keep(platform, "caller_blocked", "PUT", f"{path}/{platform.globex.id}")
    await keep(platform, "caller_list", "GET", path)
