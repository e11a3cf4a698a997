"""Signed addresses: good for an hour, for one file, and not to be made by others."""

from hypothesis import given
from hypothesis import strategies as st

from insula.files.urls import LIFE_SECONDS, FileUrls, named_in, signing_key
from insula.kit import json
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.storage.sqlite import SqliteDatabase

URLS = FileUrls("http://insula/", b"k" * 32)
NOW = now_ms()


def _parts(url: str) -> tuple[str, str]:
    query = dict(pair.split("=") for pair in url.partition("?")[2].split("&"))
    return query["expires"], query["signature"]


def test_an_address_is_good_for_an_hour() -> None:
    url = URLS.signed("file_a", NOW)
    assert url.startswith("http://insula/files/file_a/content?expires=")
    expires, signature = _parts(url)
    assert URLS.good("file_a", expires, signature, NOW)
    assert URLS.good("file_a", expires, signature, NOW + LIFE_SECONDS * 1000 - 1001)
    assert not URLS.good("file_a", expires, signature, NOW + LIFE_SECONDS * 1000)


def test_it_is_good_for_this_file_this_time_and_this_key_alone() -> None:
    expires, signature = _parts(URLS.signed("file_a", NOW))
    assert not URLS.good("file_b", expires, signature, NOW)
    assert not URLS.good("file_a", str(int(expires) + 1), signature, NOW)
    assert not URLS.good("file_a", expires, signature[:-1], NOW)
    assert not FileUrls("http://insula", b"j" * 32).good("file_a", expires, signature, NOW)


@given(st.text(), st.text(), st.text())
def test_nothing_that_is_sent_breaks_it(file_id: str, expires: str, signature: str) -> None:
    assert not URLS.good(file_id, expires, signature, NOW)
    assert URLS.read(file_id + expires) is None


def test_an_address_is_read_back() -> None:
    assert URLS.read(URLS.signed("file_a", NOW)) == ("file_a", True)
    assert URLS.read(URLS.signed("file_a", 0)) == ("file_a", False)
    assert URLS.read(URLS.public("file_a")) == ("file_a", False)
    assert URLS.read("http://other/files/file_a/content") is None
    assert URLS.read("http://insula/files/file_a/other") is None


def test_an_address_that_is_longer_than_ours_is_not_taken_apart(monkeypatch) -> None:
    ours = URLS.signed("file_a", NOW)
    assert URLS.read(ours + "&a=1") == ("file_a", True)
    monkeypatch.delattr("insula.files.urls.parse_qsl")
    assert URLS.read(ours + "&a=1" * 1_000_000) == ("file_a", False)


async def test_the_key_is_made_once(database: SqliteDatabase) -> None:
    first = await database.write(signing_key)
    assert len(first) == 32
    assert await database.write(signing_key) == first


def test_addresses_move_with_their_files() -> None:
    urls = FileUrls("http://h", b"k" * 32)
    old, new, other = (new_id("file") for _ in range(3))
    good, forged = urls.signed(old), urls.public(old) + "?expires=9&signature=" + "x" * 43
    text = json.encode([old, good, forged, urls.signed(other), f"see {urls.public(old)}!"])
    for written in (text, text.replace(b"&", b"\\u0026")):
        assert named_in(written) == {old, other}
        moved = json.decode(urls.moved(written, {old: new}))
        assert moved[0] == new
        assert urls.read(moved[1]) == (new, True)
        assert urls.read(moved[2]) == (new, False)
        assert urls.read(moved[3]) == (other, True)
        assert moved[4] == f"see {urls.public(new)}!"
