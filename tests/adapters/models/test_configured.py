"""Providers from the environment, and what ``auto`` becomes."""

import pytest

from insula.adapters.http.egress import EgressPolicy
from insula.adapters.models.configured import Endpoint, provider_name, read_endpoints
from insula.adapters.models.providers import ModelProviders
from insula.engine.failures import StepFailure
from insula.settings import SettingsError


def test_known_providers_need_only_their_key() -> None:
    found = read_endpoints({"XAI_API_KEY": "x", "OPENAI_API_KEY": "o", "ANTHROPIC_API_KEY": "a"})
    assert [(e.name, e.url, e.operators) for e in found.values()] == [
        ("openai", "https://api.openai.com/v1", False),
        ("xai", "https://api.x.ai/v1", False),
    ]


def test_our_settings_win_over_a_providers_own() -> None:
    found = read_endpoints(
        {
            "OPENAI_API_KEY": "theirs",
            "OPENAI_BASE_URL": "http://theirs/v1",
            "INSULA_PROVIDER_OPENAI_URL": "http://ours:81/v1/",
            "INSULA_PROVIDER_OPENAI_KEY": "ours",
        }
    )
    assert found["openai"] == Endpoint("openai", "http://ours:81/v1", "ours", operators=True)
    assert found["openai"].place == "ours:81"


def test_any_name_may_be_configured_with_or_without_a_key() -> None:
    found = read_endpoints({"INSULA_PROVIDER_MY_LLM_URL": "http://[::1]/v1"})
    assert found["my_llm"].key is None
    assert found["my_llm"].place == "[::1]:80"
    assert provider_name("My-LLM") == "my_llm"


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"INSULA_PROVIDER_X_KEY": "k"}, "INSULA_PROVIDER_X_URL"),
        ({"INSULA_PROVIDER_X_URL": "x:80"}, "INSULA_PROVIDER_X_URL"),
        ({"INSULA_PROVIDER_X_URL": "http://u:p@h/v1"}, "INSULA_PROVIDER_X_URL"),
        ({"INSULA_PROVIDER_X_URL": "http://h\n/"}, "INSULA_PROVIDER_X_URL"),
    ],
)
def test_a_bad_setting_is_named(environ: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        read_endpoints(environ)


def test_keys_do_not_show() -> None:
    assert "secret" not in repr(read_endpoints({"GROQ_API_KEY": "secret"}))


def _identify(provider: str, model: str, **environ: str) -> tuple[str, str]:
    return ModelProviders(EgressPolicy(), environ).identify(provider, model)


def test_auto() -> None:
    assert _identify("auto", "m", INSULA_MODEL_DEFAULT="mock/m2") == ("mock", "m2")
    assert _identify("", "", INSULA_MODEL_DEFAULT="mock/a/b") == ("mock", "a/b")
    assert _identify("auto", "m", GROQ_API_KEY="k") == ("groq", "m")
    assert _identify("My LLM", "m", INSULA_PROVIDER_MY_LLM_URL="http://h/") == ("my_llm", "m")


@pytest.mark.parametrize(
    ("provider", "model", "environ", "named"),
    [
        ("auto", "m", {}, "INSULA_MODEL_DEFAULT"),
        ("auto", "auto", {"GROQ_API_KEY": "k"}, "INSULA_MODEL_DEFAULT"),
        ("auto", "m", {"INSULA_MODEL_DEFAULT": "auto/m"}, "INSULA_MODEL_DEFAULT"),
        ("auto", "m", {"INSULA_MODEL_DEFAULT": "groq/m"}, "GROQ_API_KEY"),
        ("openai", "m", {}, "OPENAI_API_KEY"),
        ("mock", "", {}, "no model"),
    ],
)
def test_what_cannot_answer_says_what_to_set(
    provider: str, model: str, environ: dict[str, str], named: str
) -> None:
    with pytest.raises(StepFailure, match=named) as caught:
        _identify(provider, model, **environ)
    assert caught.value.code == "provider"


def test_a_default_without_a_provider_is_a_bad_setting() -> None:
    with pytest.raises(SettingsError, match="INSULA_MODEL_DEFAULT"):
        _identify("auto", "m", INSULA_MODEL_DEFAULT="gpt-5")
