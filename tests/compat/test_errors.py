"""Byte for byte what clients get where they get no success, one of each kind."""

from tests.compat.golden import compare
from tests.runs.platform import ADMIN, Platform, code

MISSING = "/apps/c/workflows/work_" + "1" * 22


async def test_one_of_each_kind(platform: Platform) -> None:
    acme, client = platform.acme, platform.client
    key = {"authorization": f"Bearer {acme.key}"}
    compare("error_400_body.json", (await acme.ask("POST", "/workflows", {"name": 5})).content)
    queried = await acme.ask("GET", "/workflows?page=0&take=x")
    compare("error_400_query.json", queried.content)
    cut = await client.post("/apps/c/workflows", content=b'{"name"', headers=key)
    compare("error_400_json.json", cut.content)
    steps = [{"type": "code", "key": "a"}, {"type": "code", "key": "a", "destinations": ["b"]}]
    wrong = await acme.ask("POST", "/workflows", {"name": "W", "steps": steps})
    compare("error_400_workflow.json", wrong.content)
    compare("error_401.json", (await client.get(MISSING)).content)
    body = {"name": "reads", "read_only": True}
    reads = (await acme.ok("POST", "/keys", body))["key"]
    refused = {"authorization": f"Bearer {reads}"}
    answer = await client.post("/apps/c/workflows", json={"name": "W"}, headers=refused)
    compare("error_403.json", answer.content)
    compare("error_404.json", (await client.get(MISSING, headers=key)).content)
    compare("error_404_path.json", (await client.get("/nowhere", headers=key)).content)
    compare("error_405.json", (await client.put("/apps/c/workflows", headers=key)).content)
    flow = await acme.make(code("a", "return 1"))
    again = await acme.ask("POST", f"/workflows/{flow}/versions", {})
    compare("error_409.json", again.content)
    text = {**key, "content-type": "text/plain"}
    typed = await client.post("/apps/c/workflows", content=b"x", headers=text)
    compare("error_415.json", typed.content)
    once = {"headers": {"idempotency-key": "one"}}
    await acme.ok("POST", "/tags", {"name": "a"}, **once)
    compare("error_422.json", (await acme.ask("POST", "/tags", {"name": "b"}, **once)).content)
    problem = {**key, "accept": "application/problem+json"}
    compare("error_problem.json", (await client.get(MISSING, headers=problem)).content)
    long = {**key, "content-length": str(2**40)}
    big = await client.post("/apps/c/workflows", content=b"{}", headers=long)
    compare("error_413.json", big.content)


async def test_the_admins_key_is_another(platform: Platform) -> None:
    asked = {"authorization": f"Bearer {platform.acme.key}"}
    compare("error_403_admin.json", (await platform.client.get("/apps", headers=asked)).content)
    admin = {"authorization": f"Bearer {ADMIN}"}
    found = await platform.client.get("/apps/app_" + "1" * 22, headers=admin)
    assert found.status_code == 404
