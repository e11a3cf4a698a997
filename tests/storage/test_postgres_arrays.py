import struct
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from insula.storage.postgres_arrays import KINDS, encode_array

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "BigInteger": st.integers(-(2**63), 2**63 - 1),
    "Integer": st.integers(-(2**31), 2**31 - 1),
    "Float": st.floats(allow_nan=False),
    "Boolean": st.booleans(),
    "LargeBinary": st.binary(max_size=50),
    "Text": st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20),
}


def test_every_kind_is_tried() -> None:
    assert set(VALUES) == set(KINDS)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_the_server_reads_what_was_written(postgres_url: str, data: st.DataObject) -> None:
    with psycopg.connect(postgres_url) as connection:
        for name, kind in KINDS.items():
            values = data.draw(st.lists(st.none() | VALUES[name], max_size=5))
            result = connection.pgconn.exec_params(
                b"SELECT $1", [encode_array(kind, values)], [kind.array], [1], 1
            )
            assert result.error_message == b""
            found = psycopg.adapt.Transformer(connection)
            found.set_pgresult(result)
            assert found.load_rows(0, 1, tuple) == [(values,)]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(struct.error):
        encode_array(KINDS["Integer"], [2**31])
    with pytest.raises(UnicodeEncodeError):
        encode_array(KINDS["Text"], ["\ud800"])
