"""Pages and cursors: what is asked, what is told, and that a walk misses and repeats nothing."""

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insula.errors import BadInput
from insula.web.pagination import REACH, Page, decode_cursor, encode_cursor, list_answer, paging


async def test_headers(http: httpx.AsyncClient) -> None:
    answer = await http.get("/apps/c/things", params={"page": 2, "take": 5})
    assert answer.json() == [{"id": "t"}]
    assert answer.headers["pagination-page"] == "2"
    assert answer.headers["pagination-take"] == "5"
    assert answer.headers["pagination-count"] == "41"
    following = await http.get("/apps/c/things", params={"next": answer.headers["pagination-next"]})
    assert following.headers["pagination-page"] == "3"
    assert following.headers["pagination-take"] == "20"


@pytest.mark.parametrize(
    "query",
    [
        "page=0",
        "page=-1",
        "page=x",
        "page=1.5",
        "page=501",
        "page=101&take=100",
        "page=999999999999999999999",
        "take=0",
        "take=101",
        "next=x",
        "next=%ff",
        "next=" + "A" * 3000,
    ],
)
async def test_what_cannot_be_asked(http: httpx.AsyncClient, query: str) -> None:
    answer = await http.get(f"/apps/c/things?{query}")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"][0] in query


async def test_beyond_the_reach_next_is_named(http: httpx.AsyncClient) -> None:
    assert (await http.get("/apps/c/things?page=500&take=20")).status_code == 200
    assert "`next`" in (await http.get("/apps/c/things?page=501&take=20")).json()["message"]


def test_a_capped_count_says_so() -> None:
    answer = list_answer(b"[]", Page(), REACH, capped=True)
    assert answer.headers["pagination-capped"] == "true"
    assert "pagination-next" not in answer.headers
    assert answer.body == b"[]"


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
positions = st.dictionaries(st.text(max_size=5), st.none() | st.integers(0, 2**50) | texts)


@given(positions)
@settings(max_examples=50, deadline=None)
def test_a_cursor_comes_back(position: dict[str, object]) -> None:
    assert decode_cursor(encode_cursor(position)) == position


@pytest.mark.parametrize("value", [-(2**63), 2**63, 10**30, "run_\0"])
def test_a_cursor_that_no_database_can_look_for_is_refused(value: object) -> None:
    with pytest.raises(BadInput, match="pagination-next"):
        decode_cursor(encode_cursor({"id": value}))


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_a_damaged_cursor_is_refused(data: st.DataObject) -> None:
    cursor = encode_cursor({"id": "run_1", "at": 5})
    at = data.draw(st.integers(0, len(cursor) - 1))
    letter = data.draw(st.sampled_from("ABCxyz019-_é="))
    damaged = cursor[:at] + letter + cursor[at + 1 :]
    if damaged == cursor:
        assert decode_cursor(damaged) == {"id": "run_1", "at": 5}
    else:
        with pytest.raises(BadInput, match="pagination-next"):
            decode_cursor(damaged)


@given(st.lists(st.integers(-(2**50), 2**50), unique=True, max_size=60), st.integers(1, 25))
@settings(max_examples=40, deadline=None)
async def test_walks_yield_every_row_once(ids: list[int], take: int) -> None:
    rows = sorted(ids, reverse=True)

    def answer(page: Page) -> tuple[list[int], str | None]:
        rest = rows
        if page.cursor is not None:
            rest = [row for row in rows if row < page.cursor["id"]]
        shown = rest[page.offset :][: page.take]
        more = len(rest) > page.offset + len(shown)
        after = {"id": shown[-1]} if more and shown else None
        headers = list_answer(shown, page, len(rows), next_cursor=after).headers
        return shown, headers.get("pagination-next")

    by_page = [row for n in range(1, 62) for row in answer(await paging(n, take, None))[0]]
    by_cursor, cursor = answer(await paging(1, take, None))
    number = 1
    while cursor is not None:
        page = await paging(1, take, cursor)
        number += 1
        assert page.page == number
        shown, cursor = answer(page)
        by_cursor = by_cursor + shown
    assert by_page == by_cursor == rows
