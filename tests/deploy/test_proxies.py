"""The proxies: they hold back no stream, wait as long as runs last, and repeat nothing."""

import re

import pytest

from tests.deploy.files import DEPLOY, compose, seconds

CADDY = (DEPLOY / "Caddyfile").read_text("utf-8")
NGINX = (DEPLOY / "nginx.conf").read_text("utf-8")
LONGEST_RUN = 3600.0


def without_comments(text: str) -> str:
    return re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("text", [CADDY, NGINX], ids=["caddy", "nginx"])
def test_blocks_are_closed(text: str) -> None:
    depth = 0
    for sign in re.findall(r"[{}]", without_comments(text)):
        depth += 1 if sign == "{" else -1
        assert depth >= 0
    assert depth == 0


def test_caddy_asks_the_nodes_of_the_compose_file() -> None:
    services = compose()["services"]
    named = re.search(r"reverse_proxy (.+) \{", CADDY)
    assert named
    nodes = [name for name, service in services.items() if service.get("command") == ["serve"]]
    assert named.group(1).split() == [f"{name}:8080" for name in nodes]


def test_caddy_passes_streams_as_they_come_and_waits_for_runs() -> None:
    assert "flush_interval -1" in CADDY
    waits = re.search(r"response_header_timeout (\w+)", CADDY)
    assert waits
    assert seconds(waits.group(1)) > LONGEST_RUN
    assert "health_uri /readyz" in CADDY


def test_no_proxy_needs_sticky_sessions() -> None:
    for text in (CADDY, NGINX):
        assert not re.search(r"ip_hash|sticky|cookie", without_comments(text))


def test_nginx_passes_streams_as_they_come_and_waits_for_runs() -> None:
    directives = dict(re.findall(r"^\s*(proxy_\w+) (.+);$", NGINX, re.MULTILINE))
    assert directives["proxy_buffering"] == "off"
    assert directives["proxy_http_version"] == "1.1"
    assert seconds(directives["proxy_read_timeout"]) > LONGEST_RUN
    assert "non_idempotent" not in NGINX
    every = [line.strip() for line in without_comments(NGINX).splitlines() if line.strip()]
    assert all(line.endswith((";", "{", "}")) for line in every)
