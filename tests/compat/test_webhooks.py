"""Byte for byte what clients get of webhooks, and what webhooks get."""

import asyncio
from typing import Any

from tests.compat.golden import compare
from tests.runs.platform import Platform, code

from insula.engine.ports import Activity, HttpRequest, HttpResponse

URL = "https://hooks.test/in"


class Receiver:
    """The far end: it says yes to whatever it is told."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[bytes] = asyncio.Queue()

    async def send(self, request: HttpRequest, activity: Activity) -> HttpResponse:
        self.told.put_nowait(request.body or b"")
        return HttpResponse(204, (), b"", request.url)


async def delivered(platform: Platform, webhook_id: str) -> Any:
    """Wait until what was told is stored as told; return it as it is listed."""
    async with asyncio.timeout(10):
        while True:
            answer = await platform.acme.ask("GET", f"/webhooks/{webhook_id}/deliveries")
            if all(one["status"] == "DELIVERED" for one in answer.json()) and answer.json():
                return answer
            await asyncio.sleep(0.005)  # as a client does


async def test_a_webhook_and_its_deliveries(platform: Platform) -> None:
    receiver = platform.services.http = Receiver()
    acme = platform.acme
    body = {"url": URL, "events": ["record.created"], "run_events": ["run.completed"]}
    made = await acme.ask("POST", "/webhooks", body)
    compare("webhook_created.json", made.content)
    one = f"/webhooks/{made.json()['id']}"
    compare("webhook_list.json", (await acme.ask("GET", "/webhooks")).content)
    flow = await acme.make(code("a", 'return {"n": 7}'))
    await acme.run(flow, identifier="mine")
    async with asyncio.timeout(10):
        compare("webhook_told_run.json", await receiver.told.get())
    listed = await delivered(platform, made.json()["id"])
    compare("delivery_list.json", listed.content)
    delivery = f"{one}/deliveries/{listed.json()[0]['id']}"
    compare("delivery.json", (await acme.ask("GET", delivery)).content)
    await acme.ok("PATCH", one, {"run_events": []})
    collection = await acme.ok("POST", "/collections", {"name": "C"})
    await acme.ok("POST", f"/collections/{collection['id']}/records", {"name": "R"})
    async with asyncio.timeout(10):
        compare("webhook_told_record.json", await receiver.told.get())
    compare("webhook_disabled.json", (await acme.ask("PATCH", one, {"enabled": False})).content)


async def test_addresses_of_a_workflow(platform: Platform) -> None:
    entry = {"type": "input", "key": "entry", "input": {}, "destinations": ["a"]}
    entry["webhook"] = {"method": "POST", "path": "/orders"}
    flow = await platform.acme.make(entry, code("a", "return 1"))
    hooks = await platform.acme.ask("GET", f"/workflows/{flow}/hooks")
    compare("hooks.json", hooks.content)
