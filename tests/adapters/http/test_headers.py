"""What may be sent: nothing that could end a header and begin another."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.adapters.http.headers import (
    build_headers,
    check_header,
    check_method,
    parse_url,
    without_credentials,
)
from insula.engine.failures import StepFailure
from insula.engine.ports import HttpRequest


def _built(*headers: tuple[str, str], url: str = "http://x/", key: str | None = None) -> list[str]:
    request = HttpRequest("GET", url, headers, idempotency_key=key)
    return [f"{k.decode()}: {v.decode()}" for k, v in build_headers(request, parse_url(url))]


@given(st.text(), st.text())
def test_no_header_can_break_out_of_its_line(name: str, value: str) -> None:
    try:
        wire = b": ".join(check_header(name, value))
    except StepFailure:
        return
    assert not {13, 10, 0} & set(wire)


@pytest.mark.parametrize(
    ("name", "value"), [("a b", "x"), ("", "x"), ("x", "a\r\nb"), ("x", "\0"), ("x", "\ud800")]
)
def test_bad_headers_are_named(name: str, value: str) -> None:
    with pytest.raises(StepFailure, match=r"header"):
        check_header(name, value)


def test_values_are_latin_1_or_else_utf_8() -> None:
    assert check_header("x", " é ") == (b"x", b"\xe9")
    assert check_header("x", "→") == (b"x", "→".encode())


def test_what_belongs_to_the_connection_is_ours() -> None:
    built = _built(("Host", "evil"), ("Content-Length", "9"), ("Transfer-Encoding", "chunked"))
    assert [line.split(":")[0] for line in built] == ["Accept", "Accept-Encoding", "User-Agent"]


def test_defaults_yield_to_the_users_headers() -> None:
    built = _built(("user-agent", "me"), ("idempotency-key", "mine"), key="ours")
    assert "user-agent: me" in built
    assert "idempotency-key: mine" in built
    assert not any("ours" in line for line in built)
    assert "Idempotency-Key: ours" in _built(key="ours")


def test_credentials_in_the_url_become_a_header() -> None:
    assert "Authorization: Basic dTpwQHM=" in _built(url="http://u:p%40s@x/")


def test_credentials_do_not_follow_to_another_origin() -> None:
    names = [b"Authorization", b"Cookie", b"X-Api-Key", b"X-Auth-Token", b"apikey"]
    kept = [b"Accept", b"Idempotency-Key", b"X-Request-Id"]
    assert without_credentials([(name, b"v") for name in names + kept]) == [
        (name, b"v") for name in kept
    ]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/path",
        "ftp://x/",
        "file:///etc/passwd",
        "http://",
        "http://x:0/",
        "http://x:99999/",
        "http://x/\nb",
        "http://x/\ud800",
        "http://[::1",
        "http://x/" + "a" * 70_000,
    ],
)
def test_urls_that_cannot_be_asked(url: str) -> None:
    with pytest.raises(StepFailure) as caught:
        parse_url(url)
    assert caught.value.code == "input"


@given(st.text())
def test_any_text_is_a_url_or_a_clear_failure(text: str) -> None:
    with suppress(StepFailure):
        assert parse_url("http://" + text).host


@pytest.mark.parametrize("method", ["", "CONNECT", "trace", "GET /", "a\r\n"])
def test_methods_that_are_refused(method: str) -> None:
    with pytest.raises(StepFailure, match="method"):
        check_method(method)


def test_methods_are_upper_case() -> None:
    assert check_method("patch") == "PATCH"
