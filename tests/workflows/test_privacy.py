"""To an app that has no business there, a workflow does not exist: one answer, byte for byte."""

from typing import Any

from tests.workflows.platform import Platform

from insula.kit.ids import new_id

OWN: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", "/workflows/{id}", None),
    ("PATCH", "/workflows/{id}", {"name": "x"}),
    ("DELETE", "/workflows/{id}", None),
    ("GET", "/workflows/{id}/export", None),
    ("POST", "/workflows/{id}/duplicate", {}),
    ("GET", "/workflows/{id}/versions", None),
    ("POST", "/workflows/{id}/versions", {}),
    ("GET", "/workflows/{id}/versions/1", None),
    ("GET", "/workflows/{id}/versions/draft", None),
    ("GET", "/workflows/{id}/versions/{version}", None),
    ("PATCH", "/workflows/{id}/versions/1", {"withdrawn": True}),
    ("POST", "/workflows/{id}/rollback", {"version": 1}),
    ("GET", "/workflows/{id}/callers", None),
    ("PUT", "/workflows/{id}/callers/{caller}", None),
    ("DELETE", "/workflows/{id}/callers/{caller}", None),
]
FOUND: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", "/workflows/discover/{id}", None),
    ("GET", "/workflows/discover/{id}/versions/1", None),
    ("GET", "/workflows/discover/{id}/versions/latest", None),
    ("GET", "/workflows/discover/{id}/versions/draft", None),
    ("GET", "/workflows/discover/{id}/versions/{version}", None),
]


async def _unknown(platform: Platform) -> bytes:
    answer = await platform.globex.ask("GET", f"/workflows/{new_id('work')}")
    assert answer.status_code == 404
    return answer.content


async def _ask(
    platform: Platform, route: tuple[str, str, Any], made: dict[str, Any]
) -> tuple[int, bytes]:
    method, path, body = route
    version = (made["version"] or {}).get("id", "workv_1")
    where = path.format(id=made["id"], version=version, caller=platform.initech.id)
    answer = await platform.globex.ask(method, where, body)
    return answer.status_code, answer.content


async def test_another_apps_published_workflow_is_not_ones_own(platform: Platform) -> None:
    made = await platform.acme.publish()
    expected = (404, await _unknown(platform))
    for route in OWN:
        assert await _ask(platform, route, made) == expected, route
    assert platform.deleted == []
    assert await platform.acme.get(f"/workflows/{made['id']}") == made


async def test_every_reason_gives_the_same_answer(platform: Platform) -> None:
    draft = await platform.acme.make()
    unpublished = await platform.acme.publish()
    await platform.acme.patch(unpublished["id"], discoverable=False)
    blocked = await platform.acme.publish()
    await platform.acme.ask("PUT", f"/workflows/{blocked['id']}/callers/{platform.globex.id}")
    deleted = await platform.acme.publish()
    await platform.acme.ask("DELETE", f"/workflows/{deleted['id']}")
    absent = {"id": new_id("work"), "version": None}
    nonsense = {"id": "%00", "version": None}
    expected = (404, await _unknown(platform))
    for made in (draft, unpublished, blocked, deleted, absent, nonsense):
        for route in OWN + FOUND:
            assert await _ask(platform, route, made) == expected, (route, made["id"])
    assert await platform.globex.get("/workflows/discover") == []


async def test_another_apps_path_does_not_exist(platform: Platform) -> None:
    made = await platform.acme.publish()
    path = f"/apps/{platform.acme.id}/workflows/{made['id']}"
    answer = await platform.globex.ask("GET", path)
    assert (answer.status_code, answer.content) == (404, await _unknown(platform))
    own = await platform.acme.ask("GET", path)
    assert own.json() == made


async def test_nothing_that_a_list_tells_betrays_a_draft(platform: Platform) -> None:
    made = await platform.acme.publish(name="Public")
    await platform.acme.patch(
        made["id"],
        steps=[{"type": "code", "key": "hush", "code": "return 'secret sauce'"}],
        key="other_key",
        input_default={"hush": "secret sauce"},
    )
    answer = await platform.globex.ask("GET", "/workflows/discover")
    one = await platform.globex.ask("GET", f"/workflows/discover/{made['id']}")
    for text in (answer.text, one.text):
        assert "secret sauce" not in text
        assert "hush" not in text
        assert "other_key" not in text
        assert platform.acme.key_id not in text
        assert "created_by" not in text
        assert "problems" not in text
