"""The egress policy: its entries, and what is refused without one."""

import pytest

from insula.adapters.http.egress import EgressPolicy
from insula.engine.failures import StepFailure


@pytest.mark.parametrize(
    ("entry", "host", "port", "address", "allowed"),
    [
        ("127.0.0.1", "localhost", 80, "127.0.0.1", True),
        ("127.0.0.1", "localhost", 80, "127.0.0.2", False),
        ("127.0.0.1", "x", 80, "::ffff:127.0.0.1", True),
        ("10.0.0.0/8", "x", 80, "10.2.3.4", True),
        ("10.0.0.0/8:8080", "x", 80, "10.2.3.4", False),
        ("10.0.0.0/8:8080", "x", 8080, "10.2.3.4", True),
        ("[::1]:8080", "::1", 8080, "::1", True),
        ("[::1]:8080", "::1", 8081, "::1", False),
        ("::1", "::1", 8081, "::1", True),
        ("fd00::/8", "x", 443, "fd00::1", True),
        ("db.internal", "DB.internal.", 80, "10.0.0.1", True),
        ("db.internal", "other.internal", 80, "10.0.0.1", False),
        ("db.internal:80", "db.internal", 81, "10.0.0.1", False),
        ("*.internal", "db.internal", 80, "10.0.0.1", True),
        ("*.internal", "internal", 80, "10.0.0.1", False),
        ("*.internal", "evilinternal", 80, "10.0.0.1", False),
        ("bücher.intern", "xn--bcher-kva.intern", 80, "10.0.0.1", True),
        ("*", "x", 22, "169.254.169.254", True),
        ("*:8080", "x", 8080, "10.0.0.1", True),
        ("*:8080", "x", 80, "10.0.0.1", False),
        ("", "x", 80, "1.1.1.1", True),
        ("", "x", 25, "1.1.1.1", False),
        ("mail.example:25", "mail.example", 25, "1.1.1.1", True),
    ],
)
def test_entries(entry: str, host: str, port: int, address: str, allowed: bool) -> None:
    policy = EgressPolicy([entry])
    if allowed:
        assert policy.permitted(host, port, [address]) == [address]
    else:
        with pytest.raises(StepFailure) as caught:
            policy.permitted(host, port, [address])
        assert caught.value.code == "egress"


def test_of_several_addresses_only_permitted_ones_are_used() -> None:
    assert EgressPolicy().permitted("x", 80, ["10.0.0.1", "1.1.1.1", "::1"]) == ["1.1.1.1"]


def test_a_refusal_names_the_setting_and_hides_the_address() -> None:
    with pytest.raises(StepFailure, match=r"INSULA_EGRESS_ALLOW=db\.internal:5432") as caught:
        EgressPolicy().permitted("db.internal", 5432, ["10.7.7.7"])
    assert "10.7.7.7" not in caught.value.message
    with pytest.raises(StepFailure, match=r"INSULA_EGRESS_ALLOW=\[::1\]:80"):
        EgressPolicy().permitted("::1", 80, ["::1"])


def test_also_adds_and_leaves_the_first_alone() -> None:
    first = EgressPolicy(["10.0.0.1"])
    second = first.also("10.0.0.2:80")
    assert second.permitted("x", 80, ["10.0.0.1", "10.0.0.2"]) == ["10.0.0.1", "10.0.0.2"]
    assert first.permitted("x", 80, ["10.0.0.1", "10.0.0.2"]) == ["10.0.0.1"]


@pytest.mark.parametrize("entry", ["10.0.0.0/99", "host:0", "host:http", "http://x/", "a b", "%"])
def test_a_bad_entry_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match="INSULA_EGRESS_ALLOW"):
        EgressPolicy([entry])
