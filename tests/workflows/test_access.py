"""Who may run what, as pure functions."""

import pytest

from insula.errors import Conflict, NotFound
from insula.workflows import access
from insula.workflows.facts import Facts

OWNER, OTHER = "app_owner", "app_other"


def facts(**changes: object) -> Facts:
    values: dict[str, object] = {
        "id": "work_1",
        "app_id": OWNER,
        "name": "Sum",
        "latest_version_id": "workv_1",
        "retention": None,
        "enabled": True,
        "discoverable": True,
        "open": False,
        "published_from_version": 2,
        "caller_limit": None,
        "deleted": False,
        "public_version_id": "workv_1",
        "blocked": frozenset(),
        **changes,
    }
    return Facts(**values)  # type: ignore[arg-type]  # the tests below choose fitting values


@pytest.mark.parametrize(
    "given", ["latest", "draft", 1, 999_999_999, "workv_1ChLYyPiLL9rMQ8En34vwD"]
)
def test_a_version_is_a_number_an_id_or_a_word(given: object) -> None:
    assert access.parse_selector(given) == given


def test_a_number_may_be_text_and_nothing_is_the_latest() -> None:
    assert access.parse_selector("12") == 12
    assert access.parse_selector(None) == "latest"


@pytest.mark.parametrize(
    "given",
    [0, -1, 10**9, True, 1.0, "", "newest", "-1", "１２", "9" * 10, "workv_", "a\0b", {}, []],
)
def test_what_has_the_form_of_no_version_is_not_there(given: object) -> None:
    with pytest.raises(NotFound):
        access.parse_selector(given)


def test_only_its_app_owns_a_workflow_and_only_while_it_is_there() -> None:
    assert access.owns(facts(), OWNER)
    assert not access.owns(facts(), OTHER)
    assert not access.owns(facts(deleted=True), OWNER)


@pytest.mark.parametrize(
    "changes",
    [
        {"discoverable": False},
        {"deleted": True},
        {"public_version_id": None},
        {"blocked": frozenset({OTHER})},
    ],
)
def test_each_reason_hides_it_from_others(changes: dict[str, object]) -> None:
    assert access.finds(facts(), OTHER)
    assert not access.finds(facts(**changes), OTHER)


def test_versions_before_publication_and_withdrawn_ones_are_not_public() -> None:
    assert access.is_public(2, 2, withdrawn=False)
    assert not access.is_public(2, 1, withdrawn=False)
    assert not access.is_public(2, 3, withdrawn=True)
    assert not access.is_public(None, 3, withdrawn=False)


def test_steps_are_seen_by_the_owner_and_where_open_by_all() -> None:
    assert access.sees_steps(facts(), OWNER)
    assert not access.sees_steps(facts(), OTHER)
    assert access.sees_steps(facts(open=True), OTHER)
    assert not access.sees_steps(None, OTHER)


def test_a_disabled_workflow_admits_nobody() -> None:
    access.admit(facts())
    with pytest.raises(Conflict, match="disabled"):
        access.admit(facts(enabled=False))
