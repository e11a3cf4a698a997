"""Settings: read from the environment, checked, and complained about by name."""

from ipaddress import ip_network
from pathlib import Path

import pytest

from insula.settings import Settings, SettingsError, load_settings


def test_defaults() -> None:
    settings = load_settings()
    assert (settings.host, settings.runs_max, settings.synchronous) == ("127.0.0.1", 1000, "FULL")
    assert settings.retention == 30 * 24 * 3600
    assert settings.body_max == 32 * 1024 * 1024
    assert (settings.cors_origins, settings.trusted_proxies) == (("*",), ())


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSULA_PORT", "9000")
    monkeypatch.setenv("INSULA_TRUSTED_PROXIES", "10.0.0.1, 192.168.7.7/16")
    monkeypatch.setenv("INSULA_MODEL_DEFAULT", "my-llm2/large")
    monkeypatch.setenv("INSULA_EGRESS_ALLOW", "localhost,10.0.0.0/8,")
    monkeypatch.setenv("INSULA_PUBLIC_URL", "https://insula.example/base/")
    monkeypatch.setenv("INSULA_STEP_PRICES", "http_request=0.5, code = 2,")
    settings = load_settings(host="0.0.0.0")
    assert settings.step_prices == {"http_request": 0.5, "code": 2}
    assert (settings.host, settings.port) == ("0.0.0.0", 9000)
    assert settings.trusted_proxies == (ip_network("10.0.0.1/32"), ip_network("192.168.0.0/16"))
    assert settings.model_default == "my-llm2/large"
    assert settings.egress_allow == ("localhost", "10.0.0.0/8")
    assert settings.public_url == "https://insula.example/base"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INSULA_PORT", "http"),
        ("INSULA_PORT", "70000"),
        ("INSULA_RUNS_SHARE", "0"),
        ("INSULA_RETENTION", "-2"),
        ("INSULA_SYNCHRONOUS", "OFF"),
        ("INSULA_TRUSTED_PROXIES", "everyone"),
        ("INSULA_PUBLIC_URL", "insula.example"),
        ("INSULA_TIMEOUT_MODEL", "inf"),
        ("INSULA_STEP_PRICES", "model=1"),
        ("INSULA_STEP_PRICES", "code=-1"),
        ("INSULA_STEP_PRICES", "code"),
        ("INSULA_STEP_PRICES", "code=inf"),
        ("INSULA_ADMIN_KEY", "short-5ecret"),
        ("INSULA_MODEL_DEFAULT", "gpt"),
        ("INSULA_RETENTION", "3153600001"),
        ("INSULA_RUN_ROWS_DAYS", "36501"),
        ("INSULA_RUNS_MAX", "99999999999"),
        ("INSULA_SANDBOX_MEMORY", "1099511627777"),
        ("INSULA_CLUSTER_URL", ""),
        ("INSULA_CLUSTER_URL", "http://ada:5ecret@broker:4222"),
        ("INSULA_CLUSTER_URL", "nats://ada:5ecret@broker:port"),
        ("INSULA_CLUSTER_URL", "nats://broker:4222,,nats://ada:5ecret@"),
        ("INSULA_CLUSTER_URL", "nats://broker:4222,postgresql://ada:5ecret@base/insula"),
        ("INSULA_CLUSTER_URL", "databases"),
        ("INSULA_CLUSTER_URL", "redis://ada:5ecret@a:6379,redis://b:6379"),
    ],
)
def test_a_bad_setting_is_named_and_its_value_is_not(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as raised:
        load_settings()
    assert "5ecret" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("INSULA_ADMIN_KEY", "5ecret", "must have 20 to 150 characters"),
        ("INSULA_ADMIN_KEY", "5ecret" * 30, "must have 20 to 150 characters"),
        ("INSULA_ADMIN_KEY", "5ecret 5ecret 5ecret 5ecret", "must have 20 to 150 characters"),
        ("INSULA_ADMIN_KEY", "schlüssel" * 5, "must have 20 to 150 characters of ASCII"),
        ("INSULA_PUBLIC_URL", "insula.example", "must be an http"),
        ("INSULA_PUBLIC_URL", "http://", "must be an http"),
        ("INSULA_PUBLIC_URL", "http://[", "must be an http"),
        ("INSULA_PORT", "70000", "must be less than or equal to 65535"),
        ("INSULA_PORT", "http", "must be a valid integer$"),
        ("INSULA_HOST", "", "must have at least 1 character"),
        ("INSULA_TRUSTED_PROXIES", "10.0.0.1,everyone", "must be addresses or networks, [^;]*$"),
        ("INSULA_MODEL_DEFAULT", "gpt", "must be provider/model, such as openai/gpt-5"),
        ("INSULA_MODEL_DEFAULT", "auto/gpt", "must be provider/model"),
        ("INSULA_MOCK_FILE", "/nowhere", "Path does not point to a file"),
    ],
)
def test_what_a_setting_has_to_be_is_said_in_words(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: {told}"):
        load_settings()


def test_what_carries_may_be_the_database() -> None:
    database = "postgresql://base/insula"
    alone = load_settings(database_url=database)
    assert alone.carrier_url is None
    same = load_settings(database_url=database, cluster_url="database")
    assert same.carrier_url == same.database_url
    for url in ("nats://a:4222, tls://b:4222", "postgresql://carrier@base/insula", "redis://b"):
        other = load_settings(database_url=database, cluster_url=url)
        assert other.carrier_url is not None
        assert other.carrier_url.get_secret_value() == url


def test_secrets_are_not_shown() -> None:
    settings = load_settings(admin_key="an-admin-key-that-is-long")
    assert "an-admin-key" not in repr(settings) + settings.model_dump_json()


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_every_setting_stands_in_the_reference() -> None:
    page = (Path(__file__).parents[1] / "docs/reference/settings.md").read_text()
    for name in Settings.model_fields:
        assert f"`INSULA_{name.upper()}`" in page
