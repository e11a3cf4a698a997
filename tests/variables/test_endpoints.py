from typing import Any

import pytest
from tests.contract import validate
from tests.runs.platform import ADMIN, Platform

DATABASES = ("sqlite", "postgres")
LISTED = "/variables"


def plain(answer: Any) -> Any:
    """An answer without its times."""
    if isinstance(answer, list):
        return [plain(one) for one in answer]
    return {name: value for name, value in answer.items() if not name.endswith("_at")}


async def test_a_variable_is_made_changed_renamed_and_removed(platform: Platform) -> None:
    acme = platform.acme
    made = await acme.ok("POST", LISTED, {"key": "REGION", "value": "eu"})
    validate(made, "AppVariableSchema")
    assert plain(made) == {"key": "REGION", "value": "eu", "secret": False}
    changed = await acme.ok("PATCH", f"{LISTED}/REGION", {"value": "us"})
    assert plain(changed) == {"key": "REGION", "value": "us", "secret": False}
    assert changed["created_at"] == made["created_at"]
    renamed = await acme.ok("PATCH", f"{LISTED}/REGION", {"key": "PLACE"})
    assert plain(renamed) == {"key": "PLACE", "value": "us", "secret": False}
    assert plain(await acme.ok("GET", LISTED)) == [plain(renamed)]
    assert await acme.ok("DELETE", f"{LISTED}/PLACE") is None
    assert await acme.ok("GET", LISTED) == []
    assert (await acme.ask("DELETE", f"{LISTED}/PLACE")).status_code == 404
    assert (await acme.ask("PATCH", f"{LISTED}/PLACE", {"value": "x"})).status_code == 404


async def test_a_secret_is_never_shown(platform: Platform) -> None:
    acme = platform.acme
    body = {"key": "TOKEN", "value": "planted-1", "secret": True, "hosts": ["API.test", "*.b.test"]}
    answers = [
        await acme.ask("POST", LISTED, body),
        await acme.ask("GET", LISTED),
        await acme.ask("PATCH", f"{LISTED}/TOKEN", {"key": "KEY"}),
        await acme.ask("PATCH", LISTED, [{"key": "KEY"}]),
        await acme.ask("PATCH", f"{LISTED}/KEY", {"secret": False}),
        await acme.ask("POST", LISTED, {"key": "KEY", "value": "planted-1", "secret": True}),
        await acme.ask("PATCH", f"{LISTED}/KEY", {"value": "planted", "secret": True}),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 400, 409, 400]
    assert not any("planted" in answer.text for answer in answers)
    assert plain(answers[2].json()) == {
        "key": "KEY",
        "secret": True,
        "hosts": ["api.test", "*.b.test"],
    }
    validate(answers[1].json()[0], "AppVariableSchema")
    rows = await platform.rows("SELECT * FROM variables")
    assert b"planted" not in repr(rows).encode()


async def test_a_plain_value_becomes_a_secret_and_back_with_a_value_alone(
    platform: Platform,
) -> None:
    acme = platform.acme
    await acme.ok("POST", LISTED, {"key": "A", "value": "long enough"})
    secret = await acme.ok("PATCH", f"{LISTED}/A", {"secret": True})
    assert plain(secret) == {"key": "A", "secret": True}
    back = await acme.ok("PATCH", f"{LISTED}/A", {"secret": False, "value": "open"})
    assert plain(back) == {"key": "A", "value": "open", "secret": False}


async def test_a_stored_secret_goes_to_no_more_hosts_without_its_value(
    platform: Platform,
) -> None:
    acme, value = platform.acme, "long enough"
    body = {"key": "A", "value": value, "secret": True, "hosts": ["a.test", "*.b.test", "c.test:8"]}
    await acme.ok("POST", LISTED, body)
    wider = (["evil.test"], ["a.test", "evil.test"], ["*.a.test"], ["b.test"], ["c.test"], [], None)
    for hosts in wider:
        for method, where, sent in (
            ("PATCH", f"{LISTED}/A", {"hosts": hosts}),
            ("PATCH", f"{LISTED}/A", {"hosts": hosts, "key": "B", "secret": True}),
            ("PATCH", LISTED, [{"key": "A", "hosts": hosts}]),
        ):
            refused = await acme.ask(method, where, sent)
            assert refused.status_code == 400, (hosts, sent)
            (error,) = refused.json()["errors"]
            assert (error["path"][-1], error["code"]) == ("value", "hosts")
    assert (await acme.ok("GET", LISTED))[0]["hosts"] == body["hosts"]
    for fewer in (["A.test:443", "*.x.b.test", "c.test:8"], ["a.test:443", "y.x.b.test"]):
        assert len((await acme.ok("PATCH", f"{LISTED}/A", {"hosts": fewer}))["hosts"]) == len(fewer)
    changed = await acme.ok("PATCH", f"{LISTED}/A", {"hosts": None, "value": value})
    assert "hosts" not in changed
    assert (await acme.ok("PATCH", f"{LISTED}/A", {"hosts": ["a.test"]}))["hosts"] == ["a.test"]
    # A value that is no secret any more was sent anew, and has no hosts.
    assert "hosts" not in await acme.ok("PATCH", f"{LISTED}/A", {"secret": False, "value": value})


async def test_many_are_changed_together_or_not_at_all(platform: Platform) -> None:
    acme = platform.acme
    await acme.ok("POST", LISTED, {"key": "A", "value": "1"})
    await acme.ok("POST", LISTED, {"key": "B", "value": "planted-2", "secret": True})
    body: list[dict[str, Any]] = [{"key": "A", "value": "2"}, {"key": "B"}, {"key": "C"}]
    listed = await acme.ok("PATCH", f"{LISTED}?take=2", body)
    assert plain(listed) == [
        {"key": "A", "value": "2", "secret": False},
        {"key": "B", "secret": True},
    ]
    for bad, path in (
        ([{"key": "A", "value": "3"}, {"key": "9"}], "1.key"),
        ([{"key": "A", "value": "3"}, {"key": "A"}], "1.key"),
        ([{"key": "A", "value": "3"}, {"key": "B", "value": "short"}], "1.value"),
        ({"key": "A"}, ""),
    ):
        refused = await acme.ask("PATCH", LISTED, bad)
        assert refused.status_code == 400
        assert ".".join(refused.json()["errors"][0]["path"]) == path
    assert (await acme.ok("GET", LISTED))[0]["value"] == "2"


@pytest.mark.parametrize(
    "form",
    [
        {
            "0[key]": "A",
            "0[value]": "1",
            "1[key]": "B",
            "1[secret]": "true",
            "1[value]": "12345678",
        },
        {"[0][key]": "A", "[0].value": "1", "1.key": "B", "1.value": "12345678", "1.secret": "1"},
        {"variables": '[{"key":"A","value":"1"},{"key":"B","value":"12345678","secret":true}]'},
    ],
)
@pytest.mark.parametrize("multipart", [True, False])
async def test_lists_come_as_forms_too(
    platform: Platform, form: dict[str, str], multipart: bool
) -> None:
    given: dict[str, Any] = (
        {"files": [(name, (None, value)) for name, value in form.items()]}
        if multipart
        else {"data": form}
    )
    listed = await platform.acme.ok("PATCH", LISTED, **given)
    assert plain(listed) == [
        {"key": "A", "value": "1", "secret": False},
        {"key": "B", "secret": True},
    ]


async def test_one_comes_as_a_form_too(platform: Platform) -> None:
    form = {"key": "A", "value": "1234", "secret": "false"}
    made = await platform.acme.ok("POST", LISTED, data=form)
    assert plain(made) == {"key": "A", "value": "1234", "secret": False}
    files = [("value", (None, "5")), ("key", (None, "B"))]
    changed = await platform.acme.ok("PATCH", f"{LISTED}/A", files=files)
    assert plain(changed) == {"key": "B", "value": "5", "secret": False}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"key": "1A", "value": "x"}, "value_error"),
        ({"key": "__proto__", "value": "x"}, "value_error"),
        ({"key": "a-b", "value": "x"}, "value_error"),
        ({"key": "K" * 101}, "string_too_long"),
        ({"value": "x"}, "missing"),
        ({"key": "A", "value": 5}, "string_type"),
        ({"key": "A", "secret": True}, "too_short"),
        ({"key": "A", "value": "1234567", "secret": True}, "too_short"),
        ({"key": "A", "value": " 1234567\n", "secret": True}, "too_short"),
        ({"key": "A", "value": "x" * 65_537}, "too_long"),
        ({"key": "A", "value": "x" * 8_193, "secret": True}, "too_long"),
        ({"key": "A", "value": "x", "hosts": ["a.test"]}, "secret"),
        ({"key": "A", "value": "12345678", "secret": True, "hosts": ["https://a"]}, "value_error"),
        ({"key": "A", "value": "12345678", "secret": True, "hosts": ["a/b"]}, "value_error"),
    ],
)
async def test_what_cannot_be_stored_is_refused(
    platform: Platform, body: dict[str, Any], code: str
) -> None:
    refused = await platform.acme.ask("POST", LISTED, body)
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["code"] == code


async def test_an_app_has_a_thousand_variables_and_so_many_bytes_of_secrets(
    platform: Platform,
) -> None:
    acme = platform.acme
    await acme.ok("PATCH", LISTED, [{"key": f"K{number}"} for number in range(1000)])
    refused = await acme.ask("POST", LISTED, {"key": "MORE"})
    assert refused.json()["errors"][0]["code"] == "too_many"
    large = [
        {"key": f"K{number}", "value": f"{number}".ljust(8000, "x"), "secret": True}
        for number in range(9)
    ]
    assert (await acme.ask("PATCH", LISTED, large)).status_code == 400
    await acme.ok("PATCH", LISTED, large[:8])
    many = [{"key": f"K{number}", "value": "x" * 60_000} for number in range(9, 29)]
    assert (await acme.ask("PATCH", LISTED, many)).status_code == 400
    last = await acme.ask("GET", f"{LISTED}?take=100&page=10")
    assert len(last.json()) == 100
    assert last.headers["pagination-count"] == "1000"


async def test_a_list_goes_on_where_it_stopped(platform: Platform) -> None:
    acme = platform.acme
    await acme.ok("PATCH", LISTED, [{"key": f"K{number}"} for number in range(5)])
    first = await acme.ask("GET", f"{LISTED}?take=2")
    following = first.headers["pagination-next"]
    second = await acme.ask("GET", f"{LISTED}?take=2&next={following}")
    assert [one["key"] for one in second.json()] == ["K2", "K3"]
    assert second.headers["pagination-page"] == "2"


async def test_the_same_request_again_makes_nothing_new(platform: Platform) -> None:
    acme, body = platform.acme, {"key": "A", "value": "1"}
    headers = {"idempotency-key": "one"}
    first = await acme.ok("POST", LISTED, body, headers=headers)
    assert await acme.ok("POST", LISTED, body, headers=headers) == first


async def test_what_is_anothers_does_not_exist(platform: Platform) -> None:
    acme, globex = platform.acme, platform.globex
    await acme.ok("POST", LISTED, {"key": "A", "value": "1"})
    for method, body in (("PATCH", {"value": "2"}), ("DELETE", None)):
        assert (await globex.ask(method, f"{LISTED}/A", body)).status_code == 404
    assert await globex.ok("GET", LISTED) == []
    await globex.ok("POST", LISTED, {"key": "A", "value": "mine"})
    assert (await acme.ok("GET", LISTED))[0]["value"] == "1"


async def test_a_key_that_may_only_read_changes_nothing(platform: Platform) -> None:
    acme = platform.acme
    key = (await acme.ok("POST", "/keys", {"name": "r", "read_only": True}))["key"]
    headers = {"authorization": f"Bearer {key}"}
    for method, path, body in (
        ("POST", LISTED, {"key": "A"}),
        ("PATCH", LISTED, []),
        ("PATCH", f"{LISTED}/A", {}),
        ("DELETE", f"{LISTED}/A", None),
    ):
        assert (await acme.ask(method, path, body, headers=headers)).status_code == 403
    assert await acme.ok("GET", LISTED, headers=headers) == []


async def test_an_apps_variables_go_with_it(platform: Platform) -> None:
    acme = platform.acme
    await acme.ok("POST", LISTED, {"key": "A", "value": "12345678", "secret": True})
    answer = await platform.client.delete(
        f"/apps/{acme.id}", headers={"authorization": f"Bearer {ADMIN}"}
    )
    assert answer.status_code == 200
    assert await platform.rows("SELECT * FROM variables") == []


async def test_rotating_seals_all_anew_and_needs_the_admin_key(platform: Platform) -> None:
    acme = platform.acme
    body = [
        {"key": f"K{number}", "value": f"planted-{number}", "secret": True} for number in range(450)
    ]
    await acme.ok("PATCH", LISTED, body)
    await acme.ok("PATCH", f"{LISTED}/K1", {"value": "planted-x"})
    before = await platform.rows("SELECT key, since, sealed, key_id FROM variables")
    refused = await acme.client.post(
        "/secrets/rotate", headers={"authorization": f"Bearer {acme.key}"}
    )
    assert refused.status_code == 403
    done = await acme.client.post("/secrets/rotate", headers={"authorization": f"Bearer {ADMIN}"})
    assert done.json()["rotated"] == 451
    after = await platform.rows("SELECT key, since, sealed, key_id FROM variables")
    assert {row.key_id for row in after} == {done.json()["key_id"]}
    assert not {row.key_id for row in before} & {row.key_id for row in after}
    assert not {bytes(row.sealed) for row in before} & {bytes(row.sealed) for row in after}
    file = platform.insula.settings.data_dir / "secret.keys"
    assert len(file.read_text().split()) == 1
    renamed = await acme.ok("PATCH", f"{LISTED}/K1", {"key": "L1"})  # opens and seals
    assert renamed["secret"] is True
