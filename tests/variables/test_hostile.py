"""Variables with names and values that mean no good, and keys that are lost half-way."""

from pathlib import Path
from typing import Any

import pytest
from tests.runs.platform import ADMIN, Platform, open_platform
from tests.variables.test_scope import http, planted

from insula.adapters import sealed_rows
from insula.adapters.keyring import FILE, open_ring
from insula.settings import SettingsError

ODD = (
    *("constructor", "prototype", "toString", "valueOf", "hasOwnProperty", "then", "toJSON"),
    *("length", "Object", "JSON", "fetch", "console", "input", "variables", "return", "null"),
    *("$", "_"),
)


async def test_names_of_prototypes_and_globals_are_names_like_any_other(
    platform: Platform,
) -> None:
    acme = platform.acme
    await acme.ok("PATCH", "/variables", [{"key": key, "value": f"v-{key}"} for key in ODD])
    holes = "/".join(f"{{{{variables.{key}}}}}" for key in ODD)
    workflow_id = await acme.make(http("send", f"https://a.test/{holes}"))
    assert (await acme.run(workflow_id))["status"] == "COMPLETED"
    assert platform.http.requests[-1].url == "https://a.test/" + "/".join(
        f"v-{key}".replace("$", "%24") for key in ODD
    )
    for key in ODD:
        assert await acme.ok("DELETE", f"/variables/{key}") is None
    # Of a variable that there is not, nothing is inherited.
    assert (await acme.run(workflow_id))["status"] == "COMPLETED"
    assert platform.http.requests[-1].url == "https://a.test/" + "/" * (len(ODD) - 1)


async def test_what_is_no_identifier_is_no_name(platform: Platform) -> None:
    acme = platform.acme
    before = await acme.ok("POST", "/variables", {"key": "A", "value": "1"})
    for key in ("__proto__", "a.b", "a b", "", "é", "a\x00", "1", "${x}", "a-b"):
        for method, path, body in (
            ("POST", "/variables", {"key": key, "value": "x"}),
            ("PATCH", "/variables", [{"key": "A", "value": "2"}, {"key": key, "value": "x"}]),
            ("PATCH", "/variables/A", {"key": key, "value": "2"}),
        ):
            assert (await acme.ask(method, path, body)).status_code == 400, (method, key)
    assert await acme.ok("GET", "/variables") == [before]


async def test_renaming_to_a_name_that_is_taken_changes_neither(platform: Platform) -> None:
    acme = platform.acme
    body = [{"key": "A", "value": "1"}, {"key": "B", "value": "planted-2", "secret": True}]
    before = await acme.ok("PATCH", "/variables", body)
    for more in ({}, {"value": "3"}, {"secret": True, "value": "12345678"}):
        refused = await acme.ask("PATCH", "/variables/A", {"key": "B", **more})
        assert (refused.status_code, "B already" in refused.json()["message"]) == (409, True)
    assert await acme.ok("GET", "/variables") == before
    # To its own name it is no renaming; and a name that was given up may be taken.
    assert (await acme.ok("PATCH", "/variables/A", {"key": "A"}))["value"] == "1"
    await acme.ok("PATCH", "/variables/B", {"key": "C"})
    assert (await acme.ok("PATCH", "/variables/A", {"key": "B"}))["value"] == "1"


async def test_a_value_of_a_mebibyte_is_refused_by_its_size(platform: Platform) -> None:
    for secret in (False, True):
        body = {"key": "A", "value": "é" * 512 * 1024, "secret": secret}
        refused = await platform.acme.ask("POST", "/variables", body)
        assert (refused.status_code, len(refused.content) < 1_000) == (400, True)
        assert refused.json()["errors"][0]["code"] == "too_long"


async def test_ten_thousand_at_once_are_refused_before_any_is_stored(platform: Platform) -> None:
    body = [{"key": f"K{number}", "value": "x"} for number in range(10_000)]
    refused = await platform.acme.ask("PATCH", "/variables", body)
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (400, "too_many")
    assert await platform.acme.ok("GET", "/variables") == []


async def test_a_rotation_that_was_killed_half_way_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    async with open_platform(tmp_path) as platform:
        acme = platform.acme
        body = [{"key": f"K{n}", "value": f"planted-{n}", "secret": True} for n in range(5)]
        await acme.ok("PATCH", "/variables", body)
        database, ring = platform.services.database, open_ring(tmp_path, None)
        monkeypatch.setattr(sealed_rows, "_BATCH", 2)
        left = [1]
        seal = sealed_rows._seal_anew  # where it is killed

        def killed(*given: Any, **named: Any) -> int:
            if not left:
                raise Killed
            left.pop()
            return seal(*given, **named)

        monkeypatch.setattr(sealed_rows, "_seal_anew", killed)
        with pytest.raises(Killed):
            await sealed_rows.rotate(database, ring)
        monkeypatch.setattr(sealed_rows, "_seal_anew", seal)
        callers = (platform.acme, platform.globex)
    file = tmp_path / FILE
    assert len(file.read_text().split()) == 2
    async with open_platform(tmp_path, callers) as platform:
        acme = platform.acme
        renamed = [await acme.ok("PATCH", f"/variables/K{n}", {"key": f"L{n}"}) for n in range(5)]
        assert all(one["secret"] for one in renamed)  # each one opens
        headers = {"authorization": f"Bearer {ADMIN}"}
        done = await platform.client.post("/secrets/rotate", headers=headers)
        assert done.json()["rotated"] == 10  # those that held until then, too
        assert len(file.read_text().split()) == 1
        rows = await platform.rows("SELECT DISTINCT key_id FROM variables")
        assert [row.key_id for row in rows] == [done.json()["key_id"]]
    async with open_platform(tmp_path, callers) as platform:
        assert len(await platform.acme.ok("GET", "/variables")) == 5


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (None, "encrypted with a key that is not here"),
        ("c2hvcnQ=", "entry 1 of INSULA_SECRET_KEYS is no key"),
        ("A" * 43 + "=", "encrypted with a key that is not here"),
        (f"{'A' * 43}=,", "encrypted with a key that is not here"),
        (" ", "INSULA_SECRET_KEYS is empty"),
    ],
)
async def test_without_the_right_key_a_server_says_what_is_wrong(
    tmp_path: Path, keys: str | None, words: str
) -> None:
    async with open_platform(tmp_path) as platform:
        await planted(platform)
        callers = (platform.acme, platform.globex)
    kept = (tmp_path / FILE).read_text()
    (tmp_path / FILE).unlink()
    given = {} if keys is None else {"secret_keys": keys}
    with pytest.raises(SettingsError, match=words) as refused:
        async with open_platform(tmp_path, callers, **given):
            pass
    assert kept.strip() not in str(refused.value)
    # Named behind another one, which seals from now on, it opens what it sealed.
    both = f"{'A' * 43}=,{kept.strip()}"
    async with open_platform(tmp_path, callers, secret_keys=both) as platform:
        changed = await platform.acme.ok("PATCH", "/variables/TOKEN", {"hosts": ["a.test"]})
        assert changed["secret"]
