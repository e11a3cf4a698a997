import base64
import stat
from pathlib import Path

import pytest

from insula.adapters.keyring import (
    FILE,
    OVERHEAD,
    KeyRing,
    Unreadable,
    key_id,
    open_ring,
    parse_keys,
    sealed_by,
)
from insula.settings import SettingsError

ONE, TWO = b"1" * 32, b"2" * 32


def text(key: bytes) -> str:
    return base64.b64encode(key).decode()


def test_what_is_sealed_opens_where_it_is_bound_to_the_same() -> None:
    ring = KeyRing([ONE])
    sealed = ring.seal("geheim 😀", "variable", "app_1", "KEY")
    assert ring.open(sealed, "variable", "app_1", "KEY") == "geheim 😀"
    assert len(sealed) == len("geheim 😀".encode()) + OVERHEAD
    assert b"geheim" not in sealed
    assert sealed != ring.seal("geheim 😀", "variable", "app_1", "KEY")
    for bound in (("variable", "app_2", "KEY"), ("variable", "app_1KEY", ""), ("variable",)):
        with pytest.raises(Unreadable, match="variable does not open"):
            ring.open(sealed, *bound)
    with pytest.raises(Unreadable):
        ring.open(sealed[:-1] + bytes((sealed[-1] ^ 1,)), "variable", "app_1", "KEY")
    with pytest.raises(Unreadable):
        ring.open(b"", "variable")


def test_the_first_key_seals_and_all_open() -> None:
    old, both = KeyRing([ONE]), KeyRing([TWO, ONE])
    sealed = old.seal("geheim", "a")
    assert both.open(sealed, "a") == "geheim"
    assert sealed_by(both.seal("geheim", "a")) == both.current == key_id(TWO)
    with pytest.raises(Unreadable, match="INSULA_SECRET_KEYS"):
        KeyRing([TWO]).open(sealed, "a")


def test_a_key_is_made_and_kept_for_its_owner_alone(tmp_path: Path) -> None:
    ring = open_ring(tmp_path, None)
    file = tmp_path / FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    sealed = ring.seal("geheim", "a")
    again = open_ring(tmp_path, None)
    assert again.open(sealed, "a") == "geheim"
    assert again.renew() == {ring.current}
    assert again.current != ring.current
    assert open_ring(tmp_path, None).open(sealed, "a") == "geheim"
    again.forget(frozenset())
    assert ring.current in open_ring(tmp_path, None).ids
    again.forget(frozenset((ring.current,)))
    assert open_ring(tmp_path, None).ids == {again.current}


def test_a_new_key_that_cannot_be_stored_seals_nothing(tmp_path: Path) -> None:
    ring = open_ring(tmp_path, None)
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()  # in its way
    with pytest.raises(OSError, match=FILE):
        ring.renew()
    assert {ring.current} == ring.ids == {sealed_by(ring.seal("geheim", "a"))}


def test_named_keys_come_before_the_kept_ones(tmp_path: Path) -> None:
    kept = open_ring(tmp_path, None)
    ring = open_ring(tmp_path, f"{text(ONE)}, {TWO.hex()}")
    assert ring.current == key_id(ONE)
    assert ring.open(kept.seal("geheim", "a"), "a") == "geheim"
    ring.renew()
    assert ring.current == key_id(ONE)
    ring.forget(frozenset((kept.current,)))
    assert open_ring(tmp_path, text(ONE)).ids == {key_id(ONE)}
    assert not (open_ring(tmp_path / "none", text(ONE)).ids - {key_id(ONE)})
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("bad", ["", " , ", "short", text(ONE)[:-6], f"{text(ONE)},geheim-geheim"])
def test_what_is_no_key_is_refused_without_showing_it(bad: str) -> None:
    with pytest.raises(SettingsError, match="INSULA_SECRET_KEYS") as refused:
        parse_keys(bad)
    assert "geheim" not in str(refused.value)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("nonsense")
    with pytest.raises(SettingsError, match=FILE):
        open_ring(tmp_path, None)
    (tmp_path / FILE).write_text("")
    with pytest.raises(SettingsError, match="empty"):
        open_ring(tmp_path, None)
