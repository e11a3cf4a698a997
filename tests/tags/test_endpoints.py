"""Tags over HTTP: on workflows, collections and records, and who finds them."""

from tests.contract import validate
from tests.runs.platform import Platform, code


async def test_one_is_made_listed_changed_and_deleted(platform: Platform) -> None:
    acme = platform.acme
    made = await acme.ok("POST", "/tags", {"name": "urgent", "color": "#f00"})
    other = await acme.ok("POST", "/tags", {"name": "later"})
    assert made["id"].startswith("tag_")
    validate(made, "TagSchema")
    assert [tag["name"] for tag in await acme.ok("GET", "/tags")] == ["later", "urgent"]
    again = await acme.ask("POST", "/tags", {"name": "urgent"})
    assert again.status_code == 409
    path = f"/tags/{made['id']}"
    changed = await acme.ok("PATCH", path, {"color": None})
    assert (changed["name"], changed["color"]) == ("urgent", None)
    assert (await acme.ask("PATCH", path, {"name": "later"})).status_code == 409
    assert await acme.ok("DELETE", path) is None
    assert (await acme.ask("DELETE", path)).status_code == 404
    assert await acme.ok("GET", "/tags") == [other]


async def test_what_has_them_is_found_by_them(platform: Platform) -> None:
    acme = platform.acme
    a = (await acme.ok("POST", "/tags", {"name": "a"}))["id"]
    b = (await acme.ok("POST", "/tags", {"name": "b"}))["id"]
    flow = await acme.make(code("x", "return 1"), tags_ids=[a])
    await acme.make(code("x", "return 1"))
    collection = await acme.ok("POST", "/collections", {"name": "C", "tags_ids": [a, b]})
    records = f"/collections/{collection['id']}/records"
    record = await acme.ok("POST", records, {"name": "R", "tags_ids": [b]})
    await acme.ok("POST", records, {"name": "S"})
    assert [tag["id"] for tag in collection["tags"]] == [a, b]

    async def ids(path: str, **query: object) -> list[str]:
        return [one["id"] for one in await acme.ok("GET", path, params=query)]

    assert await ids("/workflows", tags=a) == [flow]
    assert await ids("/workflows", tags=[a, b]) == []
    assert await ids("/collections", tags=["a", "b"]) == [collection["id"]]
    assert await ids(records, tag_ids=b) == [record["id"]]
    assert await ids(records, tags="b") == [record["id"]]
    assert await ids(records, tag_ids=a) == []
    await acme.ok("DELETE", f"/tags/{b}")
    assert (await acme.ok("GET", f"{records}/{record['id']}"))["tags"] == []
    changed = await acme.ok("PATCH", f"/workflows/{flow}", {"tags_ids": []})
    assert changed["tags"] == []


async def test_other_apps_tags_do_not_exist(platform: Platform) -> None:
    tag = (await platform.acme.ok("POST", "/tags", {"name": "a"}))["id"]
    globex = platform.globex
    assert await globex.ok("GET", "/tags") == []
    assert (await globex.ask("PATCH", f"/tags/{tag}", {"name": "b"})).status_code == 404
    assert (await globex.ask("DELETE", f"/tags/{tag}")).status_code == 404
    answer = await globex.ask("POST", "/collections", {"name": "C", "tags_ids": [tag]})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"] == ["tags_ids", "0"]
    assert await globex.ok("GET", "/collections") == []


async def test_the_same_key_makes_one(platform: Platform) -> None:
    headers = {"idempotency-key": "one"}
    first = await platform.acme.ok("POST", "/tags", {"name": "a"}, headers=headers)
    assert await platform.acme.ok("POST", "/tags", {"name": "a"}, headers=headers) == first
