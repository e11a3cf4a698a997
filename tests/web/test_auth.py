"""Who may ask: keys, the path's app, read-only keys."""

import httpx
import pytest
from tests.web.application import application, client

UNKNOWN = "There is no such thing here, or it belongs to another app. Check the id."


async def test_the_own_app_is_c_or_its_id(http: httpx.AsyncClient) -> None:
    for app_id in ("c", "app_1"):
        assert (await http.get(f"/apps/{app_id}/things")).status_code == 200


async def test_another_app_does_not_exist(http: httpx.AsyncClient) -> None:
    for app_id in ("app_2", "app_none", "C", "%00", "c%00"):
        answer = await http.get(f"/apps/{app_id}/things")
        assert (answer.status_code, answer.json()) == (404, {"status": 404, "message": UNKNOWN})


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic mine", "Bearer wrong", "mine", "Bearer " * 99]
)
async def test_without_a_current_key(header: str | None) -> None:
    async with client(application(), key=None) as http:
        headers = {} if header is None else {"authorization": header}
        answer = await http.get("/apps/c/things", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["status"] == 401


async def test_the_scheme_has_no_case(http: httpx.AsyncClient) -> None:
    answer = await http.get("/apps/c/things", headers={"authorization": "bEARER mine"})
    assert answer.status_code == 200


async def test_a_read_only_key_reads_and_does_not_write() -> None:
    async with client(application(), key="reads") as http:
        assert (await http.get("/apps/c/things")).status_code == 200
        refused = await http.post("/apps/c/things", json={})
    assert refused.status_code == 403
    assert "read" in refused.json()["message"]
