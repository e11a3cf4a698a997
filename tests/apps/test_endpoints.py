"""Apps and keys over HTTP: who may, what is shown, what is refused."""

import httpx
import pytest
from tests.apps.installation import ADMIN_KEY, Installation

from insula.apps import actions, repository
from insula.apps.authenticate import Authenticator, digest
from insula.kit.clock import iso, now_ms

DATABASES = ("sqlite", "postgres")


async def test_the_admin_key_makes_apps(insula: Installation) -> None:
    answer = await insula.call("POST", "/apps", json={"name": "Acme", "settings": {"own": [1]}})
    made = answer.json()
    assert answer.status_code == 200
    assert made["id"].startswith("app_")
    assert (made["name"], made["verified"], made["settings"]) == ("Acme", False, {"own": [1]})
    own = await insula.call("GET", "/apps/c", made["key"])
    assert own.json() == {name: made[name] for name in own.json()}
    assert "key" not in own.json()
    assert (await insula.call("GET", f"/apps/{made['id']}")).json() == own.json()


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/apps"), ("GET", "/apps"), ("PATCH", "/apps/c"), ("DELETE", "/apps/c")],
)
async def test_what_only_the_admin_key_may(insula: Installation, method: str, path: str) -> None:
    _, key = await insula.create()
    body = {"name": "x"} if method in ("POST", "PATCH") else None
    assert (await insula.call(method, path, key, json=body)).status_code == 403
    assert (await insula.call(method, path, None, json=body)).status_code == 401
    assert (await insula.call(method, path, ADMIN_KEY + "x", json=body)).status_code == 401
    assert (await insula.call("GET", "/apps/c", key)).status_code == 200


async def test_without_an_admin_key_nobody_is_admin(insula: Installation) -> None:
    settings = insula.app.state.settings
    insula.app.state.settings = settings.model_copy(update={"admin_key": None})
    assert (await insula.call("GET", "/apps")).status_code == 401


async def test_apps_are_apart(insula: Installation) -> None:
    mine, key = await insula.create("Mine")
    theirs, their_key = await insula.create("Theirs")
    their_id = (await insula.call("GET", "/apps/c/keys", their_key)).json()[0]["id"]
    unknown = await insula.call("GET", "/apps/app_unknown", key)
    assert unknown.status_code == 404
    for method, path in (
        ("GET", f"/apps/{theirs}"),
        ("GET", f"/apps/{theirs}/keys"),
        ("POST", f"/apps/{theirs}/keys"),
        ("DELETE", f"/apps/{theirs}/keys/{their_id}"),
        ("DELETE", f"/apps/{mine}/keys/{their_id}"),
    ):
        answer = await insula.call(method, path, key)
        assert (answer.status_code, answer.json()) == (404, unknown.json())
    assert (await insula.call("GET", "/apps/c", their_key)).status_code == 200


async def test_c_says_nothing_to_the_admin_key(insula: Installation) -> None:
    await insula.create()
    assert (await insula.call("GET", "/apps/c")).status_code == 404
    assert (await insula.call("GET", "/apps/app_unknown/keys")).status_code == 404


async def test_apps_are_changed_in_part(insula: Installation) -> None:
    app_id, _ = await insula.create()
    path = f"/apps/{app_id}"
    before = (await insula.call("GET", path)).json()
    changed = await insula.call("PATCH", path, json={"verified": True})
    assert changed.json()["name"] == before["name"]
    assert changed.json()["verified"] is True
    form = {"name": "Neu", "settings": '{"model_default":"mock/m","own":1}'}
    changed = await insula.call("PATCH", path, data=form)
    assert changed.json()["name"] == "Neu"
    assert changed.json()["settings"] == {"model_default": "mock/m", "own": 1}
    assert (await insula.call("PATCH", "/apps/app_x", json={"name": "x"})).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "a\0b"},
        {"name": 5},
        {"name": "x" * 201},
        {"name": "a", "settings": {"big": "x" * 20_000}},
        {"name": "a", "settings": []},
    ],
)
async def test_apps_that_cannot_be_made(insula: Installation, body: object) -> None:
    answer = await insula.call("POST", "/apps", json=body)
    assert answer.status_code == 400
    assert answer.json()["errors"]
    assert (await insula.call("GET", "/apps")).headers["pagination-count"] == "0"


async def test_apps_are_listed_by_page_and_cursor(insula: Installation) -> None:
    made = [(await insula.create(f"App {number}"))[0] for number in range(5)][::-1]
    by_page = []
    for page in (1, 2, 3, 4):
        answer = await insula.call("GET", "/apps", params={"take": 2, "page": page})
        assert answer.headers["pagination-count"] == "5"
        by_page += [app["id"] for app in answer.json()]
    by_cursor, following = [], None
    while True:
        params = {"take": 2, **({"next": following} if following else {})}
        answer = await insula.call("GET", "/apps", params=params)
        by_cursor += [app["id"] for app in answer.json()]
        if (following := answer.headers.get("pagination-next")) is None:
            break
    assert sorted(by_page, reverse=True) == by_page
    assert by_cursor == by_page
    assert set(by_page) == set(made)


async def test_a_repeated_creation_makes_one_app(insula: Installation) -> None:
    again = {"headers": {"idempotency-key": "k"}, "json": {"name": "Acme"}}
    first, second = [(await insula.call("POST", "/apps", **again)).json() for _ in range(2)]
    assert first["id"] == second["id"]
    assert "key" in first
    assert "key" not in second
    again["json"] = {"name": "Other"}
    assert (await insula.call("POST", "/apps", **again)).status_code == 422
    assert (await insula.call("GET", "/apps")).headers["pagination-count"] == "1"


async def test_a_repeated_key_is_one_key(insula: Installation) -> None:
    app_id, key = await insula.create()
    again = {"headers": {"idempotency-key": "k"}, "json": {"name": "ci"}}
    first = (await insula.call("POST", "/apps/c/keys", key, **again)).json()
    second = (await insula.call("POST", f"/apps/{app_id}/keys", key, **again)).json()
    assert first["id"] == second["id"]
    assert "key" not in second
    assert (await insula.call("GET", "/apps/c/keys", key)).headers["pagination-count"] == "2"


async def test_a_key_is_repeated_once_it_has_expired(
    insula: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, key = await insula.create()
    ends = now_ms() + 60_000
    headers = {"idempotency-key": "k"}

    async def ask(**body: str) -> httpx.Response:
        return await insula.call("POST", "/apps/c/keys", key, json=body, headers=headers)

    made = (await ask(expires_at=iso(ends))).json()
    monkeypatch.setattr(actions, "now_ms", lambda: ends)
    again = await ask(expires_at=iso(ends))
    assert (again.status_code, again.json()["id"]) == (200, made["id"])
    assert (await ask(expires_at=iso(ends), name="other")).status_code == 422
    headers["idempotency-key"] = "another"
    refused = await ask(expires_at=iso(ends))
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (400, "value_error")


async def test_keys_are_shown_once_and_revoked_at_once(insula: Installation) -> None:
    _, key = await insula.create()
    made = (await insula.call("POST", "/apps/c/keys", key, json={"name": "ci"})).json()
    assert made["key"].startswith("ins_")
    assert len(made["key"]) == 47
    assert (await insula.call("GET", "/apps/c", made["key"])).status_code == 200
    listed = await insula.call("GET", "/apps/c/keys", key)
    assert made["key"] not in listed.text
    assert [entry["name"] for entry in listed.json()] == ["ci", "first key"]
    path = f"/apps/c/keys/{made['id']}"
    for _ in range(2):
        assert (await insula.call("DELETE", path, key)).json() is None
    assert (await insula.call("GET", "/apps/c", made["key"])).status_code == 401
    [revoked, _] = (await insula.call("GET", "/apps/c/keys", key)).json()
    assert "revoked_at" in revoked


async def test_a_read_only_key_makes_and_revokes_none(insula: Installation) -> None:
    _, key = await insula.create()
    made = (await insula.call("POST", "/apps/c/keys", key, json={"read_only": True})).json()
    assert (await insula.call("GET", "/apps/c/keys", made["key"])).status_code == 200
    assert (await insula.call("POST", "/apps/c/keys", made["key"])).status_code == 403
    path = f"/apps/c/keys/{made['id']}"
    assert (await insula.call("DELETE", path, made["key"])).status_code == 403


@pytest.mark.parametrize(
    "at",
    [
        "2001-01-01T00:00:00Z",
        "2101-01-01T00:00:00",
        "9999-12-31T23:59:59-12:00",
        "tomorrow",
        4_000_000_000,
        "9" * 400,
    ],
)
async def test_times_of_expiry_that_cannot_be(insula: Installation, at: object) -> None:
    _, key = await insula.create()
    answer = await insula.call("POST", "/apps/c/keys", key, json={"expires_at": at})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"] == ["expires_at"]


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999+12:00"])
async def test_a_key_of_which_never_is_meant(insula: Installation, at: str) -> None:
    _, key = await insula.create()
    made = (await insula.call("POST", "/apps/c/keys", key, json={"expires_at": at})).json()
    listed = await insula.call("GET", "/apps/c/keys", key)
    assert made["expires_at"] in [each.get("expires_at") for each in listed.json()]
    assert made["expires_at"].startswith("9999-12-31T")


async def test_the_oldest_revoked_key_makes_room(
    insula: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "KEYS_MAX", 3)
    _, key = await insula.create()
    ids = [(await insula.call("POST", "/apps/c/keys", key)).json()["id"] for _ in range(2)]
    assert (await insula.call("POST", "/apps/c/keys", key)).status_code == 409
    await insula.call("DELETE", f"/apps/c/keys/{ids[0]}", key)
    assert (await insula.call("POST", "/apps/c/keys", key)).status_code == 200
    listed = (await insula.call("GET", "/apps/c/keys", key)).json()
    assert len(listed) == 3
    assert ids[0] not in [entry["id"] for entry in listed]


async def test_deleting_an_app_ends_it_in_order(insula: Installation) -> None:
    app_id, key = await insula.create()
    other, _ = await insula.create("Other")
    assert (await insula.call("GET", "/apps/c", key)).status_code == 200
    assert (await insula.call("DELETE", f"/apps/{app_id}")).json() is None
    assert insula.deleted == [f"first {app_id}", f"second {app_id}"]
    assert (await insula.call("GET", "/apps/c", key)).status_code == 401
    assert (await insula.call("DELETE", f"/apps/{app_id}")).status_code == 404
    listed = await insula.call("GET", "/apps")
    assert [app["id"] for app in listed.json()] == [other]
    assert listed.headers["pagination-count"] == "1"


async def test_keys_are_stored_as_digests(insula: Installation) -> None:
    _, key = await insula.create()
    stored = await insula.database.read(
        lambda connection: repository.find_key_by_digest(connection, digest(key))
    )
    assert stored is not None
    assert key.encode() not in repr(tuple(stored)).encode()
    assert await Authenticator(insula.database)(key) is not None
