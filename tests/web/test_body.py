"""Bodies: limits, JSON that is none, forms, and what becomes of each in a model."""

import json
import threading
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.web.application import application, client

from insula.errors import BadInput
from insula.kit.json_bounds import CONTAINERS, DEPTH
from insula.web import body as module
from insula.web.body import _checking_all, check_json
from insula.web.openapi import BODIES

JSON = {"content-type": "application/json"}


async def body_of(http: httpx.AsyncClient, **given: Any) -> Any:
    answer = await http.post("/apps/c/things", **given)
    assert answer.status_code == 200, answer.text
    return answer.json()["body"]


async def refused(http: httpx.AsyncClient, status: int, **given: Any) -> Any:
    answer = await http.post("/apps/c/things", **given)
    assert answer.status_code == status, answer.text
    assert answer.json()["status"] == status
    return answer.json()


async def test_no_body_is_an_empty_one(http: httpx.AsyncClient) -> None:
    assert await body_of(http) == {}
    assert await body_of(http, content=b" ", headers=JSON) == {}


async def test_unknown_properties_survive(http: httpx.AsyncClient) -> None:
    assert await body_of(http, json={"name": "a", "z": [1]}) == {"name": "a", "z": [1]}


async def test_json_is_taken_strictly(http: httpx.AsyncClient) -> None:
    for wrong in ({"count": "3"}, {"on": "true"}, {"on": 1}, {"name": 3}, {"tags": "a"}):
        await refused(http, 400, json=wrong)


@pytest.mark.parametrize("sent", ["json", "files"])
async def test_bodies_take_so_much_memory_together(sent: str) -> None:
    app = application()
    room = app.state.room
    piece: Any = "x" * 40_000
    given: dict[str, Any] = {"input": piece} if sent == "json" else {"input": (None, piece)}
    room.held = BODIES * 64 * 1024 - 30_000
    async with client(app) as http:
        answer = await http.post("/apps/c/things", **{sent: given})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        room.held = BODIES * 64 * 1024
        assert (await http.post("/apps/c/things", json={"input": "x"})).status_code == 200
        room.held = 0
        assert (await http.post("/apps/c/things", **{sent: given})).status_code == 200
        await refused(http, 400, json={"count": piece})
    assert room.held == 0


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"tags": {"a": 1}}, "Input should be a valid array (got an object)"),
        ({"inner": 3}, "Input should be an object (got a number)"),
        ({"at": 3}, "Input should be a valid datetime (got a number)"),
        ({"at": "2026-01-31T12:00:00"}, "Input should have timezone info"),
    ],
)
async def test_what_is_wrong_is_told_in_the_words_of_json(
    http: httpx.AsyncClient, body: dict[str, Any], told: str
) -> None:
    assert [error["message"] for error in (await refused(http, 400, json=body))["errors"]] == [told]


async def test_a_time_is_text_in_json(http: httpx.AsyncClient) -> None:
    shown = await body_of(http, json={"at": "2026-01-31T12:00:00+01:00"})
    assert shown == {"at": "2026-01-31T12:00:00+01:00"}


@pytest.mark.parametrize("sent", ["json", "data"])
async def test_a_large_body_is_read_once_and_not_in_passing(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, sent: str
) -> None:
    readers: list[threading.Thread] = []

    def reading(text: bytes) -> Any:
        readers.append(threading.current_thread())
        return check_json(text)

    monkeypatch.setattr(module, "check_json", reading)
    monkeypatch.setattr(module, "_LARGE", 1000)
    items = list(range(1000))
    value = items if sent == "json" else json.dumps(items)
    assert (await body_of(http, **{sent: {"input": value}}))["input"] == items
    assert len(readers) == 1
    assert readers[0] is not threading.main_thread()


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"name": "a\0"}, ["name"]),
        ({"tags": ["a", "\0"]}, ["tags", "1"]),
        ({"inner": {"depth": 1, "word": "\0"}}, ["inner", "word"]),
    ],
)
async def test_text_that_no_column_holds(
    http: httpx.AsyncClient, body: dict[str, Any], path: list[str]
) -> None:
    """Whatever the field's own type says of it, and however the body came."""
    as_form = {name: value if name == "name" else json.dumps(value) for name, value in body.items()}
    for sent in ({"json": body}, {"data": as_form}):
        found = await refused(http, 400, **sent)
        assert [error["path"] for error in found["errors"]] == [path]
        assert "NUL" in found["message"]


async def test_json_and_bytes_hold_any_text(http: httpx.AsyncClient) -> None:
    body = {"input": {"a": "\0"}, "free": "\0"}
    assert await body_of(http, json=body) == body


async def test_the_last_of_two_equal_names_wins(http: httpx.AsyncClient) -> None:
    assert await body_of(http, content=b'{"name":"a","name":"b"}', headers=JSON) == {"name": "b"}


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"null",
        b"1",
        b"{",
        b"{]",
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\ud800\\u0041"}',
        b'{"a":1}{',
        b"\xef\xbb\xbf{}",
        b'{"a":' + b"[" * DEPTH + b"]" * DEPTH + b"}",
        b'{"a":' * 20_000,
    ],
)
async def test_what_is_no_object_in_json(http: httpx.AsyncClient, text: bytes) -> None:
    answer = await http.post("/apps/c/things", content=text, headers={**JSON, "x": "y"})
    assert answer.status_code in (400, 413), answer.text
    assert answer.json()["message"]


async def test_json_errors_say_where(http: httpx.AsyncClient) -> None:
    found = await refused(http, 400, content=b'{"a": tru}', headers=JSON)
    assert "(byte " in found["message"]


async def test_a_body_over_the_limit(http: httpx.AsyncClient) -> None:
    async def endless() -> Any:
        while True:
            yield b"x" * 10_000

    for content in (b"x" * 70_000, endless()):
        found = await refused(http, 413, content=content, headers=JSON)
        assert "multipart/form-data" in found["message"]
        assert "POST /apps/{app_id}/files, or" in found["message"]


async def test_other_content_types(http: httpx.AsyncClient) -> None:
    for media_type in ("text/plain", "application/xml", "multipart/mixed", "x"):
        await refused(http, 415, content=b"{}", headers={"content-type": media_type})
    packed = {"content-type": "application/json", "content-encoding": "gzip"}
    assert "Compressed" in (await refused(http, 415, content=b"x", headers=packed))["message"]
    merge = {"content-type": "application/merge-patch+json; charset=utf-8"}
    assert await body_of(http, content=b"{}", headers=merge) == {}


@pytest.mark.parametrize("multipart", [True, False])
async def test_forms_carry_json_and_text(http: httpx.AsyncClient, multipart: bool) -> None:
    texts = {
        "name": "3",
        "count": "3",
        "share": "1.5",
        "on": "true",
        "input": '{"a":[1]}',
        "inner": '{"depth":2}',
        "either": "4",
        "tags": '["a","b"]',
        "own": "7",
    }
    given = {"files": {n: (None, t) for n, t in texts.items()}} if multipart else {"data": texts}
    assert await body_of(http, **given) == {
        "name": "3",
        "count": 3,
        "share": 1.5,
        "on": True,
        "input": {"a": [1]},
        "inner": {"depth": 2},
        "either": 4,
        "tags": ["a", "b"],
        "own": "7",
    }


async def test_forms_repeat_a_name_for_a_list(http: httpx.AsyncClient) -> None:
    assert await body_of(http, data={"tags": ["a", "b"]}) == {"tags": ["a", "b"]}
    assert await body_of(http, data={"tags": "a"}) == {"tags": ["a"]}


async def test_empty_text_is_no_number(http: httpx.AsyncClient) -> None:
    assert await body_of(http, data={"share": "", "count": "", "either": "null"}) == {
        "share": None,
        "either": None,
    }


async def test_empty_text_is_no_time_either(http: httpx.AsyncClient) -> None:
    assert await body_of(http, data={"at": "2026-01-31T12:00:00Z"}) is not None
    found = await refused(http, 400, data={"at": ""})
    assert found["errors"][0]["path"] == ["at"]


async def test_forms_that_are_wrong(http: httpx.AsyncClient) -> None:
    found = await refused(http, 400, data={"inner": '{"depth":', "on": "true"})
    assert found["errors"][0]["path"] == ["inner"]
    found = await refused(http, 400, data={"count": "three", "on": "perhaps"})
    assert [entry["path"] for entry in found["errors"]] == [["count"], ["on"]]
    form = {"content-type": "application/x-www-form-urlencoded"}
    await refused(http, 400, content=b"name=%ff", headers=form)
    await refused(http, 400, content=b"name=\xff", headers=form)
    await refused(http, 400, content=b"&".join([b"a=1"] * 1001), headers=form)
    await refused(http, 400, content=b"inner=" + b"%5B" * 300 + b"%5D" * 300, headers=form)


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b"", "multipart/form-data", 400),
        (b"nothing", "multipart/form-data; boundary=x", 400),
        (b"--x\r\n\r\nno name\r\n--x--\r\n", "multipart/form-data; boundary=x", 400),
        (
            b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nl',
            "multipart/form-data; boundary=x",
            400,
        ),
        (b"--x--\r\n", "multipart/form-data; boundary=x; charset=utf-7", 415),
        (b"--x--\r\n", 'multipart/form-data; boundary=x; Charset = "UTF-7"', 415),
        (b"--x--\r\n", "multipart/form-data; xcharset=utf-8; charset=punycode; boundary=x", 415),
        (
            b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\n\xff\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            400,
        ),
    ],
)
async def test_broken_multipart(
    http: httpx.AsyncClient,
    content: bytes,
    media_type: str,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await refused(http, status, content=content, headers={"content-type": media_type})
    assert not caplog.records  # a stranger does not fill the log


@pytest.mark.parametrize(
    "parameters",
    ["", "; charset=utf-8", '; charset="UTF8"', "; charset=us-ascii", "; a=charset=utf-7"],
)
async def test_a_form_is_utf8(http: httpx.AsyncClient, parameters: str) -> None:
    content = '--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nö-€\r\n--x--\r\n'
    media_type = f"multipart/form-data; boundary=x{parameters}"
    headers = {"content-type": media_type}
    assert await body_of(http, content=content.encode(), headers=headers) == {"name": "ö-€"}


async def test_files_stand_where_their_name_says(http: httpx.AsyncClient) -> None:
    part = ("../../etc/passwd", b"hello", "text/plain")
    as_shown = ["passwd", "text/plain", 5, "hello"]
    found = await body_of(
        http,
        data={"input": '{"text":"t"}'},
        files=[
            ("document", part),
            ("documents", part),
            ("documents", part),
            ("input[doc]", part),
            ("input[docs]", part),
            ("input.docs", part),
            ("other[deep][er]", part),
        ],
    )
    assert found["document"] == as_shown
    assert found["documents"] == [as_shown, as_shown]
    assert found["input"] == {"text": "t", "doc": as_shown, "docs": [as_shown, as_shown]}
    assert found["other"] == {"deep": {"er": as_shown}}


async def test_limits_of_a_form(http: httpx.AsyncClient) -> None:
    found = await refused(http, 413, files={"document": ("a", b"x" * 300_000)})
    assert "262,144" in found["message"]
    found = await refused(http, 413, files={f"f{n}": (None, "x" * 40_000) for n in range(2)})
    assert "65,536" in found["message"]
    many = [("documents", (f"{n}", b"x" * 200_000)) for n in range(2)]
    assert "POST /apps/{app_id}/files, or" in (await refused(http, 413, files=many))["message"]
    await refused(http, 400, files=[("documents", (f"{n}", b"")) for n in range(101)])


async def test_a_form_sent_again_is_the_same_body(http: httpx.AsyncClient) -> None:
    async def fingerprint(text: str) -> str:
        answer = await http.post(
            "/apps/c/things",
            files={"name": (None, text), "document": ("a", b"hello")},
            headers={"idempotency-key": "k"},
        )
        assert answer.json()["body"]["document"][3] == "hello"
        return str(answer.json()["hash"])

    assert await fingerprint("a") == await fingerprint("a") != await fingerprint("b")


def nested(depth: int) -> Any:
    value: Any = 'a "[[" \\'
    for level in range(depth):
        value = [value] if level % 2 else {"]]\\": value}
    return value


@given(st.integers(0, 2 * DEPTH), st.integers(0, 300))
@settings(max_examples=40, deadline=None)
def test_depth_is_counted_outside_strings(depth: int, beside: int) -> None:
    text = json.dumps([nested(depth), *([[]] * beside), '\\"[[[[']).encode()
    if depth + 1 <= DEPTH:
        assert check_json(text) == json.loads(text)
    else:
        with pytest.raises(BadInput, match="nests deeper"):
            check_json(text)


def test_a_million_lists_are_too_many() -> None:
    with pytest.raises(BadInput, match="more than"):
        check_json(b"[" + b"[]," * CONTAINERS + b"[]]")


def test_nor_may_the_texts_of_a_form_hold_more_together() -> None:
    parse = _checking_all()
    some = b"[" + b"[]," * (CONTAINERS // 4) + b"[]]"
    for _ in range(3):
        assert len(parse(some)) == CONTAINERS // 4 + 1
    with pytest.raises(BadInput, match="the form holds more than"):
        parse(some)
