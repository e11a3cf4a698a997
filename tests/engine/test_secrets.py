import pytest

from insula.engine.failures import StepFailure
from insula.engine.masking import MASK
from insula.engine.ports import HttpRequest
from insula.engine.secrets import HANDLE, Secret, Secrets
from insula.kit import json

ONE = Secret("ONE", "insulasecret" + "1" * 32, 'va"l/ue\\1 &')
BOUND = Secret("BOUND", "insulasecret" + "2" * 32, "bound-value", ("api.test", "*.ok.test:8443"))
URL = Secret("URL", "insulasecret" + "3" * 32, "https://hooks.test/a/b?c=d")
HOST = Secret("HOST", "insulasecret" + "4" * 32, "in.ok.test")
SECRETS = Secrets([ONE, BOUND, URL, HOST])
OTHERS = "insulasecret" + "9" * 32


def request(url: str = "https://api.test/", **more: object) -> HttpRequest:
    return HttpRequest("POST", url, **more)  # type: ignore[arg-type]  # as given


def test_a_handle_survives_whatever_writes_it() -> None:
    assert HANDLE.fullmatch(ONE.handle)
    assert ONE.handle.isalnum()
    assert ONE.handle == ONE.handle.lower()
    assert len(ONE.handle) < 64  # a label of a host name


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        (f"https://a.test/x/{ONE.handle}?q={ONE.handle}", "https://a.test/x/{}?q={}"),
        (f"https://u:{ONE.handle}@a.test/", "https://u:{}@a.test/"),
        (f"https://a.test/{OTHERS}", f"https://a.test/{OTHERS}"),
        (f"/{ONE.handle}", "/{}"),
    ],
)
def test_in_a_url_a_value_is_percent_encoded(url: str, sent: str) -> None:
    encoded = "va%22l%2Fue%5C1%20%26"
    assert SECRETS.reveal(request(url)).request.url == sent.format(encoded, encoded)


def test_a_url_may_begin_with_a_secret_or_have_one_for_its_host() -> None:
    assert SECRETS.reveal(request(URL.handle)).request.url == URL.value
    assert SECRETS.reveal(request(f"{URL.handle}&e={ONE.handle}")).request.url.startswith(URL.value)
    assert SECRETS.reveal(request(f"https://{HOST.handle}/a")).request.url == "https://in.ok.test/a"
    with pytest.raises(StepFailure) as failed:
        SECRETS.reveal(request(f"https://a.{ONE.handle}/"))
    assert ONE.value not in failed.value.message


@pytest.mark.parametrize(
    ("headers", "body", "sent"),
    [
        ((), b'{"a":"%s"}', b'{"a":"va\\"l/ue\\\\1 &"}'),
        ((("Content-Type", "application/json"),), b'"%s', b'"va\\"l/ue\\\\1 &'),
        ((("content-type", "text/plain"),), b'{"a":"%s"}', b'{"a":"va"l/ue\\1 &"}'),
        (
            (("content-type", "application/x-www-form-urlencoded"),),
            b"a=%s",
            b"a=va%22l%2Fue%5C1%20%26",
        ),
        ((), b"a=%s", b'a=va"l/ue\\1 &'),
    ],
)
def test_in_a_body_a_value_is_written_as_the_body_is(
    headers: tuple[tuple[str, str], ...], body: bytes, sent: bytes
) -> None:
    given = request(headers=headers, body=body % ONE.handle.encode())
    assert SECRETS.reveal(given).request.body == sent


def test_in_headers_a_value_stands_as_it_is() -> None:
    given = request(headers=(("Authorization", f"Bearer {ONE.handle}"), ("X", OTHERS)))
    revealed = SECRETS.reveal(given)
    assert revealed.request.headers == (("Authorization", f"Bearer {ONE.value}"), ("X", OTHERS))
    assert revealed.used == (ONE,)
    assert ONE.value not in repr(revealed)


@pytest.mark.parametrize(
    ("host", "port", "admitted"),
    [
        ("api.test", 443, True),
        ("API.test", 80, True),
        ("x.api.test", 443, False),
        ("x.ok.test", 8443, True),
        ("x.ok.test", 443, False),
        ("ok.test", 8443, False),
        ("evilapi.test", 443, False),
    ],
)
def test_a_bound_secret_goes_to_its_hosts_alone(host: str, port: int, admitted: bool) -> None:
    revealed = SECRETS.reveal(request(headers=(("X", BOUND.handle),)))
    if admitted:
        revealed.check(host, port)
        SECRETS.check_redirect(host, port, [b"bound-value"])
    else:
        with pytest.raises(StepFailure, match="BOUND may not be sent") as failed:
            revealed.check(host, port)
        assert failed.value.code == "egress"
        with pytest.raises(StepFailure, match="BOUND may not be sent"):
            SECRETS.check_redirect(host, port, [b"x", b"a=bound%2Dvalue"])
    SECRETS.check_redirect(host, port, [ONE.value.encode(), b"bound"])


def test_a_failure_is_masked_whole() -> None:
    logs, output = json.raw([{"args": [ONE.value]}]), json.raw({"a": ONE.value})
    masked = SECRETS.failure(StepFailure(f"no {ONE.value}!", "tls", logs, output, 2.0))
    assert (masked.message, masked.code, masked.credits) == (f"no {MASK}!", "tls", 2.0)
    assert masked.logs is not None
    assert masked.output is not None
    assert json.decode(masked.logs) == [{"args": [MASK]}]
    assert json.decode(masked.output) == {"a": MASK}


def test_which_secret_it_is_is_told_to_its_own_app_alone() -> None:
    told: list[str] = []
    outside = Secrets([ONE, BOUND], told=told.append)
    revealed = outside.reveal(request(headers=(("X", BOUND.handle),)))
    for refuse in (
        lambda: revealed.check("elsewhere.test", 443),
        lambda: outside.check_redirect("elsewhere.test", 443, [BOUND.value.encode()]),
    ):
        with pytest.raises(StepFailure) as failed:
            refuse()
        assert failed.value.code == "egress"
        assert "elsewhere.test" in failed.value.message
        for word in (BOUND.key, *BOUND.hosts):
            assert word not in failed.value.message
            assert word in told[-1]
